//! Commands that are run where a deployment runs.

use serde::{Deserialize, Serialize};

use crate::{
    model::{command::ExecCommand, names::AgentName},
    problem::{ErrorCode, Problem},
};

/// `POST /api/deployments/{id}/exec`. Answered with lines of JSON, each with its end: a [`LogLine`](crate::LogLine) for
/// each line that the command prints, as it does, and last an [`ExecEnd`]. An empty line only tells that it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RunCommand {
    /// The program and its arguments. The audit keeps them: no secret belongs here.
    pub command: ExecCommand,
}

/// The last line of the answer. An answer without it was broken off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "end", rename_all = "kebab-case")]
pub enum ExecEnd {
    /// The command has exited.
    Exited {
        /// Its exit code; 128 and the signal's number when it was killed.
        code: i64,
    },
    /// It is not known how the command goes on.
    Broken {
        /// Why.
        problem: Box<Problem>,
    },
}

/// That an agent's operator has not allowed it.
pub fn not_allowed_by(agent: &AgentName) -> Problem {
    let sentence = format!(
        "agent {agent} lets nobody run commands in what it has deployed; its operator allows it with `exec = true` in [deployer] of sdp-agent.toml"
    );
    Problem::new(ErrorCode::NotAllowed, sentence).holder(agent.as_str())
}
