//! A container's output, in lines.

use bollard::{container::LogOutput, errors::Error};
use futures_util::{Stream, StreamExt};
use sdp_core::{DeployError, LogLine, LogStream};

use super::engine;
use crate::lines;

/// What the engine is asked to do for a log.
pub(crate) const FOLLOW: &str = "follow the log";

/// The lines of what the engine sends when asked to do this.
pub(crate) fn lines(
    action: &'static str,
    chunks: impl Stream<Item = Result<LogOutput, Error>> + Send + 'static,
) -> impl Stream<Item = Result<LogLine, DeployError>> + Send + 'static {
    lines::lines(chunks.map(move |chunk| {
        let chunk = chunk.map_err(engine::failed(action))?;
        let stream = match chunk {
            LogOutput::StdErr { .. } => LogStream::Stderr,
            _ => LogStream::Stdout,
        };
        Ok((stream, chunk.into_bytes()))
    }))
}
