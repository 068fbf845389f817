//! What a [`GitRepos`](crate::GitRepos) is made from.

use std::path::PathBuf;

use sdp_core::{Credentials, RepoName, RepoSpec};

use crate::remote::RemoteAddress;

/// The repositories and how to reach them.
#[derive(Debug, Clone)]
pub struct GitConfig {
    /// The repositories.
    pub repos: Vec<RepoSpec>,
    /// Below it, each sandbox has its checkouts: `<worktrees>/<sandbox>/<repo>`.
    pub worktrees: PathBuf,
    /// The private key for ssh remotes; the ssh agent is asked when there is none.
    pub ssh_key: Option<PathBuf>,
    /// What is used where a call brings no credentials of its own.
    pub credentials: Option<Credentials>,
}

impl GitConfig {
    /// A configuration without ssh key or credentials of its own.
    pub fn new(repos: Vec<RepoSpec>, worktrees: impl Into<PathBuf>) -> Self {
        Self { repos, worktrees: worktrees.into(), ssh_key: None, credentials: None }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (at, repo) in self.repos.iter().enumerate() {
            let name = || repo.name.clone();
            RemoteAddress::parse(&repo.remote).map_err(|reason| ConfigError::Remote { repo: name(), reason })?;
            if !repo.path.is_absolute() {
                return Err(ConfigError::RelativePath { repo: name(), path: repo.path.clone() });
            }
            if let Some(other) =
                self.repos[..at].iter().find(|other| other.name == repo.name || other.path == repo.path)
            {
                return Err(ConfigError::Twice { repo: name(), other: other.name.clone() });
            }
        }
        Ok(())
    }
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A remote that cannot be used.
    #[error("the remote of repo `{repo}` cannot be used: {reason}")]
    Remote {
        /// The repo.
        repo: RepoName,
        /// Why, and what to write instead.
        reason: &'static str,
    },
    /// A checkout path that depends on where the process was started.
    #[error("the path of repo `{repo}` must be absolute, and {} is not", .path.display())]
    RelativePath {
        /// The repo.
        repo: RepoName,
        /// Its path.
        path: PathBuf,
    },
    /// Two repos of one name or one path.
    #[error("repo `{repo}` has the name or the path of repo `{other}`; give each its own")]
    Twice {
        /// The repo.
        repo: RepoName,
        /// The one before it.
        other: RepoName,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(name: &str, path: &str, remote: &str) -> RepoSpec {
        RepoSpec {
            path: path.into(),
            remote: remote.into(),
            ..sdp_core::RepoSource::repos(&sdp_core::testing::MemoryRepos::with_repo(name)).remove(0)
        }
    }

    #[test]
    fn configurations_that_cannot_work_are_refused_with_the_repo() {
        let good = "https://git.example/a.git";
        let check = |repos| GitConfig::new(repos, "/w").check().map_err(|error| error.to_string());
        assert_eq!(check(vec![repo("a", "/a", good), repo("b", "/b", good)]), Ok(()));
        for (repos, word) in [
            (vec![repo("a", "/a", "/srv/a.git")], "http"),
            (vec![repo("a", "/a", "https://ada:secret@git.example/a.git")], "password"),
            (vec![repo("a", "a", good)], "absolute"),
            (vec![repo("a", "/a", good), repo("a", "/b", good)], "its own"),
            (vec![repo("a", "/a", good), repo("b", "/a", good)], "its own"),
        ] {
            let error = check(repos).unwrap_err();
            assert!(error.contains(word) && !error.contains("secret"), "{error}");
        }
    }
}
