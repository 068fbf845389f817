//! A sandbox: a named, owned set of deployments and route overrides.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::names::{EnvironmentName, SandboxName, UserName};

/// A sandbox as the control plane knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Its name.
    pub name: SandboxName,
    /// The environment it lives in.
    pub environment: EnvironmentName,
    /// Who made it.
    pub owner: UserName,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
}
