//! The one thread that writes. What waits is committed together, so that many writers share one
//! sync of the disk; each has its own savepoint, so that a failing one undoes only itself.

use std::{sync::mpsc, thread};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::{changes, error::StoreError};

/// The most writes in one transaction.
const BATCH: usize = 256;

type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Gives the answer to send after the commit, and whether its changes are to be kept. Without a
/// connection it changes nothing.
type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) -> (Reply, bool) + Send>;

/// Clones share the thread, which ends after the last one is gone.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    /// The number of the newest change committed.
    changes: watch::Sender<i64>,
    commits: watch::Receiver<()>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Self {
        let (jobs, queue) = mpsc::channel();
        let changes = watch::Sender::new(0);
        let told = changes.clone();
        let (committed, commits) = watch::channel(());
        thread::spawn(move || {
            while let Ok(first) = queue.recv() {
                let batch = std::iter::once(first).chain(queue.try_iter().take(BATCH - 1)).collect();
                commit(&connection, batch);
                committed.send_replace(());
                match changes::last(&connection) {
                    Ok(last) => drop(told.send_if_modified(|known| std::mem::replace(known, last) != last)),
                    Err(error) => tracing::error!(%error, "what changed cannot be told"),
                }
            }
        });
        Self { jobs, changes, commits }
    }

    pub(super) fn changes(&self) -> watch::Receiver<i64> {
        self.changes.subscribe()
    }

    /// Changes after each commit.
    pub(super) fn commits(&self) -> watch::Receiver<()> {
        self.commits.clone()
    }

    /// Runs `work` in a transaction and answers once it is durable. Giving up on the future does
    /// not undo the write.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        // Nobody may be waiting any more.
        self.submit(work, move |result| drop(answer.send(result)))?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Has `work` run after everything that was submitted before, and `answer` once it is durable.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        answer: impl FnOnce(Result<T, StoreError>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let job: Job = Box::new(move |connection| {
            let result = connection.and_then(work);
            let keep = result.is_ok();
            let reply: Reply = Box::new(move |committed| answer(result.and_then(|value| committed.map(|()| value))));
            (reply, keep)
        });
        self.jobs.send(job).map_err(|_| StoreError::Closed)
    }
}

fn run(connection: &Connection, statement: &str) -> Result<(), StoreError> {
    connection.prepare_cached(statement)?.execute([])?;
    Ok(())
}

fn commit(connection: &Connection, batch: Vec<Job>) {
    let mut replies = Vec::with_capacity(batch.len());
    let mut outcome = run(connection, "BEGIN IMMEDIATE");
    for job in batch {
        if outcome.is_ok() {
            outcome = run(connection, "SAVEPOINT job");
        }
        // Without a transaction a job must not run: its statements would commit one by one.
        let (reply, keep) = job(outcome.clone().map(|()| connection));
        replies.push(reply);
        if outcome.is_err() {
            continue;
        }
        // On a full disk and the like SQLite rolls the whole transaction back by itself.
        outcome = if keep { Ok(()) } else { run(connection, "ROLLBACK TO job") };
        outcome = outcome.and_then(|()| run(connection, "RELEASE job"));
    }
    let outcome = outcome.and_then(|()| run(connection, "COMMIT"));
    if outcome.is_err()
        && !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "a failed transaction could not be rolled back");
    }
    for reply in replies {
        reply(outcome.clone());
    }
}
