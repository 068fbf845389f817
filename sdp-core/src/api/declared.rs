//! Sandboxes by their document: `PUT /api/sandboxes/{name}` and `POST /api/sandboxes/{name}/diff`.

use serde::{Deserialize, Serialize};

use super::{RefusedService, SandboxDetail};
use crate::model::{changes::Change, deployment::Deployment};

/// The answer to `POST /api/sandboxes/{name}/diff`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SandboxChanges {
    /// What would change; nothing when the sandbox is as the document says.
    pub changes: Vec<Change>,
}

/// The answer to `PUT /api/sandboxes/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct AppliedSandbox {
    /// What was changed or begun; nothing when the sandbox was as the document says.
    pub changes: Vec<Change>,
    /// The deployments that have begun, by repo.
    pub deployments: Vec<Deployment>,
    /// The services that could not be deployed. Applying the document again tries them again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedService>,
    /// The sandbox now. Routes are set when all that was begun has ended.
    pub sandbox: SandboxDetail,
}
