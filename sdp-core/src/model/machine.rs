//! Disks, and what an examination of a machine finds.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

/// The room on one of the disks that an agent uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Disk {
    /// A folder on it that the agent uses.
    pub path: String,
    /// How many bytes are free.
    pub free_bytes: u64,
    /// How many bytes there are.
    pub total_bytes: u64,
    /// Deployments are refused while fewer bytes are free.
    pub min_free_bytes: u64,
}

/// How a check went, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Finding {
    /// Which check: `websocket`, `disk`.
    pub check: Cow<'static, str>,
    /// How it went.
    pub verdict: Verdict,
    /// What was seen.
    pub evidence: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

impl Finding {
    /// That something is as it should be.
    pub fn ok(check: impl Into<Cow<'static, str>>, evidence: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Ok, evidence: evidence.into(), cure: None }
    }

    /// That something will not work for long or not always, and the cure.
    pub fn warning(check: impl Into<Cow<'static, str>>, evidence: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, cure: Some(cure.into()), ..Self::ok(check, evidence) }
    }

    /// That something does not work, and the cure.
    pub fn broken(check: impl Into<Cow<'static, str>>, evidence: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { verdict: Verdict::Broken, cure: Some(cure.into()), ..Self::ok(check, evidence) }
    }
}

/// What all checks of a `doctor` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Examination {
    /// In the order in which they are printed.
    pub findings: Vec<Finding>,
}

impl Examination {
    /// The worst verdict.
    pub fn worst(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
    }
}

impl fmt::Display for Examination {
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
