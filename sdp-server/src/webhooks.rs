//! Outgoing webhooks: what happens is posted to chat, CI and whoever else wants to know.

use std::{collections::BTreeSet, path::PathBuf};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use jiff::Timestamp;
use sdp_core::{
    IntegrationName,
    config::{ConfigError, read_secret},
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use crate::{bitbucket::sign, outgoing::Outgoing, queue::Failure, store::Happening};

/// `[[webhook]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Its name here.
    pub name: IntegrationName,
    /// Where it is posted to.
    pub url: Url,
    /// A file that holds what it is signed with and nothing else.
    pub secret_file: Option<PathBuf>,
    /// That secret itself: never in the file, only from `SDP_SERVER__WEBHOOK__<NAME>__SECRET` or an embedder.
    #[serde(skip)]
    pub secret: Option<SecretString>,
    /// What it is told; everything when absent.
    pub events: Option<BTreeSet<Told>>,
}

/// What a webhook can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// A deployment runs.
    DeploymentRunning,
    /// A deployment failed, or what it ran was found dead.
    DeploymentFailed,
    /// A deployment was cancelled.
    DeploymentCancelled,
    /// What a deployment ran was stopped.
    DeploymentStopped,
    /// A sandbox was made.
    SandboxCreated,
    /// A sandbox expires soon.
    SandboxExpiring,
    /// A sandbox is gone.
    SandboxDeleted,
    /// A route was set, taken or given back.
    RouteChanged,
}

/// What is posted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WebhookBody {
    /// What happened.
    pub(crate) event: Told,
    /// Its number: the same however often it is posted.
    pub(crate) id: i64,
    /// When it happened.
    pub(crate) at: Timestamp,
    /// To what: a `deployment`, a `sandbox` or a `route`.
    #[serde(flatten)]
    pub(crate) what: Map<String, Value>,
}

/// One webhook with its secret.
#[derive(Debug, Clone)]
pub(crate) struct Webhook {
    pub(crate) config: WebhookConfig,
    secret: SecretString,
}

impl WebhookConfig {
    /// Checks what the types cannot.
    pub(crate) fn check(&self, at: usize) -> Result<(), ConfigError> {
        if crate::bitbucket::is_address(&self.url) {
            return Ok(());
        }
        let reason = "must be an http or https address without credentials and fragment".into();
        Err(ConfigError::Invalid { key: format!("webhook[{at}].url"), reason })
    }
}

impl Webhook {
    /// Reads the secret of a configuration.
    ///
    /// # Errors
    /// When its file cannot be read, or there is none.
    pub(crate) fn new(config: WebhookConfig) -> Result<Self, ConfigError> {
        let key = format!("webhook.{}.secret_file", config.name);
        let secret = match (&config.secret, &config.secret_file) {
            (Some(secret), _) => secret.clone(),
            (None, Some(path)) => read_secret(&key, path)?,
            (None, None) => {
                let reason = "is missing: without a secret nobody can tell who posts to it".into();
                return Err(ConfigError::Invalid { key, reason });
            }
        };
        Ok(Self { config, secret })
    }
}

/// What a webhook is told of something that happened; nothing if it does not want to know.
pub(crate) fn body(config: &WebhookConfig, happening: &Happening) -> Option<WebhookBody> {
    // Steps on the way are for others.
    let event: Told = serde_json::from_value(happening.kind.clone().into()).ok()?;
    if config.events.as_ref().is_some_and(|wanted| !wanted.contains(&event)) {
        return None;
    }
    let mut detail = happening.detail.clone();
    if let Some(detail) = detail.as_object_mut() {
        detail.retain(|_, value| !value.is_null());
    }
    let what = match event {
        Told::DeploymentRunning | Told::DeploymentFailed | Told::DeploymentCancelled | Told::DeploymentStopped => {
            "deployment"
        }
        Told::SandboxCreated | Told::SandboxExpiring | Told::SandboxDeleted => "sandbox",
        Told::RouteChanged => "route",
    };
    Some(WebhookBody { event, id: happening.id, at: happening.at, what: Map::from_iter([(what.to_owned(), detail)]) })
}

/// Posts it, signed with the time at which it is posted: `X-SDP-Signature` is the HMAC over `X-SDP-Timestamp`, a dot
/// and the body.
///
/// # Errors
/// When it was not taken.
pub(crate) async fn send(outgoing: &Outgoing, webhook: &Webhook, body: &WebhookBody, id: i64) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(body).map_err(|error| Failure::never(error.to_string()))?;
    let now = Timestamp::now().as_second().to_string();
    let signature = sign(&webhook.secret, &[now.as_bytes(), b".", &bytes]);
    let event = serde_json::to_value(body.event).ok();
    let event = event.as_ref().and_then(Value::as_str).unwrap_or_default();
    let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let delivery = id.to_string();
    for (name, value) in [
        ("x-sdp-event", event),
        ("x-sdp-delivery", &delivery),
        ("x-sdp-timestamp", &now),
        ("x-sdp-signature", &signature),
    ] {
        let value = HeaderValue::from_str(value).map_err(|error| Failure::never(error.to_string()))?;
        headers.push((HeaderName::from_static(name), value));
    }
    let answer = outgoing.send(Method::POST, &webhook.config.url, &headers, Bytes::from(bytes)).await?;
    answer.success("the webhook").map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(events: &str) -> WebhookConfig {
        toml::from_str(&format!("name = 'chat'\nurl = 'http://127.0.0.1:1/x?key=1'\n{events}")).unwrap()
    }

    fn happening(kind: &str, detail: Value) -> Happening {
        Happening { id: 7, at: Timestamp::UNIX_EPOCH, kind: kind.into(), detail, pull_request: None }
    }

    #[test]
    fn a_body_says_what_happened_to_what() {
        let happening = happening("sandbox-created", json!({ "name": "pay", "owner": null }));
        let body = body(&config(""), &happening).unwrap();
        assert_eq!(
            serde_json::to_value(&body).unwrap(),
            json!({ "event": "sandbox-created", "id": 7, "at": "1970-01-01T00:00:00Z", "sandbox": { "name": "pay" } })
        );
        assert_eq!(serde_json::from_value::<WebhookBody>(serde_json::to_value(&body).unwrap()).unwrap(), body);
    }

    #[test]
    fn a_webhook_is_told_what_it_wants_to_know_and_no_steps_on_the_way() {
        let only = config("events = ['deployment-failed']");
        assert!(body(&only, &happening("deployment-failed", json!({}))).is_some());
        assert!(body(&only, &happening("deployment-running", json!({}))).is_none());
        for kind in ["deployment-build", "deployment-superseded", "weather"] {
            assert!(body(&config(""), &happening(kind, json!({}))).is_none(), "{kind}");
        }
        assert!(toml::from_str::<WebhookConfig>("name='a'\nurl='http://a'\nevents=['weather']").is_err());
    }

    #[test]
    fn an_address_holds_no_credentials() {
        for url in ["ftp://a.example", "http://u:p@a.example", "http://a.example/#x", "data:x"] {
            let config = WebhookConfig { url: url.parse().unwrap(), ..config("") };
            assert!(config.check(0).is_err(), "{url}");
        }
        assert!(config("").check(0).is_ok());
    }
}
