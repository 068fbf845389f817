//! Event logs: the file is the queue.
//!
//! One file per deployment, `<id>.log`, holds exactly the NDJSON lines of its events, 1 and on.
//! What an agent sends is written once and handed on verbatim; a subscriber is a position in the
//! file, so that a slow one costs nothing and loses nothing.
//!
//! - What [`EventLogs::append`] answered survives a crash and a power loss.
//! - Readers see durable bytes only: nobody is told what a crash could take back.
//! - Sequence numbers grow with the offset, so a binary search finds any event: there is no index
//!   that could disagree with the file.

mod error;
mod file;
mod log;
mod recent;
mod subscription;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use bytes::Bytes;
use sdp_core::{DeploymentId, Event, protocol::CheckedBatch};

pub use self::{error::EventLogError, subscription::Subscription};
use self::{
    file::io_error,
    log::{Log, blocking},
};

/// How many logs that nobody uses at the moment stay open.
const IDLE_LOGS: usize = 128;

/// The most bytes that [`EventLogs::tail`] gives, unless a single line is longer.
const TAIL_BYTES: usize = 8 * 1024 * 1024;

/// Every deployment's event log. Clones share everything. One process owns a directory.
#[derive(Debug, Clone)]
pub struct EventLogs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    logs: HashMap<DeploymentId, (Arc<Log>, u64)>,
    finished: HashSet<DeploymentId>,
    uses: u64,
}

/// A log on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredLog {
    /// Whose events it holds.
    pub id: DeploymentId,
    /// Its size.
    pub bytes: u64,
    /// When something was added to it last.
    pub modified: SystemTime,
}

/// What an append did.
#[derive(Debug, Clone, PartialEq)]
pub struct Appended {
    /// The log's last sequence number: what may be acknowledged.
    pub last: u64,
    /// Of the events that the log lacked, those that are no line of output, in order.
    pub changes: Vec<Event>,
}

impl EventLogs {
    /// The logs in `dir`, which is made when it is absent.
    ///
    /// # Errors
    /// [`EventLogError::Io`] when the directory cannot be made.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, EventLogError> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(|error| io_error("create", &dir, error))?;
        Ok(Self { shared: Arc::new(Shared { dir, table: Mutex::default() }) })
    }

    /// The file that holds, or will hold, a deployment's events.
    pub fn path(&self, id: DeploymentId) -> PathBuf {
        path(&self.shared.dir, id)
    }

    /// Appends what the log lacks of `batch`, verbatim, and makes it durable before it answers and
    /// before any subscriber sees it. A batch that was appended already changes nothing. Giving up
    /// on the future does not undo the append.
    ///
    /// # Errors
    /// [`EventLogError::Gap`] when the batch begins after the log's next event, [`EventLogError::Io`]; in either case
    /// nothing of it is in the log.
    pub async fn append(&self, batch: CheckedBatch) -> Result<Appended, EventLogError> {
        self.log(batch.batch().deployment()).append(batch).await
    }

    /// The last durable event's sequence number; 0 when there is none.
    ///
    /// # Errors
    /// [`EventLogError::Io`].
    pub async fn last_seq(&self, id: DeploymentId) -> Result<u64, EventLogError> {
        Ok(self.log(id).file().await?.map_or(0, |file| file.last))
    }

    /// Follows a log from event `from` on (0 and 1 are the first): what is there, then what comes,
    /// in order, each line once. The log need not exist yet.
    pub fn subscribe(&self, id: DeploymentId, from: u64) -> Subscription {
        Subscription::new(self.log(id), from)
    }

    /// Says that the pipeline has finished: subscribers, present and future, end once they have
    /// read everything. Not remembered across restarts of the process. Idempotent.
    pub fn finish(&self, id: DeploymentId) {
        let log = self.with_table(|table| {
            table.finished.insert(id);
            table.logs.get(&id).map(|(log, _)| Arc::clone(log))
        });
        if let Some(log) = log {
            log.finish();
        }
    }

    /// Whole lines from event `from` on: at most `limit_bytes`, or one line that is longer. Empty at
    /// the log's end.
    ///
    /// # Errors
    /// [`EventLogError`] when the file cannot be read.
    pub async fn read(&self, id: DeploymentId, from: u64, limit_bytes: usize) -> Result<Bytes, EventLogError> {
        let file = self.log(id).file().await?.filter(|file| file.last >= from);
        let Some(file) = file else { return Ok(Bytes::new()) };
        blocking(move || file.lines_from(file.offset_of(from)?, limit_bytes)).await
    }

    /// The last `lines` lines: at most 8 MiB, or one line that is longer.
    ///
    /// # Errors
    /// [`EventLogError`] when the file cannot be read.
    pub async fn tail(&self, id: DeploymentId, lines: usize) -> Result<Bytes, EventLogError> {
        let Some(file) = self.log(id).file().await? else { return Ok(Bytes::new()) };
        blocking(move || file.tail(lines, TAIL_BYTES)).await
    }

    /// Every log on disk.
    ///
    /// # Errors
    /// [`EventLogError::Io`] when the directory cannot be read.
    pub async fn stored(&self) -> Result<Vec<StoredLog>, EventLogError> {
        let dir = self.shared.dir.clone();
        blocking(move || {
            let failed = |error| io_error("read", &dir, error);
            let mut stored = Vec::new();
            for entry in fs::read_dir(&dir).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name();
                let id = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|id| id.parse().ok());
                // One that has just been removed is not there.
                if let (Some(id), Ok(metadata)) = (id, entry.metadata()) {
                    let modified = metadata.modified().map_err(failed)?;
                    stored.push(StoredLog { id, bytes: metadata.len(), modified });
                }
            }
            Ok(stored)
        })
        .await
    }

    /// Removes a log that nothing is added to any more. Who is reading it reads on.
    ///
    /// # Errors
    /// [`EventLogError::Io`] when the file cannot be removed.
    pub async fn remove(&self, id: DeploymentId) -> Result<(), EventLogError> {
        self.with_table(|table| {
            table.logs.remove(&id);
            table.finished.remove(&id);
        });
        let path = self.path(id);
        blocking(move || match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path, error)),
            _ => Ok(()),
        })
        .await
    }

    fn log(&self, id: DeploymentId) -> Arc<Log> {
        self.with_table(|table| {
            table.uses += 1;
            let now = table.uses;
            if let Some((log, used)) = table.logs.get_mut(&id) {
                *used = now;
                return Arc::clone(log);
            }
            table.close_idle();
            let log = Arc::new(Log::new(id, path(&self.shared.dir, id), table.finished.contains(&id)));
            table.logs.insert(id, (Arc::clone(&log), now));
            log
        })
    }

    fn with_table<T>(&self, f: impl FnOnce(&mut Table) -> T) -> T {
        f(&mut self.shared.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Table {
    /// Makes room for one more: nobody else holds a log whose only owner is this table, and no new
    /// one can come while it is borrowed.
    fn close_idle(&mut self) {
        if self.logs.len() < IDLE_LOGS {
            return;
        }
        let mut idle: Vec<_> = self
            .logs
            .iter()
            .filter(|(_, (log, _))| Arc::strong_count(log) == 1)
            .map(|(id, (_, used))| (*used, *id))
            .collect();
        idle.sort_unstable();
        for (_, id) in idle.iter().take(idle.len().div_ceil(2)) {
            self.logs.remove(id);
        }
    }
}

fn path(dir: &Path, id: DeploymentId) -> PathBuf {
    dir.join(format!("{id}.log"))
}
