//! The trait [`Deployer`]: how a checkout becomes something that runs.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    events::{EventSink, SinkError},
    model::{
        command::ExecCommand,
        event::LogStream,
        ids::{DeploymentId, HostPort, InstanceKey},
        instance::{Instance, InstanceState, InstanceStats},
        names::EnvName,
        repo::{Checkout, HealthProbe, RepoSpec},
    },
    problem::{ErrorCode, Problem, chain},
};

/// Everything a [`Deployer`] needs to know of one deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct DeployJob {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Sandbox and repo.
    pub key: InstanceKey,
    /// The repo's configuration.
    pub repo: RepoSpec,
    /// What to build and run.
    pub checkout: Checkout,
    /// The host port to answer on.
    pub host_port: HostPort,
    /// The environment variables, the repo's own and the request's merged.
    pub env: BTreeMap<EnvName, String>,
}

/// What [`Deployer::build`] made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Where it is, for recipes that make a file.
    pub path: Option<PathBuf>,
    /// Whether an earlier build of the same tree, recipe, toolchain and environment was used.
    pub reused: bool,
}

/// A started instance and the one whose place it took, until [`Deployer::settle`] or
/// [`Deployer::revert`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The new instance.
    pub current: Instance,
    /// The previous one: kept, marked [`parked`](Instance::parked), in the state that it had before.
    pub previous: Option<Instance>,
    /// Whether the previous one goes on serving on its own port, beside the new one; else it is stopped.
    pub beside: bool,
}

/// What one health probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// It answers as it should.
    Healthy,
    /// Not yet; why, in a few words: `GET /healthz answered 503`.
    NotYet(String),
    /// Its program was ended with the engine, which has been restarted since:
    /// [`restart`](Deployer::restart) brings it back. Told once for each time.
    TakenDown,
    /// It never will: its program has exited.
    Dead {
        /// The exit code.
        exit_code: i64,
        /// The last lines of its output.
        last_lines: Vec<String>,
    },
}

/// One line of an instance's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct LogLine {
    /// Where it was written.
    pub stream: LogStream,
    /// The text, without its line end. Bytes that were not UTF-8 are U+FFFD. A line of more than [`MAX_LINE_BYTES`]
    /// comes as several.
    pub line: String,
}

/// The longest [`LogLine`]: nobody waits for the end of a line, or holds it, beyond this.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// Which part of an instance's output to give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// Only this many of the last lines; all when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// Go on with new lines until the instance exits.
    #[serde(default)]
    pub follow: bool,
}

/// Lines of output, or the error that ended them.
pub type LogLines = BoxStream<'static, Result<LogLine, DeployError>>;

/// What a command does that is run where an instance runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEvent {
    /// It prints a line.
    Line(LogLine),
    /// It has exited with this code: the last event.
    Exited(i64),
}

/// What a command prints and at last how it exits, or the error after which neither is known.
pub type ExecEvents = BoxStream<'static, Result<ExecEvent, DeployError>>;

/// Builds checkouts and runs them, at most one instance per [`InstanceKey`].
///
/// # Contract
/// - What it knows of its instances it reads from where they run (a container's labels, a process
///   journal), so that a new `Deployer` on the same machine finds what an earlier one left.
/// - [`start`](Self::start) is all or nothing: on `Err`, the previous instance answers its port as
///   before. Where the new one has another port than the previous one, both may serve side by side
///   until then, and [`Replacement::beside`] says so. Afterwards exactly one of [`settle`](Self::settle) and [`revert`](Self::revert) is
///   called; after either, at most one instance of the key exists.
/// - A build never changes what an instance runs from: each tree, recipe, toolchain and environment has
///   its own artifact, which all checkouts of a repo share and no instance may write to. It is built
///   by one at a time, whom others wait for. At [`settle`](Deployer::settle) those are pruned that no
///   instance uses and that are not among the last good ones.
/// - It never pulls an image: a missing one is [`DeployError::ImageMissing`].
/// - A cancelled call returns [`DeployError::Cancelled`] soon and leaves nothing of its own
///   running: no process of the build's group, no half-made container.
/// - Calls for different keys run side by side. Callers serialise the calls that change one key.
#[async_trait]
pub trait Deployer: std::fmt::Debug + Send + Sync {
    /// Its kind, as configuration names it: `docker`, `process`.
    fn kind(&self) -> &'static str;

    /// Whether a new instance can serve beside the one it replaces, when it has another port.
    fn serves_beside(&self) -> bool {
        true
    }

    /// Builds the checkout by its recipe, on the host, output line by line to `sink`. Does not
    /// touch what runs.
    ///
    /// # Errors
    /// [`DeployError::Build`], [`DeployError::Tool`], [`DeployError::Timeout`] after the repo's
    /// `build_timeout`.
    async fn build(
        &self,
        job: &DeployJob,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Artifact, DeployError>;

    /// Ends what a build of this deployment still has running because whoever ran it died. Idempotent.
    ///
    /// # Errors
    /// [`DeployError::Io`].
    async fn end_build(&self, deployment: DeploymentId) -> Result<(), DeployError> {
        let _ = deployment;
        Ok(())
    }

    /// The running instance, when it is what [`start`](Self::start) would make of the job on that instance's port:
    /// the same commit, program, variables, limits and image. None as well where that cannot be told.
    ///
    /// # Errors
    /// [`DeployError::Engine`].
    async fn unchanged(&self, job: &DeployJob, artifact: &Artifact) -> Result<Option<Instance>, DeployError> {
        let _ = (job, artifact);
        Ok(None)
    }

    /// Starts the new instance in the place of the previous one, which is kept. It is stopped first,
    /// unless the job's port is another one and the deployer can run both at once.
    ///
    /// # Errors
    /// [`DeployError::PortTaken`] and [`DeployError::ImageMissing`], both before anything is
    /// stopped; [`DeployError::Start`]; [`DeployError::NameTaken`].
    async fn start(
        &self,
        job: &DeployJob,
        artifact: &Artifact,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Replacement, DeployError>;

    /// Asks once whether the instance is healthy. Returns within a few seconds.
    ///
    /// # Errors
    /// [`DeployError::NotFound`] when there is no such instance; [`DeployError::EngineAway`] at once,
    /// where other calls wait for an engine that is being restarted.
    async fn probe(&self, instance: &Instance, probe: &HealthProbe) -> Result<Probe, DeployError>;

    /// Removes the previous instance, whose requests under way are given the time to end that its
    /// program takes: the new one stays. Idempotent.
    ///
    /// # Errors
    /// [`DeployError::Engine`].
    async fn settle(&self, replacement: &Replacement) -> Result<(), DeployError>;

    /// Ends and removes a parked instance, whose requests under way are given the time to end that its
    /// program takes. What took its place is not touched. Idempotent.
    ///
    /// # Errors
    /// [`DeployError::Engine`].
    async fn retire(&self, parked: &Instance) -> Result<(), DeployError>;

    /// Removes the new instance and puts the previous one back, running if it ran. Idempotent.
    /// Answers whether there was a previous one.
    ///
    /// # Errors
    /// [`DeployError::Start`] when the previous one cannot be started again.
    async fn revert(&self, replacement: &Replacement) -> Result<bool, DeployError>;

    /// Stops the instance and keeps it. Idempotent.
    ///
    /// # Errors
    /// [`DeployError::NotFound`].
    async fn stop(&self, key: &InstanceKey) -> Result<(), DeployError>;

    /// Stops the instance if it runs, and starts it.
    ///
    /// # Errors
    /// [`DeployError::NotFound`]; [`DeployError::Start`].
    async fn restart(&self, key: &InstanceKey) -> Result<(), DeployError>;

    /// Has the instance's program read its configuration again without dropping a request
    /// (Apache's graceful restart); nothing for programs that read it on every request.
    ///
    /// # Errors
    /// [`DeployError::NotFound`]; [`DeployError::Engine`].
    async fn reload(&self, key: &InstanceKey) -> Result<(), DeployError>;

    /// Stops and removes the instance, a parked one too. Idempotent: none there is fine.
    ///
    /// # Errors
    /// [`DeployError::Engine`].
    async fn remove(&self, key: &InstanceKey) -> Result<(), DeployError>;

    /// Removes what no instance needs any more and a crash may have left, such as the networks of
    /// sandboxes. Idempotent.
    ///
    /// # Errors
    /// [`DeployError::Engine`].
    async fn prune(&self) -> Result<(), DeployError> {
        Ok(())
    }

    /// The instance of `key` as it is now, not a parked one.
    ///
    /// # Errors
    /// [`DeployError::NotFound`].
    async fn inspect(&self, key: &InstanceKey) -> Result<Instance, DeployError>;

    /// Everything of ours on this machine, parked ones too, by key.
    ///
    /// # Errors
    /// [`DeployError::Engine`].
    async fn list(&self) -> Result<Vec<Instance>, DeployError>;

    /// The instance's output.
    ///
    /// # Errors
    /// [`DeployError::NotFound`].
    async fn logs(&self, key: &InstanceKey, options: LogOptions) -> Result<LogLines, DeployError>;

    /// Runs a command where the instance's program runs: in its container, with its variables. No shell reads the
    /// command, there is no terminal, and nothing on its standard input.
    ///
    /// A program that is not there exits with 127 and one that cannot be run with 126, after a line on standard error that
    /// says so; what is killed by a signal, with 128 and its number. To let the events go before the last one ends the
    /// command and what it has started, soon, unless the machine forbids it.
    ///
    /// # Errors
    /// [`DeployError::NotFound`]; [`DeployError::NotRunning`]; [`DeployError::Elsewhere`];
    /// [`DeployError::NoCommands`] from a deployer that runs none.
    async fn exec(&self, key: &InstanceKey, command: &ExecCommand) -> Result<ExecEvents, DeployError> {
        let _ = (key, command);
        Err(DeployError::NoCommands { deployer: self.kind() })
    }

    /// Returns when the commands that were let go have ended, or are known not to: for who is about to exit.
    async fn commands_ended(&self) {}

    /// Ends the commands of this deployer's instances that an earlier process began and did not live to end. They are told
    /// apart from this one's by nothing: it is done before any is run.
    ///
    /// # Errors
    /// [`DeployError::Engine`].
    async fn end_left_commands(&self) -> Result<(), DeployError> {
        Ok(())
    }

    /// CPU and memory in use now. May take a second, which is the time it is measured over.
    ///
    /// # Errors
    /// [`DeployError::NotFound`].
    async fn stats(&self, key: &InstanceKey) -> Result<InstanceStats, DeployError>;
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a [`Deployer`] could not do it, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeployError {
    /// The build command failed.
    #[error("the build failed: `{command}` {outcome}{}", tail(.last_lines))]
    Build {
        /// The command.
        command: String,
        /// How it ended: `exited with 1`, `was killed by signal 9`.
        outcome: String,
        /// The last lines of its output.
        last_lines: Vec<String>,
    },
    /// A tool that the recipe needs is not installed.
    #[error("`{tool}` is not installed on this agent's machine; {cure}")]
    Tool {
        /// The tool.
        tool: String,
        /// What to install or configure.
        cure: String,
    },
    /// The repo's configuration cannot be deployed as it is.
    #[error("repo `{repo}` cannot be deployed as configured: {reason}")]
    Config {
        /// The repo.
        repo: String,
        /// What is missing or contradictory.
        reason: String,
    },
    /// It took longer than it may.
    #[error("{what} took longer than {limit}")]
    Timeout {
        /// What did.
        what: String,
        /// How long it may take.
        limit: String,
    },
    /// The host port is taken.
    #[error("host port {port} is taken by {holder}; choose another, or none to have one picked")]
    PortTaken {
        /// The port.
        port: HostPort,
        /// Who holds it: `sandbox pay, repo eredar (container sdp-pay-eredar)`, or `another program`.
        holder: String,
    },
    /// Every port of the range is taken.
    #[error("every host port from {first} to {last} is taken; stop a deployment or widen `deployer.port_range`")]
    NoFreePort {
        /// The first port of the range.
        first: u16,
        /// The last one.
        last: u16,
    },
    /// Every network of the pool is taken.
    #[error(
        "every one of the {networks} networks of {pool} is taken; delete sandboxes that nobody needs, or widen `deployer.network_pool`"
    )]
    NoFreeNetwork {
        /// The addresses they are made from.
        pool: String,
        /// How many there are.
        networks: usize,
    },
    /// The container name belongs to something else.
    #[error("the name {name} is taken by {holder}; rename the sandbox or remove that one")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        holder: String,
    },
    /// The image is not on this machine.
    #[error("image {image} is not on this machine and SDP never pulls; run `docker load -i {}.tar` with a copy of it", .image.replace(['/', ':'], "-"))]
    ImageMissing {
        /// The image.
        image: String,
    },
    /// The instance could not be started.
    #[error("{name} could not be started{}", tail(.last_lines))]
    Start {
        /// Its name.
        name: String,
        /// The last lines of its output, if it wrote any.
        last_lines: Vec<String>,
        /// What went wrong below.
        #[source]
        source: Source,
    },
    /// There is no such instance.
    #[error("nothing runs for {key}; deploy it first")]
    NotFound {
        /// Sandbox and repo.
        key: InstanceKey,
    },
    /// The instance does not run, and only where it does can a command be run.
    #[error("{key} is not running ({state}); restart it first")]
    NotRunning {
        /// Sandbox and repo.
        key: InstanceKey,
        /// How it is instead.
        state: InstanceState,
    },
    /// The instance runs on a node of a swarm that only the engine there can ask.
    #[error(
        "{name} runs on node {node}, and only the engine there can {action}; keep it on this node with `deployer.constraints`, or do it there"
    )]
    Elsewhere {
        /// Its name.
        name: String,
        /// The node.
        node: String,
        /// What cannot be done from here.
        action: String,
    },
    /// A deployer that runs no commands.
    #[error("the deployer `{deployer}` runs no commands in what it has deployed")]
    NoCommands {
        /// Its kind.
        deployer: &'static str,
    },
    /// The container engine does not answer.
    #[error(
        "the container engine does not answer, asked to {action}; start it if it does not run (`systemctl status docker` tells), let the agent's user use its socket, and try again"
    )]
    EngineAway {
        /// What was asked of it.
        action: String,
        /// What went wrong below.
        #[source]
        source: Source,
    },
    /// The container engine refused.
    #[error("the container engine failed to {action}; its log says more (`journalctl -u docker`)")]
    Engine {
        /// What was asked of it.
        action: String,
        /// What went wrong below.
        #[source]
        source: Source,
    },
    /// A file or process on this machine could not be handled.
    #[error("failed to {action}")]
    Io {
        /// What was being done.
        action: String,
        /// What went wrong below.
        #[source]
        source: std::io::Error,
    },
    /// Cancelled by the caller's token.
    #[error("cancelled")]
    Cancelled,
    /// An event could not be kept.
    #[error("the event log failed")]
    Sink(#[from] SinkError),
}

/// The last lines of an output, as the end of an error's sentence: without the colours that are for a terminal.
pub(crate) fn tail(lines: &[String]) -> String {
    let plain: Vec<_> = lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
    if plain.is_empty() { String::new() } else { format!("; its last lines: {}", plain.join(" | ")) }
}

impl DeployError {
    /// The code under which it is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Build { .. } => ErrorCode::BuildFailed,
            Self::Tool { .. } => ErrorCode::ToolMissing,
            Self::Config { .. } => ErrorCode::InvalidInput,
            Self::Timeout { .. } => ErrorCode::Timeout,
            Self::PortTaken { .. } | Self::NoFreePort { .. } => ErrorCode::PortTaken,
            Self::NameTaken { .. } | Self::NoFreeNetwork { .. } | Self::NotRunning { .. } => ErrorCode::Conflict,
            Self::ImageMissing { .. } => ErrorCode::ImageMissing,
            Self::Start { .. } => ErrorCode::StartFailed,
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::Elsewhere { .. } | Self::NoCommands { .. } => ErrorCode::Unsupported,
            Self::Engine { .. } | Self::EngineAway { .. } => ErrorCode::EngineUnavailable,
            Self::Io { .. } => ErrorCode::Internal,
            Self::Cancelled => ErrorCode::Cancelled,
            Self::Sink(_) => ErrorCode::EventsUnavailable,
        }
    }
}

impl From<&DeployError> for Problem {
    fn from(error: &DeployError) -> Self {
        let problem = Problem::new(error.code(), chain(error));
        match error {
            DeployError::PortTaken { holder, .. } => problem.field("host_port").holder(holder),
            DeployError::NameTaken { holder, .. } => problem.holder(holder),
            _ => problem,
        }
    }
}
