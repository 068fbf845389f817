//! What SDP's daemons do alike around their libraries: overrides on the command line, a log on
//! standard error, an end on SIGTERM or Ctrl-C.

use std::io::{self, IsTerminal};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    Layer,
    filter::{Targets, filter_fn},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Parses the argument of `--set KEY=VALUE`, for [`Layers::set`](crate::config::Layers::set).
///
/// # Errors
/// A sentence that says how to write it.
///
/// ```
/// assert_eq!(sdp_core::daemon::key_and_value("a.b=c=d"), Ok(("a.b".into(), "c=d".into())));
/// assert!(sdp_core::daemon::key_and_value("=x").is_err());
/// ```
pub fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().into(), value.into())),
        _ => Err("write it as KEY=VALUE, such as listen=127.0.0.1:80 or table.key=2h".into()),
    }
}

/// The environment as [`Layers::env`](crate::config::Layers::env) takes it. What is not UTF-8 cannot
/// be a key of ours and is left out.
pub fn environment() -> Vec<(String, String)> {
    let vars = std::env::vars_os();
    vars.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// Logs to standard error what `filter` lets through: `info`, or by part, such as
/// `info,sdp_agent::link=debug`.
///
/// # Errors
/// A sentence, when the filter is not valid or the process has a log already.
pub fn log_to_stderr(filter: &str) -> Result<(), String> {
    let filter: Targets = filter.parse().map_err(|error| format!("`--log {filter}`: {error}"))?;
    let layer = fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
    let layer = layer.with_filter(filter_fn(shows_no_frames));
    tracing_subscriber::registry().with(layer.and_then(filter)).try_init().map_err(|error| error.to_string())
}

/// Keeps out what the network libraries tell below `info`: whole frames and headers, with tokens
/// and passwords.
fn shows_no_frames(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO || !matches!(library, "tungstenite" | "tokio_tungstenite" | "hyper" | "hyper_util")
}

/// SIGTERM and SIGINT, caught from the moment this is made.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Starts to catch them.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first of them.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
