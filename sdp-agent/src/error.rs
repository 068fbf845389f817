//! What keeps an agent from starting.

use sdp_core::{config::ConfigError, data_dir::DataDirError};

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
    #[error(transparent)]
    DataDir(#[from] DataDirError),
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
