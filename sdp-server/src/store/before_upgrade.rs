//! A copy of the database as it was, before a newer version changes its schema: migrations only go forward.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use rusqlite::Connection;

use super::StoreError;

/// Beside the database.
const FOLDER: &str = "backups";
/// How many copies are kept.
const KEPT: usize = 3;

/// Copies the database at `path` to `backups/` beside it, if it has data and is to be brought up to version `latest`,
/// and removes all copies but the newest.
pub(super) fn keep_copy(connection: &Connection, path: &Path, latest: usize) -> Result<(), StoreError> {
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 || version as usize >= latest {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("")).join(FOLDER);
    let failed = |copy: &Path, source: Arc<dyn std::error::Error + Send + Sync>| {
        let path = copy.to_owned();
        StoreError::Backup { path, source }
    };
    // Sandboxes' variables are in it.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|error| failed(&folder, Arc::new(error)))?;
    let at = Timestamp::now().strftime("%Y%m%dT%H%M%S%.6fZ");
    // By name the oldest comes first, whatever its schema.
    let copy = folder.join(format!("sdp-{at}-schema-{version}.db"));
    let partial = copy.with_added_extension("partial");
    empty(&partial).map_err(|error| failed(&partial, Arc::new(error)))?;
    // One transaction: the copy is of one moment, and compact.
    let copied = connection.execute("VACUUM INTO ?1", [partial.to_string_lossy()]);
    copied.map_err(|error| {
        // On a full disk it would be in the way of the next attempt.
        let _ = fs::remove_file(&partial);
        failed(&partial, Arc::new(error))
    })?;
    let synced = File::open(&partial).and_then(|file| file.sync_all()).and_then(|()| fs::rename(&partial, &copy));
    synced.and_then(|()| File::open(&folder)?.sync_all()).map_err(|error| failed(&copy, Arc::new(error)))?;
    tracing::info!(copy = %copy.display(), from = version, to = latest, "the database is copied and will be upgraded");
    if let Err(error) = prune(&folder) {
        tracing::warn!(folder = %folder.display(), %error, "older copies of the database could not be removed");
    }
    Ok(())
}

/// An empty file that nobody else may read: SQLite writes into it as it is.
fn empty(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map(drop)
}

fn prune(folder: &Path) -> io::Result<()> {
    let mut copies: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sdp-")))
        .collect();
    copies.sort();
    let wrecks = copies.iter().filter(|path| path.extension().is_some_and(|extension| extension == "partial"));
    let whole = copies.iter().filter(|path| path.extension().is_some_and(|extension| extension == "db"));
    let old = whole.rev().skip(KEPT);
    wrecks.chain(old).try_for_each(fs::remove_file)
}
