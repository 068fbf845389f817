//! What the checks of a `doctor` say.

use std::fmt;

use serde::Serialize;

/// How a check went, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and will not for long or not always.
    Warning,
    /// It does not work.
    Broken,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Broken => "broken",
        })
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check: `websocket`, `disk`.
    pub check: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was seen.
    pub evidence: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, evidence: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, evidence: evidence.into(), cure: None }
    }

    /// It works, and something is to be done.
    pub fn warning(check: &'static str, evidence: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, evidence: evidence.into(), cure: Some(cure.into()) }
    }

    /// It does not work.
    pub fn broken(check: &'static str, evidence: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Broken, evidence: evidence.into(), cure: Some(cure.into()) }
    }
}

/// What all checks found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order in which they are printed.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The worst verdict.
    pub fn worst(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { check, verdict, evidence, cure } in &self.findings {
            writeln!(f, "{verdict:<8} {check:<11} {evidence}")?;
            if let Some(cure) = cure {
                writeln!(f, "{:<20} -> {cure}", "")?;
            }
        }
        Ok(())
    }
}
