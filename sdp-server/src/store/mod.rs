//! The control plane's metadata, in one SQLite database. One file per aggregate; there is no SQL
//! outside this module.
//!
//! - What a write answered survives a crash and a power loss (WAL, `synchronous=FULL`).
//! - One thread writes; what waits is committed together. Reads go through a few connections of
//!   their own and see every write that was answered before.
//! - Migrations go forward only, after the database was copied to `backups/` beside it. One of a newer version is
//!   refused.

mod agents;
mod audit;
mod before_upgrade;
mod changes;
mod deployments;
mod environments;
mod error;
mod fold;
mod idempotency;
#[cfg(test)]
mod migration_tests;
mod people;
mod ports;
#[cfg(test)]
mod ports_tests;
mod pull_requests;
mod queue;
#[cfg(test)]
mod queue_tests;
mod readers;
mod retirements;
mod routing;
#[cfg(test)]
mod sandbox_tests;
mod sandboxes;
mod templates;
#[cfg(test)]
pub(crate) mod tests;
mod values;
mod version;
mod writer;

use std::{path::Path, sync::Arc, time::Duration};

use rusqlite::{Connection, ErrorCode as SqliteCode};
use rusqlite_migration::{M, MigrationDefinitionError, Migrations};

pub use self::{
    audit::Deed,
    changes::Changes,
    error::StoreError,
    idempotency::{Answer, Once, RequestId},
    people::UserRecord,
    ports::{PortChoice, PortHolder},
    routing::Claim,
    sandboxes::{Removal, SandboxRecord},
    version::{Expected, Version},
};
pub(crate) use self::{
    pull_requests::{PullRequestKey, PullRequestRecord, Received},
    queue::{Happening, NewTask, Task},
    routing::RoutesSet,
    values::{now, to_json},
};
use self::{readers::Readers, writer::Writer};

const MIGRATIONS: &[M<'static>] = &[
    M::up(include_str!("migrations/0001_initial.sql")),
    M::up(include_str!("migrations/0002_lifecycle.sql")),
    M::up(include_str!("migrations/0003_ports.sql")),
    M::up(include_str!("migrations/0004_audit.sql")),
    M::up(include_str!("migrations/0005_routing.sql")),
    M::up(include_str!("migrations/0006_rollback.sql")),
    M::up(include_str!("migrations/0007_claims.sql")),
    M::up(include_str!("migrations/0008_people.sql")),
    M::up(include_str!("migrations/0009_changes.sql")),
    M::up(include_str!("migrations/0010_idempotency.sql")),
    M::up(include_str!("migrations/0011_deliveries.sql")),
    M::up(include_str!("migrations/0012_agents_deployments.sql")),
];

/// The database. Clones share everything.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Writer,
    readers: Readers,
}

impl Store {
    /// Opens the database at `path`, makes it when it is absent, and brings its schema up to date; one that has data is
    /// copied to `backups/` first.
    ///
    /// # Errors
    /// [`StoreError::Newer`], [`StoreError::Corrupt`], [`StoreError::Open`], [`StoreError::Backup`],
    /// [`StoreError::Migrate`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = Connection::open(path).map_err(|error| open_error(path, error))?;
        prepare(&connection).map_err(|error| open_error(path, error))?;
        let damage: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| open_error(path, error))?;
        if damage != "ok" {
            return Err(StoreError::Corrupt { path: path.into(), reason: damage });
        }
        before_upgrade::keep_copy(&connection, path, MIGRATIONS.len())?;
        migrations().to_latest(&mut connection).map_err(|error| match error {
            rusqlite_migration::Error::MigrationDefinition(MigrationDefinitionError::DatabaseTooFarAhead) => {
                StoreError::Newer(path.into())
            }
            source => StoreError::Migrate { path: path.into(), source: Arc::new(source) },
        })?;
        routing::give_missing_keys(&connection)?;
        let readers = Readers::open(path)?;
        Ok(Self { writer: Writer::start(connection), readers })
    }

    /// Changes whenever something was written.
    pub(crate) fn commits(&self) -> tokio::sync::watch::Receiver<()> {
        self.writer.commits()
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError`] says why it does not.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.readers.read(|connection| Ok(connection.query_row("PRAGMA schema_version", [], |_| Ok(()))?)).await
    }
}

fn migrations() -> Migrations<'static> {
    Migrations::from_slice(MIGRATIONS)
}

/// How many prepared statements a connection keeps: about all there are, as another would be prepared anew each time.
const STATEMENTS: usize = 128;

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)
}

fn open_error(path: &Path, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(SqliteCode::NotADatabase | SqliteCode::DatabaseCorrupt) => {
            StoreError::Corrupt { path: path.into(), reason: error.to_string() }
        }
        _ => StoreError::Open { path: path.into(), source: Arc::new(error) },
    }
}
