//! Talking to the engine: waiting for it while it is restarted, its errors told as ours.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error, query_parameters::EventsOptionsBuilder};
use futures_util::StreamExt;
use sdp_core::DeployError;
use tokio::time::Instant;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// How long the engine may take to answer, in seconds.
const ENGINE_TIMEOUT_SECONDS: u64 = 120;

/// The pause before an engine that is away is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// A connection to an engine, which is waited for while it is away. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) docker: Docker,
    patience: Duration,
    outages: Arc<AtomicU64>,
    /// The commands that are being ended.
    pub(super) ending: TaskTracker,
    /// Ends with the last clone.
    _watch: Arc<AbortOnDropHandle<()>>,
}

impl Engine {
    /// Connects and agrees on an API version: engines of Debian 12 speak 1.41.
    pub(crate) async fn connect(socket: &Path, patience: Duration) -> Result<Self, DeployError> {
        let path = socket.to_string_lossy();
        let docker = Docker::connect_with_unix(&path, ENGINE_TIMEOUT_SECONDS, API_DEFAULT_VERSION);
        let docker = docker.map_err(failed("be reached"))?.negotiate_version().await;
        let docker = docker.map_err(failed("tell its version"))?;
        let outages = Arc::default();
        let watch = tokio::spawn(watch(docker.clone(), Arc::clone(&outages)));
        let ending = TaskTracker::new();
        // It takes more all the same, and then those that wait know when there is none.
        ending.close();
        Ok(Self { docker, patience, outages, ending, _watch: Arc::new(AbortOnDropHandle::new(watch)) })
    }

    /// The same engine, not waited for.
    pub(crate) fn impatient(&self) -> Self {
        Self { patience: Duration::ZERO, ..self.clone() }
    }

    /// Does it, again and again while the engine is away, as during its restart. What is done may
    /// have been done already by a try that was cut off: `call` must be idempotent.
    pub(crate) async fn patiently<T, F>(&self, call: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + self.patience;
        loop {
            match call().await {
                Err(error) if is_away(&error) => {
                    self.outages.fetch_add(1, Ordering::Relaxed);
                    if Instant::now() >= deadline {
                        return Err(error);
                    }
                    tracing::debug!(%error, "the engine is away");
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }

    /// Grows whenever the engine was restarted or found away.
    pub(crate) fn outages(&self) -> u64 {
        self.outages.load(Ordering::Relaxed)
    }

    /// Waits until the engine answers.
    pub(crate) async fn wait(&self) -> Result<(), DeployError> {
        self.patiently(|| self.docker.ping()).await.map(drop).map_err(failed("answer"))
    }
}

/// Holds a stream of the engine's open, which breaks when the engine ends: one that is back within
/// moments is found out too.
async fn watch(docker: Docker, outages: Arc<AtomicU64>) {
    loop {
        // Nothing much comes: it is the end that matters.
        let options = EventsOptionsBuilder::new().filters(&HashMap::from([("type", vec!["daemon"])])).build();
        let mut events = Box::pin(docker.events(Some(options)));
        while let Some(Ok(_)) = events.next().await {}
        outages.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether it is no answer of the engine's: it is stopped, or ended while it was being asked.
fn is_away(error: &Error) -> bool {
    matches!(error, Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } | Error::IOError { .. })
        || matches!(error, Error::SocketNotFoundError(_))
}

/// For `map_err`: the engine failed to do this.
pub(crate) fn failed(action: &str) -> impl Fn(Error) -> DeployError + '_ {
    move |source| {
        let (away, action, source) = (is_away(&source), action.to_owned(), source.into());
        if away { DeployError::EngineAway { action, source } } else { DeployError::Engine { action, source } }
    }
}

/// For `map_err`: `name` could not be started.
pub(crate) fn not_started(name: &str) -> impl Fn(Error) -> DeployError + '_ {
    move |source| {
        if is_away(&source) {
            return failed("start a container")(source);
        }
        DeployError::Start { name: name.to_owned(), last_lines: Vec::new(), source: source.into() }
    }
}

/// Whether the engine said that there is no such thing.
pub(crate) fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

/// Whether the engine refused because of something else that there is.
pub(crate) fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 403 | 409, .. })
}

/// Whether the engine could not publish a port because somebody has it.
pub(crate) fn is_port_taken(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { message, .. } if tells_of_a_taken_port(message))
}

/// The same, in what an engine said: it has no code for it.
pub(crate) fn tells_of_a_taken_port(message: &str) -> bool {
    ["address already in use", "port is already allocated", "port already in use"].iter().any(|it| message.contains(it))
}

/// Takes "no such container", "already stopped" and "being removed already" for success.
pub(crate) fn unless_gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::DockerResponseServerError { status_code: 304 | 404, .. }) => Ok(()),
        Err(Error::DockerResponseServerError { status_code: 409, message }) if message.contains("in progress") => {
            Ok(())
        }
        result => result,
    }
}
