//! Events on disk until the control plane has them.
//!
//! One append-only file per deployment, `<deployment>.ndjson`, holds exactly the NDJSON lines that
//! the control plane appends to its log. What holds:
//!
//! - An accepted event survives the death of this process: it is written before `accept` returns.
//!   All but log lines survive a power cut too: the file is synced first.
//! - Nothing is sent before it is synced, so that the control plane never knows more of a
//!   deployment than this file does, and numbers go on where they were after any crash.
//! - A file goes when its deployment has ended and its last event is acknowledged.

mod log;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use sdp_core::{
    DeploymentId, DeploymentState, EventKind, EventSink, SinkError, Stage, StageStatus,
    protocol::{EventBatch, HeldEvents},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::log::Log;

/// An outbox that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} {}; check the disk and the permissions of `data_dir`", .path.display())]
pub struct OutboxError {
    /// What was being done.
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl OutboxError {
    fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.into(), source }
    }
}

/// The events of every deployment that is under way or not wholly acknowledged. Clones share it.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use sdp_agent::Outbox;
/// use sdp_core::{DeploymentId, EventKind, EventSink, Stage};
/// let dir = tempfile::tempdir()?;
/// let (outbox, deployment) = (Outbox::open(dir.path())?, DeploymentId::new());
/// outbox.sink(deployment)?.accept(EventKind::note(Stage::Build, "hello")).await?;
/// drop(outbox);
/// let again = Outbox::open(dir.path())?;
/// let batch = again.batch(deployment, 0).await?.ok_or("nothing")?;
/// assert_eq!((batch.first(), batch.last()), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Outbox {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    logs: Mutex<BTreeMap<DeploymentId, Arc<Log>>>,
    changed: watch::Sender<()>,
    closing: CancellationToken,
}

/// How far a deployment's events are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The last event accepted; 0 when there is none.
    pub last: u64,
    /// The last event acknowledged; 0 when there is none.
    pub acked: u64,
    /// The last state told; `queued` before any.
    pub state: DeploymentState,
    /// The last word about a stage.
    pub stage: Option<(Stage, StageStatus)>,
}

impl Outbox {
    /// Opens the outbox in `dir`, which is made if it is absent. A last line that a crash left
    /// half written is cut off.
    ///
    /// # Errors
    /// [`OutboxError`] when the directory or a file in it cannot be used.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, OutboxError> {
        let dir = dir.into();
        std::fs::create_dir_all(&dir).map_err(OutboxError::at("create", &dir))?;
        let changed = watch::Sender::new(());
        let mut logs = BTreeMap::new();
        for entry in std::fs::read_dir(&dir).map_err(OutboxError::at("read", &dir))? {
            let path = entry.map_err(OutboxError::at("read", &dir))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".ndjson"));
            let Some(deployment) = name.and_then(|name| name.parse().ok()) else { continue };
            let log = Log::open(deployment, &path, changed.clone()).map_err(OutboxError::at("open", &path))?;
            logs.insert(deployment, Arc::new(log));
        }
        let inner = Inner { dir, logs: Mutex::new(logs), changed, closing: CancellationToken::new() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where the events of `deployment` go: a new file, or on from its last event.
    ///
    /// # Errors
    /// [`OutboxError`] when the file cannot be made.
    pub fn sink(&self, deployment: DeploymentId) -> Result<OutboxSink, OutboxError> {
        let mut logs = self.logs();
        let log = match logs.get(&deployment) {
            Some(log) => Arc::clone(log),
            None => {
                let path = self.inner.dir.join(format!("{deployment}.ndjson"));
                let log = Log::open(deployment, &path, self.inner.changed.clone());
                let log = Arc::new(log.map_err(OutboxError::at("create", &path))?);
                std::fs::File::open(&self.inner.dir)
                    .and_then(|dir| dir.sync_all())
                    .map_err(OutboxError::at("sync", &self.inner.dir))?;
                logs.insert(deployment, Arc::clone(&log));
                log
            }
        };
        Ok(OutboxSink { log, closing: self.inner.closing.clone() })
    }

    /// Where more events of a deployment that is under way go; none when it is not.
    pub(crate) fn sink_under_way(&self, deployment: DeploymentId) -> Option<OutboxSink> {
        let log = self.logs().get(&deployment).filter(|log| log.progress().state.is_active()).cloned()?;
        Some(OutboxSink { log, closing: self.inner.closing.clone() })
    }

    /// Every deployment that is under way or not wholly acknowledged, for the hello.
    pub fn unacked(&self) -> Vec<HeldEvents> {
        let held = |(deployment, log): (&DeploymentId, &Arc<Log>)| {
            let progress = log.progress();
            HeldEvents { deployment: *deployment, first: 1, last: progress.last, state: progress.state }
        };
        self.logs().iter().map(held).collect()
    }

    /// The deployments held, oldest first.
    pub fn deployments(&self) -> Vec<DeploymentId> {
        self.logs().keys().copied().collect()
    }

    /// How far a deployment is; none when nothing of it is held.
    pub fn progress(&self, deployment: DeploymentId) -> Option<Progress> {
        self.logs().get(&deployment).map(|log| log.progress())
    }

    /// The next events of `deployment` after `seq`, as many as one batch takes; none when there is
    /// none yet. They are synced to the disk first.
    ///
    /// # Errors
    /// [`OutboxError`] when the file cannot be read or synced.
    pub async fn batch(&self, deployment: DeploymentId, seq: u64) -> Result<Option<EventBatch>, OutboxError> {
        let Some(log) = self.logs().get(&deployment).cloned() else { return Ok(None) };
        if log.progress().last <= seq {
            return Ok(None);
        }
        let path = log.path().to_owned();
        let read = tokio::task::spawn_blocking(move || log.batch(seq)).await;
        read.unwrap_or_else(|gone| Err(io::Error::other(gone))).map_err(OutboxError::at("read", &path))
    }

    /// Takes note that the control plane has every event of `deployment` up to `seq`.
    pub fn ack(&self, deployment: DeploymentId, seq: u64) {
        let mut logs = self.logs();
        let Some(log) = logs.get(&deployment) else { return };
        let progress = log.ack(seq);
        if seq > progress.last {
            tracing::error!(%deployment, seq, last = progress.last, "the server acknowledged events that do not exist");
        }
        if !progress.state.is_active() && progress.acked == progress.last {
            if let Err(error) = std::fs::remove_file(log.path()) {
                tracing::warn!(%deployment, %error, "an acknowledged deployment's events could not be removed");
            }
            logs.remove(&deployment);
        }
        drop(logs);
        self.inner.changed.send_replace(());
    }

    /// Changes with every event accepted or acknowledged.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.inner.changed.subscribe()
    }

    /// Ends the waits of sinks for space on the disk. Called once, when the agent stops.
    pub fn close(&self) {
        self.inner.closing.cancel();
    }

    fn logs(&self) -> MutexGuard<'_, BTreeMap<DeploymentId, Arc<Log>>> {
        self.inner.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The durable sink of one deployment. Waits, and says so in the log, while the disk is full or fails.
#[derive(Debug, Clone)]
pub struct OutboxSink {
    log: Arc<Log>,
    closing: CancellationToken,
}

#[async_trait]
impl EventSink for OutboxSink {
    async fn accept(&self, kind: EventKind) -> Result<u64, SinkError> {
        log::accept(&self.log, kind, &self.closing).await
    }
}
