//! How what runs does now.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    model::{
        ids::DeploymentId,
        instance::{Instance, InstanceStats},
        names::RepoName,
    },
    problem::Problem,
};

/// `GET /api/deployments/{id}/stats`: what an instance uses, and how it has done since it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RunningStats {
    /// The deployment that made it.
    pub deployment: DeploymentId,
    /// When its program was last started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Time>"))]
    pub started_at: Option<Timestamp>,
    /// How often it was restarted on its own after exiting.
    pub restarts: u32,
    /// CPU and memory.
    #[serde(flatten)]
    pub stats: InstanceStats,
}

impl RunningStats {
    /// Of an instance that uses this.
    pub fn new(instance: &Instance, stats: InstanceStats) -> Self {
        let Instance { deployment, started_at, restarts, .. } = *instance;
        Self { deployment, started_at, restarts, stats }
    }
}

/// `GET /api/sandboxes/{name}/stats`: one service that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ServiceStats {
    /// The repo.
    pub repo: RepoName,
    /// What it uses; none where its agent did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningStats>,
    /// Why its agent did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}
