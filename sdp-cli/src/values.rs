//! What people type, as values.

use std::str::FromStr;

use sdp_core::{BranchName, EnvName, RepoName, RouteTarget, ServiceName};

/// `LEFT=RIGHT`.
fn pair<L, R>(text: &str, form: &str) -> Result<(L, R), String>
where
    L: FromStr<Err: std::fmt::Display>,
    R: FromStr<Err: std::fmt::Display>,
{
    let (left, right) = text.split_once('=').ok_or_else(|| format!("write it as {form}"))?;
    let left = left.parse().map_err(|error: L::Err| error.to_string())?;
    Ok((left, right.parse().map_err(|error: R::Err| error.to_string())?))
}

/// An environment variable: `LOG_LEVEL=debug`. The value may hold anything, also nothing.
pub(crate) fn variable(text: &str) -> Result<(EnvName, String), String> {
    pair(text, "NAME=VALUE, such as LOG_LEVEL=debug")
}

/// A repo's branch: `eredar=feature/x`.
pub(crate) fn branch_of(text: &str) -> Result<(RepoName, BranchName), String> {
    pair(text, "REPO=BRANCH, such as eredar=feature/x")
}

/// A service's target: `eredar=sandbox`.
pub(crate) fn target_of(text: &str) -> Result<(ServiceName, RouteTarget), String> {
    pair(text, "SERVICE=TARGET, such as eredar=sandbox, eredar=ocp or eredar=http://10.0.0.7:8080")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_split_at_the_first_sign() {
        assert_eq!(variable("A=b=c").unwrap().1, "b=c");
        assert_eq!(variable("A=").unwrap().1, "");
        assert_eq!(branch_of("eredar=feature/x").unwrap().1.as_str(), "feature/x");
        let (service, target) = target_of("eredar=http://a:1/?q=2").unwrap();
        assert_eq!((service.as_str(), target.to_string().as_str()), ("eredar", "http://a:1/?q=2"));
    }

    #[test]
    fn what_is_wrong_is_named_with_the_form_that_is_right() {
        assert!(variable("A").unwrap_err().contains("NAME=VALUE"));
        assert!(variable("1A=x").unwrap_err().contains("environment variable"));
        assert!(branch_of("eredar=a b").unwrap_err().contains("branch name"));
        assert!(target_of("eredar=stable").unwrap_err().contains("`ocp`"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "\\PC{0,40}") {
            let _ = (variable(&text), branch_of(&text), target_of(&text));
        }

        #[test]
        fn every_variable_reads_back(name in "[A-Za-z_][A-Za-z0-9_]{0,10}", value in any::<String>()) {
            let (read, text) = variable(&format!("{name}={value}")).unwrap();
            prop_assert_eq!((read.as_str(), text), (name.as_str(), value));
        }
    }
}
