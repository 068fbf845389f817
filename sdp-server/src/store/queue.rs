//! What is to be done for others later: kept until it is done or given up, also over restarts.
//!
//! Things are done by lanes: of each one thing at a time, in the order in which they came. What happens is written
//! down by triggers, in the transactions in which it happens, and [`Store::announce`] makes things to do of it.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Store, StoreError,
    pull_requests::{PullRequestKey, key_of_sandbox},
    values::{micros, time, to_json},
};

/// How many happenings are taken at once.
const AT_ONCE: u32 = 200;

/// How many things wait in one lane at most: for whoever never takes any, the oldest go.
const IN_A_LANE: u32 = 10_000;

/// Something to be done later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewTask {
    /// Where it waits for its turn.
    pub(crate) lane: String,
    /// What it is, as JSON.
    pub(crate) work: String,
    /// Whether one like it that waits and was not begun yet does as well.
    pub(crate) once: bool,
}

/// Something that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) id: i64,
    pub(crate) lane: String,
    pub(crate) work: String,
    pub(crate) queued_at: Timestamp,
    /// How often it was begun.
    pub(crate) attempts: u32,
    /// Why it did not work out the last time.
    pub(crate) problem: Option<String>,
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Happening {
    pub(crate) id: i64,
    pub(crate) at: Timestamp,
    /// `deployment-running`, `sandbox-created`, …
    pub(crate) kind: String,
    /// What happened to what.
    pub(crate) detail: serde_json::Value,
    /// The pull request whose sandbox it is about.
    pub(crate) pull_request: Option<PullRequestKey>,
}

impl Store {
    /// Makes things to do of what has happened since the last time. False when there is nothing more.
    pub(crate) async fn announce(
        &self,
        plan: impl Fn(&Happening) -> Vec<NewTask> + Send + 'static,
    ) -> Result<bool, StoreError> {
        let is_quiet = self.readers.read(|connection| {
            let query = "SELECT NOT EXISTS (SELECT 1 FROM happenings)";
            Ok(connection.prepare_cached(query)?.query_row([], |row| row.get(0))?)
        });
        if is_quiet.await? {
            return Ok(false);
        }
        self.writer
            .write(move |connection| {
                let happenings = happenings(connection)?;
                let Some(last) = happenings.last().map(|happening| happening.id) else { return Ok(false) };
                for task in happenings.iter().flat_map(plan) {
                    enqueue(connection, &task)?;
                }
                connection.prepare_cached("DELETE FROM happenings WHERE id <= ?1")?.execute([last])?;
                Ok(true)
            })
            .await
    }

    /// Has the ends announced that are near: nearer than `soon`, and than a quarter of the sandbox's life.
    pub(crate) async fn announce_near_ends(&self, now: Timestamp, soon: Duration) -> Result<(), StoreError> {
        let soon = i64::try_from(soon.as_micros()).unwrap_or(i64::MAX);
        let is_near = "state <> 'deleting' AND end_announced IS NOT expires_at
            AND expires_at - ?1 <= min(?2, (expires_at - created_at) / 4)";
        let look = format!("SELECT EXISTS (SELECT 1 FROM sandboxes WHERE {is_near})");
        let any = self.readers.read(move |connection| {
            Ok(connection.prepare_cached(&look)?.query_row(params![micros(now), soon], |row| row.get(0))?)
        });
        if !any.await? {
            return Ok(());
        }
        let tell = format!("UPDATE sandboxes SET end_announced = expires_at WHERE {is_near}");
        self.writer
            .write(move |connection| {
                connection.prepare_cached(&tell)?.execute(params![micros(now), soon])?;
                Ok(())
            })
            .await
    }

    /// Puts something into the queue.
    pub(crate) async fn enqueue(&self, task: NewTask) -> Result<(), StoreError> {
        self.writer.write(move |connection| enqueue(connection, &task)).await
    }

    /// What is due, of lanes that nobody is busy with, and when the next of them will be.
    pub(crate) async fn due_tasks(
        &self,
        now: Timestamp,
        busy: BTreeSet<String>,
        limit: usize,
    ) -> Result<(Vec<Task>, Option<Timestamp>), StoreError> {
        self.readers
            .read(move |connection| {
                let query = "SELECT * FROM queue WHERE id IN (SELECT min(id) FROM queue GROUP BY lane)
                    AND lane NOT IN (SELECT value FROM json_each(?1)) ORDER BY due_at, id LIMIT ?2";
                let mut statement = connection.prepare_cached(query)?;
                let limit = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
                let mut rows = statement.query(params![to_json(&busy), limit])?;
                let mut due = Vec::new();
                while let Some(row) = rows.next()? {
                    let at = time(row, "due_at")?;
                    if at > now {
                        return Ok((due, Some(at)));
                    }
                    due.push(Task {
                        id: row.get("id")?,
                        lane: row.get("lane")?,
                        work: row.get("work")?,
                        queued_at: time(row, "queued_at")?,
                        attempts: row.get("attempts")?,
                        problem: row.get("problem")?,
                    });
                }
                Ok((due, None))
            })
            .await
    }

    /// Takes note that something is begun. False when it is gone.
    pub(crate) async fn begin_task(&self, id: i64) -> Result<bool, StoreError> {
        self.writer
            .write(move |connection| {
                let query = "UPDATE queue SET attempts = attempts + 1 WHERE id = ?1";
                Ok(connection.prepare_cached(query)?.execute([id])? > 0)
            })
            .await
    }

    /// Takes something out of the queue.
    pub(crate) async fn end_task(&self, id: i64) -> Result<(), StoreError> {
        self.writer
            .write(move |connection| {
                connection.prepare_cached("DELETE FROM queue WHERE id = ?1")?.execute([id])?;
                Ok(())
            })
            .await
    }

    /// Puts something off.
    pub(crate) async fn put_off_task(&self, id: i64, until: Timestamp, problem: String) -> Result<(), StoreError> {
        self.writer
            .write(move |connection| {
                let query = "UPDATE queue SET due_at = ?2, problem = ?3 WHERE id = ?1";
                connection.prepare_cached(query)?.execute(params![id, micros(until), problem])?;
                Ok(())
            })
            .await
    }
}

pub(super) fn enqueue(connection: &Connection, task: &NewTask) -> Result<(), StoreError> {
    if task.once {
        let query = "SELECT 1 FROM queue WHERE lane = ?1 AND work = ?2 AND attempts = 0";
        let like_it: Option<i64> =
            connection.prepare_cached(query)?.query_row([&task.lane, &task.work], |row| row.get(0)).optional()?;
        if like_it.is_some() {
            return Ok(());
        }
    }
    let now = micros(Timestamp::now());
    let query = "INSERT INTO queue (lane, work, queued_at, due_at) VALUES (?1, ?2, ?3, ?3)";
    connection.prepare_cached(query)?.execute(params![task.lane, task.work, now])?;
    let query = "DELETE FROM queue WHERE lane = ?1
        AND id <= (SELECT id FROM queue WHERE lane = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
    let gone = connection.prepare_cached(query)?.execute(params![task.lane, IN_A_LANE])?;
    if gone > 0 {
        tracing::error!(lane = task.lane, gone, "too much waits here: the oldest was dropped");
    }
    Ok(())
}

fn happenings(connection: &Connection) -> Result<Vec<Happening>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT * FROM happenings ORDER BY id LIMIT ?1")?;
    let mut rows = statement.query([AT_ONCE])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let detail: serde_json::Value = super::values::json(row, "detail")?;
        let kind: String = row.get("kind")?;
        let sandbox = match kind.starts_with("sandbox-") {
            true => &detail["name"],
            false => &detail["sandbox"],
        };
        let pull_request = match sandbox.as_str() {
            Some(sandbox) => key_of_sandbox(connection, sandbox)?,
            None => None,
        };
        found.push(Happening { id: row.get("id")?, at: time(row, "at")?, kind, detail, pull_request });
    }
    Ok(found)
}
