//! libgit2's errors, told as the trait's.

use std::path::Path;

use git2::{ErrorClass, ErrorCode};
use sdp_core::{Credentials, RepoError, RepoName};
use tokio_util::sync::CancellationToken;

use crate::remote::RemoteAddress;

/// An error of a call to the remote.
pub(crate) fn of_remote(
    repo: &RepoName,
    address: &RemoteAddress,
    credentials: Option<&Credentials>,
    cancel: &CancellationToken,
    error: git2::Error,
) -> RepoError {
    if cancel.is_cancelled() {
        return RepoError::Cancelled;
    }
    match (error.code(), error.class()) {
        (ErrorCode::Auth, _) => RepoError::Auth {
            repo: repo.clone(),
            user: credentials.map(|given| given.username().to_string()),
            cure: match credentials {
                Some(_) => "check both, or use an access token as the password",
                None => "sign in, or have a credential configured on the agent",
            },
        },
        (_, ErrorClass::Net | ErrorClass::Os) => unreachable(repo, address, error),
        _ => RepoError::Git { repo: repo.clone(), source: error.into() },
    }
}

/// The git host does not answer.
pub(crate) fn unreachable(
    repo: &RepoName,
    address: &RemoteAddress,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> RepoError {
    RepoError::Unreachable { repo: repo.clone(), host: address.to_string(), source: source.into() }
}

/// An error of a checkout on this machine.
pub(crate) fn of_checkout(
    path: &Path,
    action: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> RepoError {
    RepoError::Checkout { path: path.to_owned(), action: action.into(), source: source.into() }
}
