//! A few read-only connections.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::{error::StoreError, open_error};

const CONNECTIONS: usize = 4;

#[derive(Debug, Clone)]
pub(super) struct Readers {
    free: Arc<Mutex<Vec<Connection>>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connections = (0..CONNECTIONS).map(|_| Connection::open_with_flags(path, flags));
        let free = connections.collect::<Result<Vec<_>, _>>().map_err(|error| open_error(path, error))?;
        Ok(Self { free: Arc::new(Mutex::new(free)), turns: Arc::new(Semaphore::new(CONNECTIONS)) })
    }

    /// Looks a few rows up by their keys, in one snapshot of the database: that takes less time than another thread
    /// would to begin with it.
    pub(super) async fn look<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _turn = self.turns.acquire().await.map_err(|_| StoreError::Closed)?;
        self.with_connection(work)
    }

    fn with_connection<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let free = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = free().pop().ok_or(StoreError::Closed)?;
        let result = snapshot(&connection, work);
        free().push(connection);
        result
    }

    /// Runs `work` on one connection, in one snapshot of the database.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let readers = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            readers.with_connection(work)
        });
        match done.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(StoreError::Closed),
        }
    }
}

fn snapshot<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    // Prepared once: for a row or two they would take longer than what is between them.
    connection.prepare_cached("BEGIN")?.execute([])?;
    let result = work(connection);
    connection.prepare_cached("COMMIT")?.execute([])?;
    result
}
