//! What keeps an agent from starting.

use std::path::PathBuf;

use sdp_core::config::ConfigError;

use crate::outbox::OutboxError;

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Its configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its outbox cannot be used.
    #[error("the outbox cannot be used")]
    Outbox(#[from] OutboxError),
    /// Its data directory cannot be used.
    #[error("failed to {action} {}; correct `data_dir` or its permissions", .path.display())]
    DataDir {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What went wrong below.
        #[source]
        source: std::io::Error,
    },
    /// Another agent has the data directory.
    #[error("another agent runs with {}; give each agent its own `data_dir`", .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A part that the configuration asks for cannot be had.
    #[error("failed to set up the {part}")]
    Part {
        /// Which.
        part: &'static str,
        /// What went wrong below.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
