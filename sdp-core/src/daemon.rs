//! What SDP's daemons do alike around their libraries: overrides on the command line, a log on
//! standard error, an end on SIGTERM or Ctrl-C, word of themselves to the supervisor.

pub mod supervisor;

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

/// How a daemon's log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A line of JSON: `timestamp`, `level`, `target`, and `fields` with `message`.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("write `text` or `json`".into()),
        }
    }
}

/// Keeps this process's memory, with the secrets in it, out of core dumps and from other processes of its user. What
/// it starts is not affected.
///
/// # Errors
/// When the system refuses.
pub fn keep_memory_private() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?)
}

/// Logs to standard error what `filter` lets through: `info`, or by part, such as
/// `info,sdp_agent::link=debug`.
///
/// # Errors
/// A sentence, when the filter is not valid or the process has a log already.
pub fn log_to_stderr(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter: Targets = filter.parse().map_err(|error| format!("`--log {filter}`: {error}"))?;
    let layer = fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
    let registry = tracing_subscriber::registry();
    let done = match format {
        LogFormat::Text => {
            let layer = layer.with_filter(filter_fn(shows_no_frames));
            registry.with(layer.and_then(filter)).try_init()
        }
        LogFormat::Json => {
            let layer = layer.json().with_filter(filter_fn(shows_no_frames));
            registry.with(layer.and_then(filter)).try_init()
        }
    };
    done.map_err(|error| error.to_string())
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

/// SIGQUIT, caught from the moment this is made: end, but finish first what is under way.
#[derive(Debug)]
pub struct FinishSignal(Signal);

impl FinishSignal {
    /// Starts to catch it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn catch() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::quit())?))
    }

    /// Waits for it.
    pub async fn wait(&mut self) {
        self.0.recv().await;
    }
}
