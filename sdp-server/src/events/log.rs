//! One deployment's log while somebody uses it.

use std::{path::PathBuf, sync::Arc};

use sdp_core::{DeploymentId, protocol::CheckedBatch};
use tokio::sync::{Mutex, watch};

use super::{Appended, error::EventLogError, file::LogFile, recent::Recent};

/// What readers see: only what is durable.
#[derive(Debug, Default)]
pub(super) struct View {
    /// None while the log has no file, or nobody has looked.
    pub(super) file: Option<LogFile>,
    /// The end of the file, for those who follow it closely.
    pub(super) recent: Recent,
    /// Nothing more will come.
    pub(super) finished: bool,
}

#[derive(Debug)]
pub(super) struct Log {
    id: DeploymentId,
    path: PathBuf,
    /// Whether the file was looked for since the last failure. Held by who writes.
    opened: Arc<Mutex<bool>>,
    view: watch::Sender<View>,
}

impl Log {
    pub(super) fn new(id: DeploymentId, path: PathBuf, finished: bool) -> Self {
        let view = watch::Sender::new(View { file: None, recent: Recent::default(), finished });
        Self { id, path, opened: Arc::default(), view }
    }

    pub(super) fn watch(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    pub(super) fn finish(&self) {
        self.view.send_if_modified(|view| {
            view.recent.clear();
            !std::mem::replace(&mut view.finished, true)
        });
    }

    /// The durable part of the file, once it was looked for; none when there is no file.
    pub(super) async fn file(self: &Arc<Self>) -> Result<Option<LogFile>, EventLogError> {
        // A published file is durable whatever an append under way does: no need to wait for it.
        let file = self.view.borrow().file.clone();
        if file.is_some() {
            return Ok(file);
        }
        let mut opened = Arc::clone(&self.opened).lock_owned().await;
        let log = Arc::clone(self);
        // The guard goes along, so that giving up on this future does not let a second one in.
        blocking(move || {
            log.open(&mut opened)?;
            Ok(log.view.borrow().file.clone())
        })
        .await
    }

    /// See [`super::EventLogs::append`].
    pub(super) async fn append(self: &Arc<Self>, checked: CheckedBatch) -> Result<Appended, EventLogError> {
        let mut opened = Arc::clone(&self.opened).lock_owned().await;
        let log = Arc::clone(self);
        blocking(move || {
            log.open(&mut opened)?;
            let file = log.view.borrow().file.clone();
            let last = file.as_ref().map_or(0, |file| file.last);
            let batch = checked.batch();
            if batch.first() > last + 1 {
                return Err(EventLogError::Gap { deployment: log.id, expected: last + 1 });
            }
            if batch.last() <= last {
                return Ok(Appended { last, changes: Vec::new() });
            }
            let changes = checked.changes().iter().filter(|event| event.seq > last).cloned().collect();
            let mut file = match file {
                Some(file) => file,
                None => LogFile::create(&log.path)?,
            };
            let (lines, at) = (batch.lines_after(last), file.len);
            file.append(&lines, batch.last())?;
            let last = file.last;
            let followed = log.view.receiver_count() > 0;
            log.view.send_modify(|view| {
                view.file = Some(file);
                if followed {
                    view.recent.push(at, lines);
                } else {
                    view.recent.clear();
                }
            });
            Ok(Appended { last, changes })
        })
        .await
    }

    fn open(&self, opened: &mut bool) -> Result<(), EventLogError> {
        if !*opened {
            let file = LogFile::open(&self.path)?;
            self.view.send_modify(|view| {
                view.file = file;
                view.recent.clear();
            });
            *opened = true;
        }
        Ok(())
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EventLogError> + Send + 'static,
) -> Result<T, EventLogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(EventLogError::ShuttingDown),
    }
}
