//! What can go wrong with an event log.

use std::{io, path::PathBuf};

use sdp_core::{DeploymentId, ErrorCode, Problem, problem};

/// Why an event log could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventLogError {
    /// A batch begins later than the log ends.
    #[error("events of deployment {deployment} are missing: send again from number {expected}")]
    Gap {
        /// Whose log.
        deployment: DeploymentId,
        /// The sequence number that the log needs next.
        expected: u64,
    },
    /// The operating system refused.
    #[error("failed to {action} {}: check the disk's space and the directory's permissions", path.display())]
    Io {
        /// What was tried, as a verb: `append to`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A log holds something else than events where its index says there is one.
    #[error("the event log {} is damaged near byte {at}: restore it from a backup or move it away", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The byte offset.
        at: u64,
    },
    /// The server is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl EventLogError {
    /// The machine-readable cause.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Gap { .. } => ErrorCode::Conflict,
            Self::Io { .. } | Self::ShuttingDown => ErrorCode::EventsUnavailable,
            Self::Damaged { .. } => ErrorCode::Internal,
        }
    }
}

impl From<&EventLogError> for Problem {
    fn from(error: &EventLogError) -> Self {
        Self::new(error.code(), problem::chain(error))
    }
}
