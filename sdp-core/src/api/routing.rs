//! Routes of a sandbox: what is asked of them, and how requests reach the sandbox.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{
    deployment::DeploymentState,
    explain::{KEY_HEADER, KEY_NAME},
    ids::DeploymentId,
    names::{AgentName, ClaimReason, SandboxKey, SandboxName, ServiceName, UserName},
    route::{RouteTarget, ServiceUrl},
    units,
};

/// `PUT /api/sandboxes/{name}/routes/{service}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SetRoute {
    /// Where the gateway sends the service.
    pub target: RouteTarget,
    /// Take it over from the sandbox that owns it.
    #[serde(default)]
    pub takeover: bool,
    /// Why the sandbox holds the service, for those who would like it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ClaimReason>,
    /// How long it keeps others off; as long as the sandbox lives when absent, and never longer.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Span>"))]
    pub expires_in: Option<Duration>,
}

/// `PUT /api/sandboxes/{name}/routes`: many at once, in one write and one reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SetRoutes {
    /// The services to change; others keep what they have.
    pub routes: BTreeMap<ServiceName, RouteTarget>,
    /// Take them over from the sandboxes that own them.
    #[serde(default)]
    pub takeover: bool,
    /// Why the sandbox holds them, for those who would like them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ClaimReason>,
    /// How long it keeps others off; as long as the sandbox lives when absent, and never longer.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Span>"))]
    pub expires_in: Option<Duration>,
}

/// How requests reach a sandbox; part of `GET /api/sandboxes/{name}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SandboxRouting {
    /// What a request carries to be served by this sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_key: Option<RequestKey>,
    /// The routes that others took from it, until it sets them again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<LostRoute>,
    /// Its own gateway, if it brings one. Its routes are then its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<OwnGateway>,
}

/// A sandbox's key in every form, ready to copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RequestKey {
    /// The key.
    pub key: SandboxKey,
    /// As a header.
    pub header: String,
    /// As a cookie.
    pub cookie: String,
    /// As the W3C header `baggage`.
    pub baggage: String,
    /// A command that asks the shared gateway with it; none while the gateway does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curl: Option<String>,
    /// Whether the shared gateway heeds it.
    pub per_request: bool,
}

impl RequestKey {
    /// Every form of `key` for a shared gateway that answers at `gateway`.
    pub fn new(key: SandboxKey, per_request: bool, gateway: Option<&str>) -> Self {
        Self {
            header: format!("{KEY_HEADER}: {key}"),
            cookie: format!("{KEY_NAME}={key}"),
            baggage: format!("{KEY_NAME}={key}"),
            curl: gateway.map(|url| format!("curl -H '{KEY_HEADER}: {key}' '{}/'", url.trim_end_matches('/'))),
            per_request,
            key,
        }
    }
}

/// A route that another sandbox took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct LostRoute {
    /// The service.
    pub service: ServiceName,
    /// Where it led.
    pub url: ServiceUrl,
    /// The sandbox that has it now.
    pub by: SandboxName,
    /// Who took it.
    pub user: UserName,
    /// When.
    #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
    pub at: Timestamp,
}

/// The gateway that a sandbox brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct OwnGateway {
    /// The agent it runs on.
    pub agent: AgentName,
    /// The deployment that it is.
    pub deployment: DeploymentId,
    /// How that stands.
    pub state: DeploymentState,
    /// Where it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// `GET /api/explain?…`: why a request reaches what it reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// The service.
    pub service: ServiceName,
    /// The sandbox's key, as its `X-SDP-Sandbox` header has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its `X-SDP-Sandbox` header; another word for `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Its `Cookie` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// Its `baggage` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baggage: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_in_every_form() {
        let key = SandboxKey::new("pay-7f3k9q2m").unwrap();
        let shown = RequestKey::new(key, true, Some("http://gw.example:8080/erangel"));
        assert_eq!(shown.header, "X-SDP-Sandbox: pay-7f3k9q2m");
        assert_eq!(shown.cookie, "sdp-sandbox=pay-7f3k9q2m");
        let curl = "curl -H 'X-SDP-Sandbox: pay-7f3k9q2m' 'http://gw.example:8080/erangel/'";
        assert_eq!(shown.curl.as_deref(), Some(curl));
    }
}
