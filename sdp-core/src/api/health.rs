//! `GET /healthz` and `GET /readyz`.

use serde::{Deserialize, Serialize};

/// How the control plane is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Health {
    /// `ok`; or `ready`, when it can do its work.
    pub status: String,
    /// Its version.
    pub version: String,
    /// How many agents are connected, where it was asked whether it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents_connected: Option<usize>,
}
