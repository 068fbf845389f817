//! What running a command has in common, wherever it runs.

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use sdp_core::{DeployError, ExecEvent, ExecEvents};

/// What a shell says with its exit code of a program that cannot be run.
pub(crate) const CANNOT_RUN: i64 = 126;

/// And of one that is not there.
pub(crate) const NO_PROGRAM: i64 = 127;

/// A command under way, which ends when this is dropped before it has exited.
#[async_trait]
pub(crate) trait Command: Send + 'static {
    /// What it does next. After its exit or an error it is not asked again.
    async fn next(&mut self) -> Result<ExecEvent, DeployError>;
}

/// What a command does, to its end.
pub(crate) fn events(command: impl Command) -> ExecEvents {
    let events = stream::unfold(Some(command), async |command| {
        let mut command = command?;
        let event = command.next().await;
        let goes_on = matches!(event, Ok(ExecEvent::Line(_)));
        Some((event, goes_on.then_some(command)))
    });
    events.boxed()
}
