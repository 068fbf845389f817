//! A deployment's log, and what its program prints: as a document, and followed.

use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// How a log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// A line of text for each event.
    #[default]
    Text,
    /// The events as they are kept, a line of JSON each.
    Ndjson,
}

/// `GET /api/deployments/{id}/log?…`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// From this line on; from the first when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Only the last lines, so many; goes before `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<usize>,
    /// How it is written.
    #[serde(default)]
    pub format: LogFormat,
}

/// `/ws/deployments/{id}?…`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FollowQuery {
    /// From this line on; from the first when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// `GET /api/deployments/{id}/output?…`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OutputQuery {
    /// Only the last lines, so many; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// How it is written: as it was printed, or a [`LogLine`](crate::LogLine) in JSON for each.
    #[serde(default)]
    pub format: LogFormat,
}

/// `/ws/deployments/{id}/output?…`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OutputTail {
    /// Only the last lines, so many, and what comes then; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
}

/// The last frame of `/ws/deployments/{id}/output`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum OutputEnd {
    /// The program has ended, or another has taken its place.
    End,
    /// It cannot be followed any further.
    Broken {
        /// Why.
        problem: Box<Problem>,
    },
}
