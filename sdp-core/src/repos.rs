//! The trait [`RepoSource`]: where code comes from.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{
    events::{EventSink, SinkError},
    model::{
        credentials::Credentials,
        ids::InstanceKey,
        names::{BranchName, CommitId, InvalidName, RepoName},
        repo::{Branch, Checkout, RepoSpec},
    },
    problem::{ErrorCode, Problem, chain},
};

/// The repositories of one agent: their remotes and their checkouts.
///
/// # Contract
/// - Credentials are used for the one call they are given to, and appear in no file, argument,
///   environment of a child, event, log or error.
/// - A cancelled call returns [`RepoError::Cancelled`] soon (a second, not a minute) and leaves the
///   checkout in a state that the next [`prepare`](Self::prepare) heals.
/// - Calls for different checkouts run side by side. Two `prepare` of one checkout are serialised.
#[async_trait]
pub trait RepoSource: std::fmt::Debug + Send + Sync {
    /// What can be deployed, in the order of the configuration. Does no I/O.
    fn repos(&self) -> Vec<RepoSpec>;

    /// Asks the remote of `repo` (or of the first repo) whether it accepts `credentials`, by a
    /// real `ls-remote`. Touches no checkout.
    ///
    /// # Errors
    /// [`RepoError::Auth`] when it refuses them; [`RepoError::Unreachable`] when it cannot be asked.
    async fn verify(
        &self,
        repo: Option<&RepoName>,
        credentials: &Credentials,
        cancel: &CancellationToken,
    ) -> Result<(), RepoError>;

    /// The branches the remote has now, by name. Branches whose names SDP does not accept are left
    /// out.
    ///
    /// # Errors
    /// As [`verify`](Self::verify); [`RepoError::UnknownRepo`].
    async fn branches(
        &self,
        repo: &RepoName,
        credentials: Option<&Credentials>,
        cancel: &CancellationToken,
    ) -> Result<Vec<Branch>, RepoError>;

    /// Makes the checkout of `key` hold exactly the remote's `branch`: reset, fetch, check out,
    /// fast-forward. Clones when there is none, and heals one that is dirty or half broken: local
    /// edits never block it. Untracked files survive only below `.sdp/` and where git ignores them.
    /// Tells its progress to `sink`.
    ///
    /// Idempotent: a second call with nothing new on the remote changes nothing.
    ///
    /// # Errors
    /// As [`branches`](Self::branches); [`RepoError::UnknownBranch`]; [`RepoError::Checkout`] with
    /// the previous checkout still in place where that is possible.
    async fn prepare(
        &self,
        key: &InstanceKey,
        branch: &BranchName,
        credentials: Option<&Credentials>,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Checkout, RepoError>;

    /// As [`prepare`](Self::prepare), but makes the checkout hold exactly `commit`, which was on
    /// `branch` once. The next `prepare` moves it on to the branch's tip.
    ///
    /// A commit that was fetched here before needs neither the remote nor credentials; any other is
    /// looked for on the remote's `branch`.
    ///
    /// # Errors
    /// As `prepare`; [`RepoError::UnknownCommit`], which leaves the checkout as it was, when the remote's
    /// branch is gone or does not lead to the commit any more.
    async fn prepare_commit(
        &self,
        key: &InstanceKey,
        branch: &BranchName,
        commit: &CommitId,
        credentials: Option<&Credentials>,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Checkout, RepoError>;

    /// Puts the checkout of `key` back to `previous`, an earlier answer of
    /// [`checkout`](Self::checkout): its branch at its commit, local edits dropped, `.sdp/` kept.
    /// Asks no remote. Called when a deployment failed after its `prepare`, because what runs may
    /// be served from the checkout.
    ///
    /// # Errors
    /// [`RepoError::Checkout`] when it cannot be done.
    async fn rewind(&self, key: &InstanceKey, previous: &Checkout) -> Result<(), RepoError>;

    /// The checkout of `key` as it is now; none when there is none yet.
    ///
    /// # Errors
    /// [`RepoError::Checkout`] when it cannot be read.
    async fn checkout(&self, key: &InstanceKey) -> Result<Option<Checkout>, RepoError>;

    /// The keys of sandboxes that have a checkout here, or what is left of one, by key.
    ///
    /// # Errors
    /// [`RepoError::Checkout`] when they cannot be listed.
    async fn sandbox_checkouts(&self) -> Result<Vec<InstanceKey>, RepoError> {
        Ok(Vec::new())
    }

    /// A file's bytes as committed at the checkout's `HEAD`, whatever the working tree holds; none
    /// when the commit has no such file.
    ///
    /// # Errors
    /// [`RepoError::Checkout`] when there is no checkout or it cannot be read.
    async fn committed_file(&self, key: &InstanceKey, path: &Path) -> Result<Option<Vec<u8>>, RepoError>;

    /// Removes the checkout of `key`. Idempotent: none there is fine.
    ///
    /// # Errors
    /// [`RepoError::Checkout`] when it cannot be removed.
    async fn discard(&self, key: &InstanceKey) -> Result<(), RepoError>;
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a [`RepoSource`] could not do it, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepoError {
    /// No repo of that name is configured here.
    #[error("no repo `{repo}` is configured on this agent; add a [[repo]] to its configuration or pick another")]
    UnknownRepo {
        /// The name asked for.
        repo: RepoName,
    },
    /// The remote has no such branch.
    #[error("`{repo}` has no branch `{branch}`; push it first or pick another")]
    UnknownBranch {
        /// The repo.
        repo: RepoName,
        /// The branch asked for.
        branch: BranchName,
    },
    /// The commit is not to be had.
    #[error(
        "commit {} of `{repo}` is not on this machine, nor on the branch `{branch}` of the remote any more; push it there, or deploy another",
        .commit.short()
    )]
    UnknownCommit {
        /// The repo.
        repo: RepoName,
        /// The branch it was on.
        branch: BranchName,
        /// The commit asked for.
        commit: CommitId,
    },
    /// The git host refused the credentials, or wants some and none were given.
    #[error("the git host refused {} for `{repo}`; {cure}", .user.as_deref().map_or("anonymous access".into(), |user| format!("the user name or password of {user}")))]
    Auth {
        /// The repo.
        repo: RepoName,
        /// The user that was refused; none when no credentials were given.
        user: Option<String>,
        /// What to do.
        cure: &'static str,
    },
    /// The git host cannot be reached.
    #[error("the git host of `{repo}` at {host} cannot be reached; check the network and the remote's address")]
    Unreachable {
        /// The repo.
        repo: RepoName,
        /// Host and port, without user or path.
        host: String,
        /// What went wrong below.
        #[source]
        source: Source,
    },
    /// The git host answered, but not as git does, or git failed otherwise.
    #[error("git failed on `{repo}`")]
    Git {
        /// The repo.
        repo: RepoName,
        /// What went wrong below.
        #[source]
        source: Source,
    },
    /// The checkout on this machine cannot be read or written.
    #[error("the checkout {} failed: {action}", .path.display())]
    Checkout {
        /// Its directory.
        path: PathBuf,
        /// What was being done, and the cure where one is known.
        action: String,
        /// What went wrong below.
        #[source]
        source: Source,
    },
    /// Cancelled by the caller's token.
    #[error("cancelled")]
    Cancelled,
    /// A name is not valid.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// An event could not be kept.
    #[error("the event log failed")]
    Sink(#[from] SinkError),
}

impl RepoError {
    /// The code under which it is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownRepo { .. } => ErrorCode::UnknownRepo,
            Self::UnknownBranch { .. } => ErrorCode::UnknownBranch,
            Self::UnknownCommit { .. } => ErrorCode::UnknownCommit,
            Self::Auth { .. } => ErrorCode::InvalidCredentials,
            Self::Unreachable { .. } => ErrorCode::HostUnreachable,
            Self::Git { .. } => ErrorCode::GitFailed,
            Self::Checkout { .. } => ErrorCode::CheckoutFailed,
            Self::Cancelled => ErrorCode::Cancelled,
            Self::Name(_) => ErrorCode::InvalidInput,
            Self::Sink(_) => ErrorCode::EventsUnavailable,
        }
    }
}

impl From<&RepoError> for Problem {
    fn from(error: &RepoError) -> Self {
        Problem::new(error.code(), chain(error))
    }
}
