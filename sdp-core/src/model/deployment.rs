//! A deployment: one attempt to put one branch of one repo into a sandbox, or outside any.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    ids::{DeploymentId, HostPort, InstanceKey, PortRange},
    names::{AgentName, BranchName, CommitId, EnvName, UserName},
};
use crate::problem::ErrorCode;

/// A step of a deployment, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Reset, fetch, check out, fast-forward.
    Source,
    /// Build on the host.
    Build,
    /// Replace the running instance.
    Start,
    /// Wait until it is healthy.
    Health,
    /// For the gateway's own repo: snapshot the defaults, apply the overrides, reload.
    Routes,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 5] = [Self::Source, Self::Build, Self::Start, Self::Health, Self::Routes];

    /// The stage after this one.
    pub fn next(self) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| *stage > self)
    }

    /// Its name on the wire and to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Build => "build",
            Self::Start => "start",
            Self::Health => "health",
            Self::Routes => "routes",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a deployment is. The legal moves are in [`DeploymentState::can_become`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DeploymentState {
    /// Accepted, and waiting for its turn or its agent.
    Queued,
    /// In stage `source`.
    Source,
    /// In stage `build`.
    Build,
    /// In stage `start`.
    Start,
    /// In stage `health`.
    Health,
    /// In stage `routes`.
    Routes,
    /// Healthy and serving.
    Running,
    /// Ended by a failure; what served before serves again.
    Failed,
    /// Ended by a person; what served before serves again.
    Cancelled,
    /// It ran, and was stopped.
    Stopped,
    /// It ran, and a newer deployment took its place.
    Superseded,
}

impl DeploymentState {
    /// Every state.
    pub const ALL: [Self; 11] = [
        Self::Queued,
        Self::Source,
        Self::Build,
        Self::Start,
        Self::Health,
        Self::Routes,
        Self::Running,
        Self::Failed,
        Self::Cancelled,
        Self::Stopped,
        Self::Superseded,
    ];

    /// Its name on the wire, in the database and to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Source => "source",
            Self::Build => "build",
            Self::Start => "start",
            Self::Health => "health",
            Self::Routes => "routes",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Stopped => "stopped",
            Self::Superseded => "superseded",
        }
    }

    /// The stage this state is in, if any.
    pub fn stage(self) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| Self::from(*stage) == self)
    }

    /// Whether the pipeline still works on it.
    pub fn is_active(self) -> bool {
        self == Self::Queued || self.stage().is_some()
    }

    /// Whether nothing can follow.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Failed | Self::Cancelled | Self::Superseded)
    }

    /// Whether `next` may follow this state.
    ///
    /// Stages follow one another in order, and `running` follows the last; every state before
    /// `running` can fail or be cancelled; what runs can be stopped, superseded, or fail when its
    /// program is found dead; what was stopped can run again or be superseded.
    pub fn can_become(self, next: Self) -> bool {
        use DeploymentState as S;
        match (self, next) {
            (_, S::Failed | S::Cancelled) if self.is_active() => true,
            (S::Queued, S::Source) => true,
            (S::Queued, S::Superseded) => true,
            (S::Running, S::Stopped | S::Superseded | S::Failed) => true,
            (S::Stopped, S::Running | S::Superseded) => true,
            _ => match (self.stage(), next.stage()) {
                (Some(stage), Some(following)) => stage.next() == Some(following),
                (Some(stage), None) => stage.next().is_none() && next == S::Running,
                _ => false,
            },
        }
    }
}

impl From<Stage> for DeploymentState {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Source => Self::Source,
            Stage::Build => Self::Build,
            Stage::Start => Self::Start,
            Stage::Health => Self::Health,
            Stage::Routes => Self::Routes,
        }
    }
}

impl std::fmt::Display for DeploymentState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is not a deployment state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a deployment state")]
pub struct UnknownState(pub String);

impl std::str::FromStr for DeploymentState {
    type Err = UnknownState;
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| UnknownState(text.into()))
    }
}

/// Why a deployment failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Failure {
    /// The stage it failed in; none when it never left the queue, or failed after it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// The machine-readable cause.
    pub code: ErrorCode,
    /// A sentence that names the cause and, where there is one, the cure.
    pub reason: String,
    /// Whether the instance that served before was put back; none when there was nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_restored: Option<bool>,
}

/// What is asked of an agent: everything that a deployment needs but the credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployRequest {
    /// The deployment's id, made by who asks. Asking again with the same id changes nothing.
    pub deployment: DeploymentId,
    /// Sandbox and repo.
    pub key: InstanceKey,
    /// The branch.
    pub branch: BranchName,
    /// The exact commit, one that was on the branch once; the branch's tip when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The host port to publish, which a person chose; none lets the agent keep the previous one or pick a free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<HostPort>,
    /// Where no port was chosen: the one that who asks has picked and reserved. The agent takes it if it can, and picks
    /// another if a stranger has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picked_port: Option<HostPort>,
    /// Where the agent picks another from; its own range when none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_range: Option<PortRange>,
    /// Whether what this deployment replaces, where both can serve, does so until a `retire` request: who asks for it
    /// moves routes, and says when nobody is sent there any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retire_on_request: bool,
    /// Whether an instance that is as it would be made now is replaced all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Environment variables, over those of the repo's configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<EnvName, String>,
}

impl DeployRequest {
    /// A new deployment of the tip of a branch, with everything else as it comes.
    pub fn new(key: InstanceKey, branch: BranchName) -> Self {
        Self {
            deployment: DeploymentId::new(),
            key,
            branch,
            commit: None,
            host_port: None,
            picked_port: None,
            port_range: None,
            retire_on_request: false,
            force: false,
            env: BTreeMap::new(),
        }
    }
}

/// A deployment as the control plane knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// Sandbox and repo.
    #[serde(flatten)]
    pub key: InstanceKey,
    /// The branch asked for.
    pub branch: BranchName,
    /// The exact commit, once stage `source` is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The agent it runs on.
    pub agent: AgentName,
    /// Where it is.
    pub state: DeploymentState,
    /// Why it failed, when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The host port asked for or, once known, used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<HostPort>,
    /// The URL it answers on, once it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The environment variables it was asked for with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<EnvName, String>,
    /// Who asked.
    pub user: UserName,
    /// When it was asked for.
    #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
    pub created_at: Timestamp,
    /// When it last left the active states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Time>"))]
    pub finished_at: Option<Timestamp>,
    /// The earlier deployment whose commit, port and variables it goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<DeploymentId>,
    /// The stages entered so far.
    #[serde(default)]
    pub stages: Vec<StageRecord>,
}

/// One stage of one deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct StageRecord {
    /// Which.
    pub stage: Stage,
    /// How it stands.
    pub status: StageStatus,
    /// When it began.
    #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
    pub started_at: Timestamp,
    /// When it ended, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Time>"))]
    pub ended_at: Option<Timestamp>,
}

/// How a stage stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum StageStatus {
    /// It runs.
    Started,
    /// It did what it is for.
    Done,
    /// It had nothing to do.
    Skipped,
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl StageStatus {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for StageStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_reads_back_from_its_name() {
        for state in DeploymentState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
    }

    #[test]
    fn stages_run_in_order_and_running_comes_after_the_last() {
        use DeploymentState as S;
        let path = [S::Queued, S::Source, S::Build, S::Start, S::Health, S::Routes, S::Running];
        for (at, from) in path.iter().enumerate() {
            for (to, next) in path.iter().enumerate() {
                assert_eq!(from.can_become(*next), to == at + 1, "{from} -> {next}");
            }
        }
    }

    #[test]
    fn final_states_lead_nowhere_and_every_active_one_can_end() {
        for from in DeploymentState::ALL {
            let ways: Vec<_> = DeploymentState::ALL.into_iter().filter(|to| from.can_become(*to)).collect();
            assert_eq!(ways.is_empty(), from.is_final(), "{from}: {ways:?}");
            if from.is_active() {
                assert!(ways.contains(&DeploymentState::Failed) && ways.contains(&DeploymentState::Cancelled));
            }
        }
    }
}
