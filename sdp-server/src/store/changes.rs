//! What changed, in order, for who follows it. The tables' own triggers write it; here it is read and kept short.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, named_params, params};
use sdp_core::{api::live::Change, problem::chain};
use tokio::sync::watch;

use super::{
    Store, StoreError,
    values::{micros, time, to_json},
};

/// Some of what changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The number of the oldest that is kept, or of the next one when none is.
    pub oldest: u64,
    /// The number that the next one will have.
    pub next: u64,
    /// Those asked for, as lines of JSON, with their numbers.
    pub lines: Vec<(u64, String)>,
}

impl Store {
    /// Changes whenever something was committed that [`changes_from`](Self::changes_from) gives.
    pub fn changed(&self) -> watch::Receiver<i64> {
        self.writer.changes()
    }

    /// What changed from `from` on, `limit` at most.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn changes_from(&self, from: u64, limit: u32) -> Result<Changes, StoreError> {
        self.readers
            .read(move |connection| {
                let next = last(connection)?.saturating_add(1);
                let mut statement = connection.prepare_cached("SELECT min(seq) FROM changes")?;
                let oldest: Option<i64> = statement.query_row([], |row| row.get(0))?;
                let query = "SELECT * FROM changes WHERE seq >= :from ORDER BY seq LIMIT :limit";
                let mut statement = connection.prepare_cached(query)?;
                let from = i64::try_from(from).unwrap_or(i64::MAX);
                let mut rows = statement.query(named_params! { ":from": from, ":limit": limit })?;
                let mut lines = Vec::new();
                while let Some(row) = rows.next()? {
                    let (seq, event): (i64, String) = (row.get("seq")?, row.get("event")?);
                    let rest = event.strip_prefix('{').unwrap_or(&event);
                    lines.push((unsigned(seq), format!("{{\"seq\":{seq},\"at\":\"{}\",{rest}", time(row, "at")?)));
                }
                Ok(Changes { oldest: unsigned(oldest.unwrap_or(next)), next: unsigned(next), lines })
            })
            .await
    }

    /// Tells of a change that no table has, before everything that is written after this. Nobody waits for it, so that
    /// it shares the commit of what follows.
    pub fn tell(&self, change: &Change) {
        let (at, event) = (Timestamp::now(), to_json(change));
        let work = move |connection: &Connection| {
            let query = "INSERT INTO changes (at, event) VALUES (?1, ?2)";
            connection.prepare_cached(query)?.execute(params![micros(at), event])?;
            Ok(())
        };
        let failed = |error: &StoreError| tracing::error!(error = chain(error), "what changed could not be told");
        let told = self.writer.submit(work, move |told| {
            let _ = told.inspect_err(failed);
        });
        let _ = told.inspect_err(failed);
    }

    /// Forgets all but the newest `keep`.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn forget_changes(&self, keep: u32) -> Result<(), StoreError> {
        self.writer
            .write(move |connection| {
                let end = last(connection)?.saturating_sub(i64::from(keep));
                connection.prepare_cached("DELETE FROM changes WHERE seq <= ?1")?.execute([end])?;
                Ok(())
            })
            .await
    }
}

/// The number of the newest change ever; 0 when there was none.
pub(super) fn last(connection: &Connection) -> Result<i64, StoreError> {
    let query = "SELECT seq FROM sqlite_sequence WHERE name = 'changes'";
    let found = connection.prepare_cached(query)?.query_row([], |row| row.get(0)).optional()?;
    Ok(found.unwrap_or_default())
}

fn unsigned(seq: i64) -> u64 {
    u64::try_from(seq).unwrap_or_default()
}
