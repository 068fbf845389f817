//! One change at a time, across tasks and processes: an advisory lock on `.sdp/lock`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, sleep};

/// Pause between attempts; the kernel tells no one when a lock becomes free.
const PAUSE: Duration = Duration::from_millis(5);

/// Proof that this process may change the gateway's files. Released when dropped, and by the kernel when the process
/// dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Why the lock was not got.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("another process kept it for {waited:?}; wait for it, or see with `fuser {}` which one it is and end it", .path.display())]
    Held { path: PathBuf, waited: Duration },
    #[error("the lock file cannot be used")]
    Io(#[from] io::Error),
}

impl Lock {
    /// Waits for the lock, at most for `timeout`.
    pub(crate) async fn acquire(path: &Path, timeout: Duration) -> Result<Self, LockError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(lock) = Self::attempt(path)? {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                return Err(LockError::Held { path: path.to_owned(), waited: timeout });
            }
            sleep(PAUSE).await;
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a lock file is opened to be locked; nothing is ever written to it")]
    fn attempt(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // A file that was replaced meanwhile is locked by no one but us, and means nothing.
        let ours = file.metadata()?;
        let current = fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino()));
        Ok(current.then_some(Self { _file: file }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_held_lock_is_waited_for_and_then_told_with_a_cure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::acquire(&path, Duration::ZERO).await.unwrap();
        let error = Lock::acquire(&path, Duration::from_millis(20)).await.unwrap_err();
        assert!(error.to_string().contains("fuser"), "{error}");
        let waiting = tokio::spawn({
            let path = path.clone();
            async move { Lock::acquire(&path, Duration::from_secs(30)).await.map(drop) }
        });
        tokio::task::yield_now().await;
        drop(held);
        waiting.await.unwrap().unwrap();
    }
}
