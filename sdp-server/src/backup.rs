//! Backups: the database and the logs as they are at one moment, in a directory that can be checked and restored.
//!
//! A backup is made while the server runs. It holds `sdp.db`, every log up to its last whole line, and `manifest.json` with the size and SHA-256 of each file, which is written last: without it there is
//! no backup. Events that come while it is made are in the logs and not in the database: a server that starts from it
//! catches up.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};
use sdp_core::data_dir::{DataDirError, DataDirLock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const DATABASE: &str = "sdp.db";
const LOGS: &str = "logs";
const MANIFEST: &str = "manifest.json";

/// Why a backup was not made, or cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The operating system refused.
    #[error("failed to {action} {}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database cannot be copied or checked.
    #[error("the database {} cannot be {action}", .path.display())]
    Database {
        /// What was tried, as a participle.
        action: &'static str,
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The place of a backup is taken.
    #[error("{} exists already; give another directory", .0.display())]
    Exists(PathBuf),
    /// The data directory is in use, or cannot be had.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is data where a backup is to be restored.
    #[error("{} has data already; move it away first, or restore into another `data_dir`", .0.display())]
    NotEmpty(PathBuf),
    /// The backup is not whole.
    #[error("{} is no whole backup: {reason}", .path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the server that made it.
    pub version: String,
    /// When.
    pub made_at: Timestamp,
    /// Its files, by their path in it.
    pub files: BTreeMap<String, Sum>,
}

/// What a file of a backup must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Its size.
    pub bytes: u64,
    /// In hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// How much it is in all.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|sum| sum.bytes).sum()
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { action, path, source }
}

/// Makes a backup of a data directory, in use or not, in a directory that is made for it. Blocks.
///
/// # Errors
/// [`BackupError`]; then there is no backup.
pub fn create(data_dir: &Path, to: &Path) -> Result<Manifest, BackupError> {
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let partial = to.with_added_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(failed("remove", &partial))?;
    }
    let logs = partial.join(LOGS);
    fs::create_dir_all(&logs).map_err(failed("make", &logs))?;
    // Sandboxes' variables are in it.
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o700)).map_err(failed("protect", &partial))?;

    // The database first: what it knows of is in the logs by then.
    let mut files = BTreeMap::new();
    let (database, copy) = (data_dir.join(DATABASE), partial.join(DATABASE));
    copy_database(&database, &copy)?;
    files.insert(DATABASE.to_owned(), sum(&copy)?);
    let from = data_dir.join(LOGS);
    for entry in fs::read_dir(&from).map_err(failed("read", &from))? {
        let path = entry.map_err(failed("read", &from))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".log")) else {
            continue;
        };
        match copy_log(&path, &logs.join(name)) {
            // Retention removed it meanwhile.
            Err(BackupError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            copied => drop(files.insert(format!("{LOGS}/{name}"), copied?)),
        }
    }
    let manifest = Manifest { version: env!("CARGO_PKG_VERSION").into(), made_at: Timestamp::now(), files };
    let path = partial.join(MANIFEST);
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| failed("write", &path)(error.into()))?;
    let mut file = File::create(&path).map_err(failed("write", &path))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed("write", &path))?;
    fs::rename(&partial, to).map_err(failed("rename", &partial))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed("sync", parent))?;
    Ok(manifest)
}

fn copy_database(from: &Path, to: &Path) -> Result<(), BackupError> {
    let failed = |action| {
        let path = from.to_owned();
        move |source| BackupError::Database { action, path, source }
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(from, flags).map_err(failed("opened"))?;
    connection.busy_timeout(std::time::Duration::from_secs(30)).map_err(failed("opened"))?;
    // One transaction: the copy is of one moment, and compact.
    connection.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map_err(failed("copied"))?;
    Ok(())
}

/// Copies a log up to its last whole line: the rest is being written.
fn copy_log(from: &Path, to: &Path) -> Result<Sum, BackupError> {
    let mut reader = BufReader::new(File::open(from).map_err(failed("read", from))?);
    let mut writer = BufWriter::new(File::create(to).map_err(failed("write", to))?);
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut pending = Vec::new();
    let mut chunk = vec![0; 256 * 1024];
    loop {
        let read = reader.read(&mut chunk).map_err(failed("read", from))?;
        if read == 0 {
            break;
        }
        pending.extend_from_slice(&chunk[..read]);
        if let Some(end) = memchr::memrchr(b'\n', &pending) {
            let whole = &pending[..=end];
            writer.write_all(whole).map_err(failed("write", to))?;
            hash.update(whole);
            bytes += whole.len() as u64;
            pending.drain(..=end);
        }
    }
    let file = writer.into_inner().map_err(|error| failed("write", to)(error.into_error()))?;
    file.sync_all().map_err(failed("write", to))?;
    Ok(Sum { bytes, sha256: hex(&hash.finalize()) })
}

fn sum(path: &Path) -> Result<Sum, BackupError> {
    let mut file = File::open(path).map_err(failed("read", path))?;
    let mut hash = Sha256::new();
    let (mut bytes, mut chunk) = (0, vec![0; 256 * 1024]);
    loop {
        let read = file.read(&mut chunk).map_err(failed("read", path))?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
        bytes += read as u64;
    }
    file.sync_all().map_err(failed("sync", path))?;
    Ok(Sum { bytes, sha256: hex(&hash.finalize()) })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks that a backup is whole: every file as its manifest says, the database in order. Blocks.
///
/// # Errors
/// [`BackupError::Damaged`] says what is wrong.
pub fn check(backup: &Path) -> Result<Manifest, BackupError> {
    let damaged = |reason: String| BackupError::Damaged { path: backup.to_owned(), reason };
    let path = backup.join(MANIFEST);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(format!("it has no {MANIFEST}")));
        }
        text => text.map_err(failed("read", &path))?,
    };
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| damaged(format!("its {MANIFEST} cannot be read: {error}")))?;
    for (name, wanted) in &manifest.files {
        let is_ours = name == DATABASE || name.strip_prefix("logs/").is_some_and(|name| !name.contains(['/', '\\']));
        if !is_ours || name.contains("..") {
            return Err(damaged(format!("its {MANIFEST} names a file that no backup has: {name}")));
        }
        let found = sum(&backup.join(name)).map_err(|error| damaged(sdp_core::problem::chain(&error)))?;
        if found != *wanted {
            return Err(damaged(format!("{name} is not as it was written")));
        }
    }
    if !manifest.files.contains_key(DATABASE) {
        return Err(damaged(format!("it has no {DATABASE}")));
    }
    let path = backup.join(DATABASE);
    let failed = |source| BackupError::Database { action: "checked", path: path.clone(), source };
    let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if found != "ok" {
        return Err(damaged(format!("{DATABASE}: {found}")));
    }
    Ok(manifest)
}

/// Puts a backup, once checked, into a data directory that has no data. No server may use it meanwhile. Blocks.
///
/// # Errors
/// [`BackupError`]; then the directory has no database.
pub fn restore(backup: &Path, data_dir: &Path) -> Result<Manifest, BackupError> {
    let manifest = check(backup)?;
    let _lock = DataDirLock::take(data_dir)?;
    let (database, logs) = (data_dir.join(DATABASE), data_dir.join(LOGS));
    let has_logs = fs::read_dir(&logs).is_ok_and(|mut entries| entries.next().is_some());
    // A journal of another database would be played into this one.
    let left = ["sdp.db-wal", "sdp.db-shm", "sdp.db-journal"].iter().any(|name| data_dir.join(name).exists());
    if database.exists() || left || has_logs {
        return Err(BackupError::NotEmpty(data_dir.to_owned()));
    }
    fs::create_dir_all(&logs).map_err(failed("make", &logs))?;
    // The database last: a server that is started in between would make a new one, and finds none.
    let names = manifest.files.keys().filter(|name| *name != DATABASE);
    for name in names {
        copy(&backup.join(name), &data_dir.join(name))?;
    }
    let partial = data_dir.join("sdp.db.partial");
    copy(&backup.join(DATABASE), &partial)?;
    fs::rename(&partial, &database).map_err(failed("rename", &partial))?;
    for dir in [&logs, data_dir] {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))?;
    }
    Ok(manifest)
}

fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    fs::copy(from, to).map_err(failed("copy", from))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(failed("write", to))
}

#[cfg(test)]
mod tests {
    use sdp_core::DeploymentId;

    use super::*;
    use crate::Store;

    /// A data directory with an agent, a log, and a log whose last line is being written.
    async fn data(dir: &Path) -> [String; 2] {
        fs::create_dir_all(dir.join(LOGS)).unwrap();
        let store = Store::open(&dir.join(DATABASE)).unwrap();
        crate::auth::enrol(&store, &"micro".parse().unwrap()).await.unwrap();
        let names = [(); 2].map(|()| format!("logs/{}.log", DeploymentId::new()));
        fs::write(dir.join(&names[0]), "{\"seq\":1}\n{\"seq\":2}\n").unwrap();
        fs::write(dir.join(&names[1]), "{\"seq\":1}\n{\"se").unwrap();
        names
    }

    #[tokio::test]
    async fn what_is_backed_up_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (from, backup, to) = (dir.path().join("data"), dir.path().join("backup"), dir.path().join("restored"));
        let names = data(&from).await;
        // It is made while a server has the directory.
        let lock = DataDirLock::take(&from).unwrap();
        let made = create(&from, &backup).unwrap();
        drop(lock);
        assert_eq!(made.files.len(), 3);
        assert!(matches!(create(&from, &backup), Err(BackupError::Exists(_))));
        assert_eq!(check(&backup).unwrap(), made);
        assert_eq!(restore(&backup, &to).unwrap(), made);
        let agents = Store::open(&to.join(DATABASE)).unwrap().agents().await.unwrap();
        assert_eq!(agents[0].0.as_str(), "micro");
        assert_eq!(fs::read_to_string(to.join(&names[0])).unwrap(), "{\"seq\":1}\n{\"seq\":2}\n");
        assert_eq!(fs::read_to_string(to.join(&names[1])).unwrap(), "{\"seq\":1}\n", "whole lines only");
        assert!(matches!(restore(&backup, &to), Err(BackupError::NotEmpty(_))));
        let leftover = dir.path().join("leftover");
        fs::create_dir(&leftover).unwrap();
        fs::write(leftover.join("sdp.db-wal"), "of another").unwrap();
        assert!(matches!(restore(&backup, &leftover), Err(BackupError::NotEmpty(_))));
        let busy = dir.path().join("busy");
        let _lock = DataDirLock::take(&busy).unwrap();
        assert!(matches!(restore(&backup, &busy), Err(BackupError::DataDir(_))));
    }

    #[tokio::test]
    async fn a_damaged_backup_is_refused_whatever_is_wrong_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("data");
        let names = data(&from).await;
        let spoilt = |what: &str, spoil: &dyn Fn(&Path)| {
            let backup = dir.path().join(what);
            create(&from, &backup).unwrap();
            spoil(&backup);
            let to = dir.path().join(format!("{what}-restored"));
            let refused = restore(&backup, &to).unwrap_err();
            assert!(matches!(refused, BackupError::Damaged { .. }), "{what}: {refused}");
            assert!(!to.join(DATABASE).exists());
        };
        spoilt("no-manifest", &|backup| fs::remove_file(backup.join(MANIFEST)).unwrap());
        spoilt("no-log", &|backup| fs::remove_file(backup.join(&names[0])).unwrap());
        spoilt("changed", &|backup| fs::write(backup.join(&names[0]), "{\"seq\":1}\n{\"seq\":3}\n").unwrap());
        spoilt("outside", &|backup| {
            let text = fs::read_to_string(backup.join(MANIFEST)).unwrap();
            fs::write(backup.join(MANIFEST), text.replace(&names[0], "logs/../../x.log")).unwrap();
        });
    }
}
