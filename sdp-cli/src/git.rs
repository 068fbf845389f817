//! Which repo and branch somebody stands in, as git says.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
};

use sdp_core::{BranchName, RepoName};

use crate::error::CliError;

/// A checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Here {
    /// By its remote, or its directory where it has none.
    pub(crate) repo: RepoName,
    /// None when no branch is checked out.
    pub(crate) branch: Option<BranchName>,
    /// How many commits the branch's remote does not have.
    pub(crate) unpushed: u32,
}

/// What `dir` is a checkout of.
pub(crate) fn here(dir: &Path) -> Result<Here, CliError> {
    let top = git(dir, &["rev-parse", "--show-toplevel"])?.ok_or_else(|| {
        let cure = "name repo and branch, or run it in a checkout";
        CliError::usage("this directory is no git checkout, so neither repo nor branch can be guessed", cure)
    })?;
    let branch = git(dir, &["symbolic-ref", "--quiet", "--short", "HEAD"])?;
    let remote = remote(dir, branch.as_deref())?;
    let name = remote.as_deref().and_then(name_of).or_else(|| name_of(&top));
    let repo = name.and_then(|name| name.parse().ok()).ok_or_else(|| {
        let cure = "name it: `sdp repo list` shows what there is";
        CliError::usage("no repo can be guessed from this checkout's remote or directory", cure)
    })?;
    let unpushed = git(dir, &["rev-list", "--count", "@{upstream}..HEAD"])?;
    let unpushed = unpushed.and_then(|count| count.parse().ok()).unwrap_or(0);
    Ok(Here { repo, branch: branch.and_then(|branch| branch.parse().ok()), unpushed })
}

/// The URL of the branch's remote, or of `origin`.
fn remote(dir: &Path, branch: Option<&str>) -> Result<Option<String>, CliError> {
    let own = match branch {
        Some(branch) => git(dir, &["config", "--get", &format!("branch.{branch}.remote")])?,
        None => None,
    };
    git(dir, &["remote", "get-url", "--", own.as_deref().unwrap_or("origin")])
}

/// What git prints; none when it has nothing to say.
fn git(dir: &Path, arguments: &[&str]) -> Result<Option<String>, CliError> {
    let output = Command::new("git").arg("-C").arg(dir).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let cure = "install git, or name repo and branch";
            CliError::usage("git is not installed, so neither repo nor branch can be guessed", cure)
        }
        _ => CliError::usage(format!("git cannot be run: {error}"), "name repo and branch"),
    })?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    Ok(Some(text).filter(|text| output.status.success() && !text.is_empty()))
}

/// The last part of a URL or a path, without `.git`.
fn name_of(place: &str) -> Option<String> {
    let place = place.trim_end_matches('/');
    let name = place.rsplit(['/', ':']).next()?;
    Some(name.strip_suffix(".git").unwrap_or(name).to_lowercase()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(dir: &Path, arguments: &[&str]) {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@example.invalid", "-c", "init.defaultBranch=main"];
        let status = Command::new("git").arg("-C").arg(dir).args(identity).args(arguments).output().unwrap();
        assert!(status.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&status.stderr));
    }

    #[test]
    fn repo_and_branch_are_those_of_the_checkout() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("My-Checkout");
        std::fs::create_dir_all(work.join("deep")).unwrap();
        run(&work, &["init", "--quiet"]);
        run(&work, &["checkout", "--quiet", "-b", "feature/x"]);
        let found = here(&work.join("deep")).unwrap();
        assert_eq!((found.repo.as_str(), found.branch.unwrap().as_str()), ("my-checkout", "feature/x"));

        let bare = dir.path().join("eredar.git");
        run(dir.path(), &["init", "--quiet", "--bare", "eredar.git"]);
        run(&work, &["remote", "add", "origin", bare.to_str().unwrap()]);
        run(&work, &["commit", "--quiet", "--allow-empty", "-m", "one"]);
        run(&work, &["push", "--quiet", "-u", "origin", "feature/x"]);
        assert_eq!(here(&work).unwrap().unpushed, 0);
        run(&work, &["commit", "--quiet", "--allow-empty", "-m", "two"]);
        let found = here(&work).unwrap();
        assert_eq!((found.repo.as_str(), found.unpushed), ("eredar", 1));

        run(&work, &["checkout", "--quiet", "--detach"]);
        assert_eq!(here(&work).unwrap().branch, None);
    }

    #[test]
    fn outside_a_checkout_that_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = here(dir.path()).unwrap_err();
        assert!(error.to_string().contains("no git checkout") && error.cure().is_some(), "{error}");
    }

    #[test]
    fn names_are_the_last_part_of_every_kind_of_remote() {
        for (place, name) in [
            ("https://git.example/scm/shop/eredar.git", "eredar"),
            ("git@git.example:shop/Eredar.git", "eredar"),
            ("git@git.example:eredar", "eredar"),
            ("ssh://git@git.example:7999/shop/erangel-ocean/", "erangel-ocean"),
            ("/srv/repos/eredar", "eredar"),
        ] {
            assert_eq!(name_of(place).unwrap(), name);
        }
        assert_eq!(name_of("/"), None);
    }

    proptest! {
        #[test]
        fn any_remote_has_a_name_or_none(place in "\\PC{0,40}") {
            if let Some(name) = name_of(&place) {
                prop_assert!(!name.is_empty() && !name.contains(['/', ':']));
            }
        }
    }
}
