//! The HTTP API's bodies. Paths are in the server; answers that are whole aggregates are the types
//! of [`model`](crate::model), and every error is a [`Problem`].

pub mod audit;
pub mod declared;
pub mod exec;
pub mod health;
pub mod live;
pub mod logs;
pub mod people;
pub mod routing;
pub mod vitals;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use self::routing::SandboxRouting;
pub use self::routing::{SetRoute, SetRoutes};
use crate::{
    model::{
        deployment::{Deployment, DeploymentState},
        ids::{DeploymentId, HostPort, PortRange},
        names::{
            AgentName, BranchName, EnvName, EnvironmentName, RepoName, SandboxName, ServiceName, TemplateName, UserName,
        },
        route::RouteTarget,
        sandbox::{Sandbox, SandboxState},
        shape::{Services, Shape},
        units,
        user::Role,
    },
    problem::Problem,
    protocol::{CredentialsFrame, TokenFrame},
};

/// `POST /api/login`.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// The git user.
    pub username: UserName,
    /// The git password or access token.
    #[cfg_attr(feature = "openapi", schemars(with = "String"))]
    pub password: SecretString,
}

/// The answer to `POST /api/login`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct LoginResponse {
    /// Who is signed in.
    pub user: UserName,
    /// What they may do.
    pub role: Role,
    /// A bearer token for `Authorization: Bearer …`, valid as long as the session.
    #[cfg_attr(feature = "openapi", schemars(with = "String"))]
    pub token: TokenFrame,
    /// When the session ends at the latest.
    #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
    pub expires_at: Timestamp,
}

/// `GET /api/repos`: a repo and the agents that can deploy it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
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

/// `POST /api/environments`, and `PUT /api/environments/{name}`, which sets everything anew. The
/// fields are those of [`Environment`](crate::Environment).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SaveEnvironment {
    /// Its name; a `PUT` has it in its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<EnvironmentName>,
    /// The agent whose gateway it uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<AgentName>,
    /// The agents it may use; all when empty.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub agents: BTreeSet<AgentName>,
    /// Environment variables of everything deployed into it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<EnvName, String>,
    /// The host ports it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRange>,
    /// How long its sandboxes live.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Span>"))]
    pub sandbox_lifetime: Option<Duration>,
    /// After how long without use its sandboxes go to sleep.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Span>"))]
    pub idle_after: Option<Duration>,
}

/// `POST /api/templates`, and `PUT /api/templates/{name}`, which sets everything anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SaveTemplate {
    /// Its name; a `PUT` has it in its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<TemplateName>,
    /// Takes the shape of this sandbox, without its host ports, in place of `services` and `routes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_sandbox: Option<SandboxName>,
    /// The services.
    #[serde(default, skip_serializing_if = "Services::is_empty")]
    pub services: Services,
    /// The routes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<ServiceName, RouteTarget>,
    /// How long sandboxes made from it live.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Span>"))]
    pub expires_in: Option<Duration>,
}

/// `POST /api/sandboxes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateSandbox {
    /// Its name.
    pub name: SandboxName,
    /// The environment; that of the sandbox it is cloned from, or `default`, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// How long it lives; as its template, its environment or the server says when absent.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Span>"))]
    pub expires_in: Option<Duration>,
    /// The template whose shape it begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateName>,
    /// The sandbox whose shape it begins with, without its host ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone_of: Option<SandboxName>,
    /// Other branches than those of the template or the sandbox it is cloned from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub branches: BTreeMap<RepoName, BranchName>,
}

impl CreateSandbox {
    /// A plain one, with every default.
    pub fn new(name: SandboxName) -> Self {
        Self { name, environment: None, expires_in: None, template: None, clone_of: None, branches: BTreeMap::new() }
    }
}

/// `PATCH /api/sandboxes/{name}`: when it expires, in one of two ways, and whom it is shared with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeSandbox {
    /// So long from now.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Span>"))]
    pub expires_in: Option<Duration>,
    /// At this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Time>"))]
    pub expires_at: Option<Timestamp>,
    /// Who may do with it what its owner may, in place of those who may now. Only the owner and admins say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_with: Option<BTreeSet<UserName>>,
}

/// The answer to `POST /api/sandboxes/{name}/deploy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct DeployedSandbox {
    /// The deployments that have begun, by repo.
    pub deployments: Vec<Deployment>,
    /// The services that could not be deployed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedService>,
}

/// A service that could not be deployed, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RefusedService {
    /// Its repo.
    pub repo: RepoName,
    /// Why.
    pub problem: Problem,
}

/// `GET /api/sandboxes`: a sandbox and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ListedSandbox {
    /// The sandbox.
    #[serde(flatten)]
    pub sandbox: Sandbox,
    /// The branch of each repo in it.
    #[serde(default)]
    pub branches: BTreeMap<RepoName, BranchName>,
}

/// The answer to `GET /api/sandboxes/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SandboxDetail {
    /// The sandbox.
    #[serde(flatten)]
    pub sandbox: Sandbox,
    /// Whether it expires within a day.
    #[serde(default)]
    pub expires_soon: bool,
    /// What it is made of: the services as last deployed, and the routes wanted.
    #[serde(flatten)]
    pub shape: Shape,
    /// What could not be done for it yet and why: an agent that is away while it is deleted or put to sleep, a
    /// wanted route that another sandbox holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The newest deployment of each repo in it.
    pub deployments: Vec<Deployment>,
    /// How requests reach it.
    #[serde(flatten)]
    pub routing: SandboxRouting,
}

/// `POST /api/deployments` and `POST /api/sandboxes/{name}/deployments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
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
    /// Whether an instance is replaced also when it is just as it would be made now: the same commit, variables,
    /// settings and image. Otherwise such a deployment leaves it as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Git credentials for this deployment alone; the session's, or those that the agent's operator configured, when
    /// absent. Never kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsFrame>,
}

impl CreateDeployment {
    /// With every default.
    pub fn new(repo: RepoName, branch: BranchName) -> Self {
        Self { repo, branch, host_port: None, env: BTreeMap::new(), agent: None, force: false, credentials: None }
    }
}

/// The body, if there is one, of the calls that deploy what is known already: `POST /api/sandboxes/{name}/deploy` and
/// a deployment's `retry` and `rollback`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DeployAgain {
    /// Git credentials for this alone, as in [`CreateDeployment`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsFrame>,
}

/// One page of a list: newest first, or by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Pass as `before`, or in a list by name as `after`, for the next page; none at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `GET /api/deployments?…`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
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

/// `GET /api/sandboxes?…`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SandboxFilter {
    /// Only those of this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<UserName>,
    /// Only those in this environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// Only those in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<SandboxState>,
    /// Only those whose names come after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<SandboxName>,
    /// At most this many: 1 to 500, default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `GET /api/repos/{repo}/branches?…`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
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
