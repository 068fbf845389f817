//! Bitbucket, Cloud and Data Center: pull requests have sandboxes, and are told how those are.
//!
//! - What a webhook tells is checked, written down and answered; the work is done from the queue, of each pull
//!   request one thing at a time. Its sandbox follows what was told last, so that nothing is done twice and what was
//!   missed does no harm.
//! - What a pull request is told, a build status and one comment, follows how its sandbox is when it is told.

mod config;
mod event;
mod follow;
mod name;
mod receive;
mod report;
mod rest;
mod signature;

use secrecy::SecretString;

pub(crate) use self::{
    config::is_address,
    follow::{follow, push},
    receive::{Taken, receive},
    report::report,
};
pub use self::{
    config::{BitbucketConfig, BitbucketKind, BitbucketRepo},
    event::{EventError, PullRequest, PullRequestState, PushedBranch, WebhookEvent},
    name::sandbox_name,
    signature::{sign, verify},
};

/// One Bitbucket as it is configured, with its secrets.
#[derive(Debug, Clone)]
pub(crate) struct Bitbucket {
    /// The configuration.
    pub(crate) config: BitbucketConfig,
    /// What its webhooks are signed with.
    secret: SecretString,
    /// What it is asked with; none where it is told nothing.
    token: Option<SecretString>,
}

impl Bitbucket {
    /// Reads the secrets of a configuration.
    ///
    /// # Errors
    /// When a file cannot be read, or there is no secret.
    pub(crate) fn new(config: BitbucketConfig) -> Result<Self, sdp_core::config::ConfigError> {
        let (secret, token) = (config.read_secret()?, config.read_token()?);
        Ok(Self { config, secret, token })
    }

    /// Whether pull requests are told anything.
    pub(crate) fn reports(&self) -> bool {
        self.token.is_some()
    }
}
