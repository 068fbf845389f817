//! A sandbox: a named, owned set of deployments and route overrides.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::names::{EnvironmentName, SandboxName, UserName};

/// A sandbox as the control plane knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Sandbox {
    /// Its name.
    pub name: SandboxName,
    /// The environment it lives in.
    pub environment: EnvironmentName,
    /// Who made it.
    pub owner: UserName,
    /// Who besides its owner may do with it what the owner may.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub shared_with: BTreeSet<UserName>,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
    pub created_at: Timestamp,
    /// When it expires.
    #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
    pub expires_at: Timestamp,
    /// Whether it is used, sleeps or goes.
    #[serde(default)]
    pub state: SandboxState,
}

/// What becomes of a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SandboxState {
    /// It is there to be used.
    #[default]
    Active,
    /// What ran in it is stopped and kept; a deployment or a wake starts it again.
    Asleep,
    /// It is being torn down: nothing can be deployed into it, and it goes when nothing of it is left.
    Deleting,
}

impl SandboxState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Active, Self::Asleep, Self::Deleting];

    /// Its name on the wire, in the database and to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Asleep => "asleep",
            Self::Deleting => "deleting",
        }
    }
}

impl std::fmt::Display for SandboxState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is not a sandbox's state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a sandbox's state")]
pub struct UnknownSandboxState(pub String);

impl std::str::FromStr for SandboxState {
    type Err = UnknownSandboxState;
    fn from_str(text: &str) -> Result<Self, UnknownSandboxState> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| UnknownSandboxState(text.into()))
    }
}
