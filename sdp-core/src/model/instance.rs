//! What runs: one instance of a repo on an agent.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    ids::{DeploymentId, HostPort, InstanceKey},
    names::{BranchName, CommitId},
};

/// One running (or stopped) instance, as the deployer's own records say: labels for containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Which sandbox and repo.
    pub key: InstanceKey,
    /// The deployer's name for it: a container id, a process id.
    pub id: String,
    /// Its container name, or one that begins with it.
    pub name: String,
    /// The deployment that made it.
    pub deployment: DeploymentId,
    /// The branch it runs.
    pub branch: BranchName,
    /// The exact commit it runs.
    pub commit: CommitId,
    /// The host port it answers on.
    pub host_port: HostPort,
    /// The host that it answers on, where that is not the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether it runs.
    pub state: InstanceState,
    /// When its program was last started, if ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// How often it was restarted on its own after exiting.
    #[serde(default)]
    pub restarts: u32,
    /// Set while a newer deployment has taken its name and may still fail, or requests may still be
    /// sent here: kept, to be put back or removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parked: bool,
}

/// Whether an instance runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum InstanceState {
    /// Its program runs.
    Running,
    /// It exits and is started again by its restart policy.
    Restarting {
        /// The last exit code.
        exit_code: i64,
    },
    /// It was stopped or has exited.
    Exited {
        /// The exit code; 128 + n after signal n.
        exit_code: i64,
    },
    /// Created and never started.
    Created,
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Restarting { exit_code } => write!(f, "restarting after it exited with {exit_code}"),
            Self::Exited { exit_code } => write!(f, "exited with {exit_code}"),
            Self::Created => f.write_str("created and never started"),
        }
    }
}

/// CPU and memory in use now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct InstanceStats {
    /// CPUs in use: 1.0 is one whole CPU.
    pub cpus: f64,
    /// Resident memory in bytes, without page cache.
    pub memory_bytes: u64,
    /// The memory limit in bytes, if one is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
}
