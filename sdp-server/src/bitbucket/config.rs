//! `[[bitbucket]]`.

use std::{path::PathBuf, time::Duration};

use sdp_core::{
    EnvironmentName, IntegrationName, RepoName, TemplateName, UserName,
    config::{ConfigError, read_secret},
};
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

/// One Bitbucket whose webhooks come to `/api/webhooks/bitbucket/<name>`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitbucketConfig {
    /// Its name here.
    pub name: IntegrationName,
    /// Cloud or Data Center.
    pub kind: BitbucketKind,
    /// Where its REST API is; for Data Center the address that people open.
    pub url: Option<Url>,
    /// A file that holds the secret of its webhooks and nothing else.
    pub secret_file: Option<PathBuf>,
    /// That secret itself: never in the file, only from `SDP_SERVER__BITBUCKET__<NAME>__SECRET` or an embedder.
    #[serde(skip)]
    pub secret: Option<SecretString>,
    /// A file that holds an access token which may set build statuses and comment on pull requests. Without a token
    /// nothing is told.
    pub token_file: Option<PathBuf>,
    /// That token itself: only from `SDP_SERVER__BITBUCKET__<NAME>__TOKEN` or an embedder.
    #[serde(skip)]
    pub token: Option<SecretString>,
    /// Who owns the sandboxes of pull requests.
    #[serde(default = "owner")]
    pub owner: UserName,
    /// Its repositories.
    #[serde(default)]
    pub repo: Vec<BitbucketRepo>,
}

/// Which of the two products it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BitbucketKind {
    /// bitbucket.org.
    Cloud,
    /// One's own.
    DataCenter,
}

/// `[[bitbucket.repo]]`: a repository there, the repo it is here, and what its events do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitbucketRepo {
    /// `workspace/slug`, or `PROJECT/slug` of Data Center.
    pub slug: String,
    /// The repo that agents declare.
    pub repo: RepoName,
    /// The template that sandboxes of pull requests are made from, with the pull request's branch of this repo. Without
    /// one pull requests have no sandboxes.
    pub template: Option<TemplateName>,
    /// The environment that they live in; `default` when absent.
    pub environment: Option<EnvironmentName>,
    /// How long they live after the pull request's last change; as the template, the environment or the server says
    /// when absent.
    #[serde(default, with = "sdp_core::model::units::duration_option")]
    pub expires_in: Option<Duration>,
    /// Whether a push to a branch deploys it again in every sandbox that has it.
    #[serde(default)]
    pub follow_pushes: bool,
}

fn owner() -> UserName {
    UserName::new("bitbucket").expect("nine letters")
}

impl BitbucketConfig {
    /// Where its REST API is.
    pub fn api(&self) -> Option<Url> {
        match (&self.url, self.kind) {
            (Some(url), _) => Some(url.clone()),
            (None, BitbucketKind::Cloud) => Url::parse("https://api.bitbucket.org").ok(),
            (None, BitbucketKind::DataCenter) => None,
        }
    }

    /// What is configured for a repository.
    pub fn repo(&self, slug: &str) -> Option<&BitbucketRepo> {
        self.repo.iter().find(|repo| repo.slug.eq_ignore_ascii_case(slug))
    }

    pub(super) fn read_secret(&self) -> Result<SecretString, ConfigError> {
        let key = format!("bitbucket.{}.secret_file", self.name);
        match (&self.secret, &self.secret_file) {
            (Some(secret), _) => Ok(secret.clone()),
            (None, Some(path)) => read_secret(&key, path),
            (None, None) => {
                let reason = "is missing: without the webhook's secret anybody could send what it sends".into();
                Err(ConfigError::Invalid { key, reason })
            }
        }
    }

    pub(super) fn read_token(&self) -> Result<Option<SecretString>, ConfigError> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(path)) => read_secret(&format!("bitbucket.{}.token_file", self.name), path).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Checks what the types cannot.
    pub(crate) fn check(&self, at: usize) -> Result<(), ConfigError> {
        let invalid =
            |key: &str, reason: String| Err(ConfigError::Invalid { key: format!("bitbucket[{at}].{key}"), reason });
        match self.api() {
            None => return invalid("url", "is missing: Data Center is at an address of one's own".into()),
            Some(url) if !is_address(&url) || url.query().is_some() => {
                return invalid(
                    "url",
                    "must be an http or https address without credentials, query and fragment".into(),
                );
            }
            Some(_) => {}
        }
        for (number, repo) in self.repo.iter().enumerate() {
            if repo.slug.split('/').count() != 2 || repo.slug.split('/').any(str::is_empty) {
                let key = format!("repo[{number}].slug");
                return invalid(&key, format!("is {:?}: write it as workspace/slug or PROJECT/slug", repo.slug));
            }
            if repo.expires_in.is_some_and(|lifetime| lifetime.is_zero()) {
                return invalid(&format!("repo[{number}].expires_in"), "must be longer than nothing".into());
            }
            if self.repo[..number].iter().any(|other| other.slug.eq_ignore_ascii_case(&repo.slug)) {
                return invalid(&format!("repo[{number}].slug"), format!("lists {} twice", repo.slug));
            }
        }
        Ok(())
    }
}

/// Whether something can be posted there.
pub(crate) fn is_address(url: &Url) -> bool {
    let is_anonymous = url.username().is_empty() && url.password().is_none();
    matches!(url.scheme(), "http" | "https") && url.has_host() && is_anonymous && url.fragment().is_none()
}
