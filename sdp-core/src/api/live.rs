//! `/ws/events`: what changes on the platform, for dashboards and scripts that react to it.
//!
//! A text message holds one or more lines of JSON, joined by `\n`. The first message is a [`LiveNotice`] that says where
//! the stream begins; every later line is a [`LiveEvent`]. Who was away asks for `?from=` the number after the last one
//! seen. Events say that something changed and to what; the API has the whole of it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{
    deployment::DeploymentState,
    ids::DeploymentId,
    names::{
        AgentName, BranchName, CommitId, EnvironmentName, RepoName, SandboxName, ServiceName, TemplateName, UserName,
    },
    sandbox::SandboxState,
};

/// `/ws/events?…`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LiveQuery {
    /// The first event wanted; those from now on when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// What the stream says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum LiveNotice {
    /// It begins with this event, which may be still to come.
    Position {
        /// Its number.
        next: u64,
    },
    /// Events that were asked for are kept no more, or, after a restored backup, not known: look at everything anew.
    Gap {
        /// The first event asked for.
        from: u64,
        /// The oldest that there is, with which the stream goes on; it may be still to come.
        oldest: u64,
    },
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct LiveEvent {
    /// Its number: later events have larger ones.
    pub seq: u64,
    /// When.
    #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
    pub at: Timestamp,
    /// What changed.
    #[serde(flatten)]
    pub change: Change,
}

/// What changed. New kinds may be added: a program passes over those that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Change {
    /// A deployment was begun, came to another state, or got its commit or its URL.
    Deployment {
        /// Its id.
        id: DeploymentId,
        /// The sandbox; none for a quick deploy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sandbox: Option<SandboxName>,
        /// The repo.
        repo: RepoName,
        /// The branch.
        branch: BranchName,
        /// The commit, once it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<CommitId>,
        /// The agent.
        agent: AgentName,
        /// Who asked for it.
        user: UserName,
        /// How it stands.
        state: DeploymentState,
        /// Where it answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
    },
    /// A sandbox was made, is otherwise than it was (its state, end, services, wanted routes, whom it is shared with,
    /// or what stands in the way), or is gone.
    Sandbox {
        /// Its name.
        name: SandboxName,
        /// What happened.
        change: Happened,
        /// How it stands.
        state: SandboxState,
        /// Whose it is.
        owner: UserName,
    },
    /// Routes of a gateway were changed.
    Route {
        /// The agent whose gateway it is.
        gateway: AgentName,
        /// The sandbox, where it is a sandbox's own gateway.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sandbox: Option<SandboxName>,
        /// The services set or given back for every request; none named where expired claims ended.
        services: BTreeSet<ServiceName>,
        /// The sandboxes whose routes, for every request or their own, were changed.
        sandboxes: BTreeSet<SandboxName>,
    },
    /// An agent came, went, was enrolled or revoked, or got another token.
    Agent {
        /// Its name.
        name: AgentName,
        /// What happened.
        change: AgentHappened,
    },
    /// An environment was made, set anew or deleted.
    Environment {
        /// Its name.
        name: EnvironmentName,
        /// What happened.
        change: Happened,
    },
    /// A template was made, set anew or deleted.
    Template {
        /// Its name.
        name: TemplateName,
        /// What happened.
        change: Happened,
    },
    /// The control plane was started: every agent is away until it is told that it came.
    Started {
        /// Its version.
        version: String,
    },
}

/// What happened to something that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Happened {
    /// It was made.
    Created,
    /// It is otherwise than before.
    Changed,
    /// It is gone.
    Deleted,
}

/// What happened to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum AgentHappened {
    /// It was enrolled.
    Enrolled,
    /// It got another token.
    Rotated,
    /// Its token was revoked.
    Revoked,
    /// It connected.
    Connected,
    /// Its connection ended.
    Disconnected,
}
