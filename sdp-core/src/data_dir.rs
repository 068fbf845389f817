//! A daemon's own directory: made when it is absent, and locked, so that two daemons never share one.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// A child that is being started shares the lock for a moment, also when its parent is gone.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// Why a data directory cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// The operating system refused.
    #[error("failed to {action} {}; check `data_dir` and its permissions", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error("{} is in use; end the other daemon that runs with it, or give each its own `data_dir`", .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// Keeps other daemons off a directory until it is dropped, or its process ends in whatever way.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

impl DataDirLock {
    /// Makes the directory and locks it. Blocks for half a second at most.
    ///
    /// # Errors
    /// [`DataDirError`].
    ///
    /// ```
    /// use sdp_core::data_dir::{DataDirError, DataDirLock};
    /// let dir = std::env::temp_dir().join(format!("sdp-{}", std::process::id()));
    /// let lock = DataDirLock::take(&dir)?;
    /// assert!(matches!(DataDirLock::take(&dir), Err(DataDirError::InUse { .. })));
    /// drop(lock);
    /// DataDirLock::take(&dir)?;
    /// # std::fs::remove_dir_all(&dir).ok();
    /// # Ok::<(), DataDirError>(())
    /// ```
    pub fn take(dir: &Path) -> Result<Self, DataDirError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { action, path, source }
        };
        fs::create_dir_all(dir).map_err(failed("create", dir))?;
        let path = dir.join("lock");
        let file =
            File::options().write(true).create(true).truncate(false).open(&path).map_err(failed("open", &path))?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
            }
        }
        Err(DataDirError::InUse { path: dir.into() })
    }
}
