#![doc = include_str!("../README.md")]

pub mod api;
pub mod claims;
#[cfg(feature = "client")]
pub mod client;
pub mod clock;
pub mod config;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod data_dir;
pub mod deploy;
pub mod deployer;
pub mod events;
pub mod gateways;
pub mod medium;
pub mod model;
pub mod problem;
pub mod protocol;
pub mod repos;
pub mod routes;
#[cfg(feature = "openapi")]
pub mod schema;

pub use clock::{Clock, SystemClock};
pub use deployer::{
    Artifact, DeployError, DeployJob, Deployer, ExecEvent, ExecEvents, LogLine, LogLines, LogOptions, MAX_LINE_BYTES,
    Probe, Replacement,
};
pub use events::{EventSink, SinkError};
pub use gateways::{Gateways, OwnGateways};
pub use model::{
    agent::{Agent, GatewayInfo, Inventory, RepoInfo, Transport},
    changes::{Change, Moved, PresentSandbox, SandboxSpec, changes},
    command::{ExecCommand, InvalidCommand},
    credentials::Credentials,
    deployment::{DeployRequest, Deployment, DeploymentState, Failure, Stage, StageRecord, StageStatus},
    environment::Environment,
    event::{Event, EventKind, LogStream},
    explain::{Carrier, Explanation, RouteQuestion, ServedBy, TargetAnswer},
    ids::{DeploymentId, HostPort, InstanceKey, PortRange, TokenId},
    instance::{Instance, InstanceState, InstanceStats},
    machine::{Disk, Examination, Finding, Verdict},
    manifest::{Contradiction, InvalidManifest, Manifest},
    names::{
        AgentName, AuditSubject, BranchName, ClaimReason, CommitId, EnvName, EnvironmentName, IntegrationName,
        InvalidName, RepoName, SandboxKey, SandboxName, ServiceName, TemplateName, TokenName, UserName,
    },
    repo::{Branch, Checkout, ComposerMode, HealthCheck, HealthProbe, Limits, NetworkMode, RecipeKind, RepoSpec},
    route::{
        Override, OverrideKind, RequestRoutes, Route, RouteChanges, RouteDefaults, RouteOrigin, RouteTable,
        RouteTarget, ServiceUrl, TakenRoute,
    },
    sandbox::{Sandbox, SandboxState},
    shape::{ServiceSpec, Services, Shape},
    template::Template,
    user::{ApiToken, Role, Scope, User},
};
pub use problem::{ErrorCode, Problem};
pub use repos::{RepoError, RepoSource};
pub use routes::{RouteError, RouteStore};

#[cfg(feature = "testing")]
pub mod testing;
