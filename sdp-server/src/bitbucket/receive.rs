//! Webhooks as they come in: checked, written down, answered.

use http::HeaderMap;
use schemars::JsonSchema;
use sdp_core::ErrorCode;
use serde::Serialize;

use super::{Bitbucket, BitbucketKind, WebhookEvent, verify};
use crate::{
    ApiError,
    queue::{Work, task},
    store::{PullRequestKey, Received, Store},
};

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Taken {
    /// `queued`, `repeated`, `stale`, `ignored` or `pong`.
    pub(crate) status: &'static str,
    /// Why nothing is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
}

impl Taken {
    fn plainly(status: &'static str) -> Self {
        Self { status, detail: None }
    }

    fn ignored(detail: impl Into<String>) -> Self {
        Self { status: "ignored", detail: Some(detail.into()) }
    }
}

/// The longest id of a delivery that is kept.
const LONGEST_ID: usize = 200;

/// Takes a delivery. What is to be done for it is in the queue when this returns.
///
/// # Errors
/// When the signature is not right, or the body is not what the event says.
pub(crate) async fn receive(
    store: &Store,
    bitbucket: &Bitbucket,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Taken, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let key = text("x-event-key").unwrap_or_default();
    match text("x-hub-signature") {
        Some(signature) if verify(&bitbucket.secret, body, signature) => {}
        // Data Center signs no test of a connection, and nothing is done for it.
        None if key == "diagnostics:ping" => return Ok(Taken::plainly("pong")),
        Some(_) => {
            tracing::warn!(source = %bitbucket.config.name, event = key, "a webhook with a wrong signature was refused");
            let sentence = "the signature is not that of the body: is the webhook's secret the configured one?";
            return Err(ApiError::new(ErrorCode::NotSignedIn, sentence));
        }
        None => {
            let sentence = "the webhook is not signed; give it the configured secret, so that it sends X-Hub-Signature";
            return Err(ApiError::new(ErrorCode::NotSignedIn, sentence));
        }
    }
    let config = &bitbucket.config;
    let source = &config.name;
    let delivery = match config.kind {
        BitbucketKind::Cloud => text("x-request-uuid"),
        BitbucketKind::DataCenter => text("x-request-id"),
    };
    let delivery = delivery.filter(|id| !id.is_empty() && id.len() <= LONGEST_ID).map(str::to_owned);
    let event = WebhookEvent::parse(config.kind, key, body).map_err(|error| {
        tracing::warn!(%source, event = key, %error, "a signed webhook is not understood");
        ApiError::new(ErrorCode::InvalidInput, error.to_string())
    })?;
    let (told, tasks) = match event {
        WebhookEvent::Ping => return Ok(Taken::plainly("pong")),
        WebhookEvent::Other => return Ok(Taken::ignored(format!("nothing is done for the event {key:?}"))),
        WebhookEvent::PullRequest { repository, number, told } => {
            let Some(repo) = config.repo(&repository) else { return Ok(not_mapped(&repository)) };
            if repo.template.is_none() {
                return Ok(Taken::ignored(format!("{repository} has no template for its pull requests")));
            }
            let key = PullRequestKey { source: source.clone(), repository: repo.slug.clone(), number };
            let task = task(&Work::Follow(key.clone()));
            (Some((key, told)), vec![task])
        }
        WebhookEvent::Push { repository, branches } => {
            let Some(repo) = config.repo(&repository) else { return Ok(not_mapped(&repository)) };
            if !repo.follow_pushes || branches.is_empty() {
                return Ok(Taken::ignored("pushes are not followed, or no branch is there any more"));
            }
            let push = |pushed: super::PushedBranch| {
                let (source, repository) = (source.clone(), repo.slug.clone());
                task(&Work::Push { source, repository, branch: pushed.branch })
            };
            (None, branches.into_iter().map(push).collect())
        }
    };
    let received = store.receive(source, delivery, told, tasks).await?;
    tracing::info!(%source, event = key, ?received, "webhook");
    Ok(Taken::plainly(match received {
        Received::Taken => "queued",
        Received::Again => "repeated",
        Received::Stale => "stale",
    }))
}

fn not_mapped(repository: &str) -> Taken {
    Taken::ignored(format!("{repository} is not configured here"))
}
