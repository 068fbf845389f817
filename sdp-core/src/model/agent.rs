//! An agent: the daemon on one VM.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    ids::{HostPort, PortRange},
    names::{AgentName, BranchName, RepoName, ServiceName},
    repo::{RecipeKind, RepoSpec},
};

/// What an agent tells about itself when it connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Inventory {
    /// The agent's version.
    pub version: String,
    /// The host that routes to its deployments use.
    pub advertise: String,
    /// How it runs things: `docker`, `process`.
    pub deployer: String,
    /// What it can deploy.
    pub repos: Vec<RepoInfo>,
    /// The host ports it picks from; none from an agent that picks without telling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_range: Option<PortRange>,
    /// The gateway, on the gateway's VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayInfo>,
    /// Whether it deploys the exact commit that a request names. One that does not would deploy the
    /// branch's tip instead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact_commits: bool,
    /// Whether a new instance can serve beside the one it replaces, on another port.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serves_beside: bool,
    /// Whether its configuration lets people run commands in what it has deployed; none from an agent that is too old to
    /// run any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<bool>,
}

/// A repo as people see it: the agent's configuration without its paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RepoInfo {
    /// Its name.
    pub name: RepoName,
    /// The service it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// How it is built and run.
    pub recipe: RecipeKind,
    /// The path part of the URL it answers on: a PHP repo's prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_prefix: Option<String>,
}

impl RepoInfo {
    /// Where a deployment of this repo answers, given the agent's advertised host.
    pub fn url(&self, advertise: &str, port: HostPort) -> String {
        format!("http://{advertise}:{port}{}", self.url_prefix.as_deref().unwrap_or("/").trim_end_matches('/'))
    }
}

impl From<&RepoSpec> for RepoInfo {
    fn from(spec: &RepoSpec) -> Self {
        Self {
            name: spec.name.clone(),
            service: spec.service.clone(),
            recipe: spec.recipe,
            url_prefix: spec.url_prefix.clone(),
        }
    }
}

/// The gateway an agent owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct GatewayInfo {
    /// The gateway's repo.
    pub repo: RepoName,
    /// The branch its checkout is on, if it has one yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    /// Whether it is configured to route each request by the sandbox's key that it carries.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub per_request: bool,
    /// Whether requests for routes may name a sandbox whose own gateway they mean.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_gateways: bool,
}

/// How an agent is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// Plain HTTP requests, because something in between breaks WebSockets.
    Http,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::WebSocket => "websocket",
            Self::Http => "http",
        })
    }
}

/// An agent as the control plane sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Agent {
    /// Its name.
    pub name: AgentName,
    /// Whether it is connected now.
    pub connected: bool,
    /// How, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// When it was last heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Time>"))]
    pub last_seen: Option<Timestamp>,
    /// What it told about itself when it last connected; shared, as agents are listed often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Arc<Inventory>>,
    /// How many deployments are in work on it.
    #[serde(default)]
    pub active_deployments: u32,
}
