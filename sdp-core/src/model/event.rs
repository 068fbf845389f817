//! Events: what a deployment tells while it happens.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    deployment::{DeploymentState, Failure, Stage, StageStatus},
    ids::HostPort,
    names::{BranchName, CommitId},
    route::Route,
};

/// One event of one deployment: one line of its log.
///
/// ```
/// use sdp_core::{Event, EventKind, LogStream};
/// let line = r#"{"seq":7,"at":"2026-01-02T03:04:05Z","type":"log","stage":"build","stream":"stdout","line":"ok"}"#;
/// let event: Event = serde_json::from_str(line)?;
/// assert!(matches!(event.kind, EventKind::Log { stream: LogStream::Stdout, .. }));
/// assert_eq!(serde_json::to_string(&event)?, line);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place: 1 for a deployment's first event, one more for each after.
    pub seq: u64,
    /// When it happened, by the clock of the machine where it did.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventKind {
    /// One line of output or of SDP's own account.
    Log {
        /// The stage it belongs to.
        stage: Stage,
        /// Where it comes from.
        stream: LogStream,
        /// The text, without its line end. Bytes that were not UTF-8 are U+FFFD.
        line: String,
    },
    /// A stage began or ended.
    Stage {
        /// Which.
        stage: Stage,
        /// How it stands now.
        status: StageStatus,
    },
    /// The deployment's state changed.
    State {
        /// The new state.
        state: DeploymentState,
        /// Why, when it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// The exact commit is known.
    Source {
        /// The branch.
        branch: BranchName,
        /// The commit.
        commit: CommitId,
    },
    /// The instance is started and published.
    Endpoint {
        /// The host port.
        host_port: HostPort,
        /// The URL it answers on.
        url: String,
        /// The container's name, or the like.
        instance: String,
    },
    /// A route changed.
    Route {
        /// As it is now.
        route: Route,
    },
    /// An event of a newer version, kept in the log and not understood here.
    #[serde(other)]
    Unknown,
}

/// Where a log line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LogStream {
    /// A command's standard output.
    Stdout,
    /// A command's standard error.
    Stderr,
    /// SDP's own account of what it does.
    Sdp,
}

impl LogStream {
    /// Every stream.
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Sdp];

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Sdp => "sdp",
        }
    }
}

impl EventKind {
    /// A line of SDP's own account.
    pub fn note(stage: Stage, line: impl Into<String>) -> Self {
        Self::Log { stage, stream: LogStream::Sdp, line: line.into() }
    }

    /// A change of state.
    pub fn state(state: DeploymentState) -> Self {
        Self::State { state, failure: None }
    }
}

/// One line for people: `2026-01-02T03:04:05.000Z build  | ok`.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"), self.kind)
    }
}

/// The stage, then `|` and a line of output, `*` and a line of SDP's own account, or `=` and what is now so.
impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log { stage, stream: LogStream::Sdp, line } => write!(f, "{stage:<6} * {line}"),
            Self::Log { stage, line, .. } => write!(f, "{stage:<6} | {line}"),
            Self::Stage { stage, status } => write!(f, "{stage:<6} = {status}"),
            Self::State { state, failure: None } => write!(f, "       = {state}"),
            Self::State { state, failure: Some(failure) } => write!(f, "       = {state}: {}", failure.reason),
            Self::Source { branch, commit } => write!(f, "source = {branch} at {commit}"),
            Self::Endpoint { url, instance, .. } => write!(f, "start  = {instance} answers on {url}"),
            Self::Route { route } => write!(f, "routes = {} -> {}", route.service, route.value),
            Self::Unknown => write!(f, "       ? an event of a newer version"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_a_newer_version_is_understood_as_unknown() {
        let line = r#"{"seq":1,"at":"2026-01-02T03:04:05Z","type":"weather","sky":"blue"}"#;
        assert_eq!(serde_json::from_str::<Event>(line).unwrap().kind, EventKind::Unknown);
    }

    #[test]
    fn a_log_line_never_breaks_its_own_line() {
        let kind = EventKind::note(Stage::Build, "a\r\nb\u{2028}\0\"");
        let event = Event { seq: 1, at: Timestamp::UNIX_EPOCH, kind };
        let text = serde_json::to_string(&event).unwrap();
        assert!(!text.contains('\n'));
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
