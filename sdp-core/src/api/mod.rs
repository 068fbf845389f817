//! The HTTP API's bodies. Paths are in the server; answers that are whole aggregates are the types
//! of [`model`](crate::model), and every error is a [`Problem`](crate::Problem).

pub mod audit;
pub mod routing;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use self::routing::SandboxRouting;
pub use self::routing::{SetRoute, SetRoutes};
use crate::model::{
    deployment::{Deployment, DeploymentState},
    ids::{DeploymentId, HostPort},
    names::{AgentName, BranchName, EnvName, EnvironmentName, RepoName, SandboxName, ServiceName, UserName},
    sandbox::Sandbox,
    units,
};

/// `POST /api/login`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// The git user.
    pub username: UserName,
    /// The git password or access token.
    pub password: SecretString,
}

/// The answer to `POST /api/login`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoginResponse {
    /// Who is signed in.
    pub user: UserName,
    /// A bearer token for `Authorization: Bearer …`, valid as long as the session.
    pub token: String,
    /// When the session ends at the latest.
    pub expires_at: Timestamp,
}

/// The answer to `GET /api/me`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Me {
    /// Who is signed in.
    pub user: UserName,
}

/// `GET /api/repos`: a repo and the agents that can deploy it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repo {
    /// Its name.
    pub name: RepoName,
    /// The service it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The agents that declare it, by name.
    pub agents: Vec<AgentName>,
    /// Whether it is a gateway.
    #[serde(default)]
    pub gateway: bool,
}

/// `POST /api/sandboxes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateSandbox {
    /// Its name.
    pub name: SandboxName,
    /// The environment; `default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// How long it lives; 7 days when absent.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    pub expires_in: Option<Duration>,
}

/// The answer to `GET /api/sandboxes/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxDetail {
    /// The sandbox.
    #[serde(flatten)]
    pub sandbox: Sandbox,
    /// The newest deployment of each repo in it.
    pub deployments: Vec<Deployment>,
    /// How requests reach it.
    #[serde(flatten)]
    pub routing: SandboxRouting,
}

/// `POST /api/deployments` and `POST /api/sandboxes/{name}/deployments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateDeployment {
    /// The repo.
    pub repo: RepoName,
    /// The branch.
    pub branch: BranchName,
    /// The host port; none to have one kept or picked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<HostPort>,
    /// Environment variables, over those of the repo's configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<EnvName, String>,
    /// The agent; none to have one chosen among those that declare the repo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
}

/// One page of a list, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Pass as `before` for the next page; none at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `GET /api/deployments?…`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentFilter {
    /// Only those of this sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxName>,
    /// Only those of this repo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<RepoName>,
    /// Only those this user asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// Only those in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<DeploymentState>,
    /// Only those older than this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<DeploymentId>,
    /// At most this many: 1 to 500, default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `GET /api/repos/{repo}/branches?…`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BranchFilter {
    /// Only names that contain this, whatever their case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// At most this many: 1 to 5000, default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// The last frame of `/ws/deployments/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum StreamEnd {
    /// The pipeline has finished: nothing more will come.
    End {
        /// The state it finished in.
        state: DeploymentState,
        /// The last event's sequence number.
        last: u64,
    },
}
