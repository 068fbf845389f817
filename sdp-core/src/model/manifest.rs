//! `sandbox.yaml`: what a sandbox is to be, as a document that is kept beside the code and applied as often as wanted.
//!
//! ```yaml
//! environment: qa
//! services:
//! - repo: eredar
//!   branch: feature/greeting
//!   env:
//!     MODE: test
//! routes:
//!   eredar: sandbox
//! expires_in: 7d
//! ```

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    names::{BranchName, EnvironmentName, RepoName, SandboxName, ServiceName, TemplateName},
    route::RouteTarget,
    shape::{Services, Shape},
    units,
};

/// What a sandbox is to be. Its owner is left out: whoever applies it first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The sandbox's name, where the document is for that one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<SandboxName>,
    /// The environment; when absent the one it is in, and `default` for a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// The template that the services and routes below add to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateName>,
    /// Other branches than the template's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub branches: BTreeMap<RepoName, BranchName>,
    /// The services, in the place of the template's of the same repo.
    #[serde(default, skip_serializing_if = "Services::is_empty")]
    pub services: Services,
    /// Where its routes go, in the place of the template's of the same service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<ServiceName, RouteTarget>,
    /// How long it lives, from when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Span>"))]
    pub expires_in: Option<Duration>,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Time>"))]
    pub expires_at: Option<Timestamp>,
}

/// A text that is not a [`Manifest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct InvalidManifest {
    /// The line, from 1.
    pub line: u64,
    /// The column, from 1.
    pub column: u64,
    /// What is wrong.
    pub reason: String,
}

/// A manifest whose parts do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Contradiction {
    /// Two ends.
    #[error("say either expires_in, such as \"7d\", or expires_at")]
    TwoEnds,
    /// A life of no time.
    #[error("expires_in must be some time, such as \"7d\"")]
    NoTime,
    /// A branch of nothing.
    #[error("{0} is no repo of the template, so it has no branch to change; list it under services")]
    NoSuchRepo(RepoName),
    /// Branches alone.
    #[error("branches are of a template's repos, and no template is named; list the repos under services")]
    NoTemplate,
}

impl Contradiction {
    /// The key at fault.
    pub fn field(&self) -> String {
        match self {
            Self::TwoEnds => "expires_at".into(),
            Self::NoTime => "expires_in".into(),
            Self::NoSuchRepo(repo) => format!("branches.{repo}"),
            Self::NoTemplate => "branches".into(),
        }
    }
}

impl Manifest {
    /// Reads YAML. Unknown and repeated keys are refused, and so is more than one document.
    ///
    /// # Errors
    /// [`InvalidManifest`] says where and what.
    ///
    /// ```
    /// use sdp_core::Manifest;
    /// let error = Manifest::from_yaml("services:\n- repo: eredar\n  brunch: main\n").unwrap_err();
    /// assert_eq!((error.line, error.column), (3, 3));
    /// assert!(error.reason.starts_with("unknown field `brunch`"));
    /// ```
    pub fn from_yaml(text: &str) -> Result<Self, InvalidManifest> {
        let options = serde_saphyr::options! { with_snippet: false };
        let read = serde_saphyr::from_str_with_options::<Option<Self>>(text, options).map_err(|error| {
            let at = error.location();
            let told = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            InvalidManifest {
                line: at.map_or(1, |at| at.line()),
                column: at.map_or(1, |at| at.column()),
                reason: without_place(&told),
            }
        })?;
        // Taken for an empty sandbox it would tear everything down.
        let reason = "the document is empty; write {} for a sandbox without services";
        read.ok_or_else(|| InvalidManifest { line: 1, column: 1, reason: reason.into() })
    }

    /// Writes YAML that [`from_yaml`](Self::from_yaml) reads back.
    ///
    /// # Panics
    /// Never: it holds only texts, numbers, lists and maps with text keys.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).expect("a manifest is plain data")
    }

    /// What is to be deployed and routed. `template` is the shape of the one it names.
    ///
    /// # Errors
    /// [`Contradiction`].
    pub fn shape(&self, template: Option<&Shape>) -> Result<Shape, Contradiction> {
        if self.expires_in.is_some() && self.expires_at.is_some() {
            return Err(Contradiction::TwoEnds);
        }
        if self.expires_in.is_some_and(|lifetime| lifetime.is_zero()) {
            return Err(Contradiction::NoTime);
        }
        if template.is_none() && !self.branches.is_empty() {
            return Err(Contradiction::NoTemplate);
        }
        let mut shape = template.cloned().unwrap_or_default();
        for (repo, branch) in &self.branches {
            if !shape.services.switch(repo, branch.clone()) {
                return Err(Contradiction::NoSuchRepo(repo.clone()));
            }
        }
        self.services.iter().for_each(|service| shape.services.set(service.clone()));
        shape.routes.extend(self.routes.clone());
        // What the gateway's branch has is what there is without asking for it.
        shape.routes.retain(|_, target| *target != RouteTarget::Ocp);
        Ok(shape)
    }
}

/// A message of the YAML reader without the place, which is told apart from it.
fn without_place(told: &str) -> String {
    let line = told.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let line = match line.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, reason)) => reason,
        None => line,
    };
    line.rsplit_once(" at line ").map_or(line, |(reason, _)| reason).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::changes::tests::spec;

    const WHOLE: &str = "
name: pay
environment: qa
template: checkout
branches: {illidan: release/2}
services:
- repo: eredar
  branch: 1.20
  host_port: 20100
  env:
    MODE: test
    PORT: 8080
    DEBUG: no
routes:
  eredar: sandbox
  illidan: {url: 'http://a.example:1/x'}
  thrall: ocp
expires_at: 2026-12-24T18:00:00Z
";

    fn refused(text: &str) -> String {
        Manifest::from_yaml(text).unwrap_err().to_string()
    }

    #[test]
    fn everything_is_read_and_scalars_stay_the_text_they_are() {
        let manifest = Manifest::from_yaml(WHOLE).unwrap();
        let service = manifest.services.get(&"eredar".parse().unwrap()).unwrap();
        assert_eq!(service.branch.as_str(), "1.20");
        let env: Vec<_> = service.env.values().map(String::as_str).collect();
        assert_eq!(env, ["no", "test", "8080"]);
        assert_eq!(manifest.routes.len(), 3);
        assert_eq!(manifest.name, Some("pay".parse().unwrap()));
        assert_eq!(Manifest::from_yaml(&manifest.to_yaml()), Ok(manifest.clone()));
        assert_eq!(serde_json::from_value::<Manifest>(serde_json::to_value(&manifest).unwrap()).unwrap(), manifest);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, told) in [
            ("expires: 7d\n", "line 1, column 1: unknown field `expires`"),
            ("services:\n- repo: a\n  branch: b\n  prot: 1\n", "line 4, column 3: unknown field `prot`"),
            ("services:\n- repo: a\n", "line 2, column 3: missing field `branch`"),
            ("services:\n- repo: a\n  branch: b c\n", "line 3, column 11: \"b c\" is not a valid branch name"),
            ("services:\n- {repo: a, branch: b}\n- {repo: a, branch: c}\n", "the repo a is listed twice"),
            ("services:\n- repo: a\n  branch: b\n  branch: c\n", "line 4, column 3: duplicate mapping key `branch`"),
            ("routes:\n  eredar: moon\n", "line 2, column 11: unknown variant `moon`"),
            ("expires_in: 7\n", "line 1, column 13: \"7\" is not a duration"),
            ("services: [\n", "unclosed bracket"),
            ("- a\n", "line 1, column 1: "),
            ("", "line 1, column 1: the document is empty"),
            ("# all of it\n---\n", "the document is empty"),
            ("null", "the document is empty"),
            ("name: a\n---\nname: b\n", "only single YAML document"),
            ("services: &a [*a]\n", "Recursive reference"),
        ] {
            let error = refused(text);
            assert!(error.contains(told), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_document_that_grows_without_end_is_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..40 {
            let before = format!("*a{},", level - 1).repeat(9);
            text += &format!("a{level}: &a{level} [{before}]\n");
        }
        assert!(Manifest::from_yaml(&text).is_err());
        assert!(Manifest::from_yaml(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn services_and_routes_come_over_the_templates() {
        let template: Shape = serde_json::from_str(
            r#"{"services":[{"repo":"eredar","branch":"main","host_port":7001},{"repo":"illidan","branch":"main"}],
                "routes":{"eredar":"sandbox","jaina":{"url":"http://a.example"}}}"#,
        )
        .unwrap();
        let manifest = Manifest::from_yaml(
            "template: t\nbranches: {illidan: x}\nservices: [{repo: eredar, branch: y}]\nroutes: {jaina: ocp}",
        );
        let shape = manifest.unwrap().shape(Some(&template)).unwrap();
        assert_eq!(
            serde_json::to_value(shape).unwrap(),
            serde_json::json!({
                "services": [{ "repo": "eredar", "branch": "y" }, { "repo": "illidan", "branch": "x" }],
                "routes": { "eredar": "sandbox" },
            })
        );
    }

    #[test]
    fn parts_that_do_not_go_together_are_refused_by_their_key() {
        for (text, field) in [
            ("branches: {a: b}", "branches"),
            ("expires_in: 0s", "expires_in"),
            ("{expires_in: 1d, expires_at: 2026-12-24T18:00:00Z}", "expires_at"),
        ] {
            assert_eq!(Manifest::from_yaml(text).unwrap().shape(None).unwrap_err().field(), field);
        }
        let unknown = Manifest::from_yaml("{template: t, branches: {a: b}}").unwrap();
        assert_eq!(unknown.shape(Some(&Shape::default())).unwrap_err().field(), "branches.a");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "\\PC{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::from_yaml(&text);
            let _ = Manifest::from_yaml(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn what_is_exported_reads_back_the_same(spec in spec()) {
            let manifest = spec.manifest("pay".parse().unwrap());
            let read = Manifest::from_yaml(&manifest.to_yaml());
            prop_assert_eq!(read.as_ref(), Ok(&manifest));
            prop_assert_eq!(manifest.shape(None), Ok(spec.shape));
        }
    }
}
