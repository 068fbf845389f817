//! The builds of one repo, in a folder that all of its checkouts on this machine share.
//!
//! - `<key>` is a finished build. It gets that name when all of it is on the disk, and is never
//!   written to afterwards.
//! - `<key>.building` belongs to who holds a lock on it, which ends with its process: whatever a
//!   crash left there is nobody's.
//! - `<key>.<deployment>.damaged` was a build and may still be mounted by who runs from it.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use sdp_core::DeploymentId;

use super::{
    key::BuildKey,
    seal::{self, Damage, OUT},
};

/// The end of the name of a folder that is being filled.
pub(super) const BUILDING: &str = ".building";
/// The end of the name of what was a build.
pub(super) const DAMAGED: &str = ".damaged";

/// What a store has for a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// A build: where what it made is.
    Whole(PathBuf),
    /// Something that is no build any more.
    Damaged(Damage),
    /// Nothing.
    Nothing,
}

/// The store of one repo.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) dir: PathBuf,
}

impl Store {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn folder(&self, key: &BuildKey) -> PathBuf {
        self.dir.join(key.as_str())
    }

    pub(super) fn look(&self, key: &BuildKey) -> io::Result<Kept> {
        let folder = self.folder(key);
        if !folder.try_exists()? {
            return Ok(Kept::Nothing);
        }
        Ok(match seal::check(&folder)? {
            Ok(()) => Kept::Whole(folder.join(OUT)),
            Err(damage) => Kept::Damaged(damage),
        })
    }

    /// Takes the right to build a key; none while someone else has it.
    pub(super) fn try_lock(&self, key: &BuildKey) -> io::Result<Option<Lock>> {
        let folder = self.dir.join(format!("{key}{BUILDING}"));
        fs::create_dir_all(&folder)?;
        Lock::take(folder)
    }
}

/// The right to build one key, for as long as this lives. What was not kept by then is removed.
#[derive(Debug)]
pub(super) struct Lock {
    folder: PathBuf,
    /// Locked; another process finds it so too.
    _file: File,
}

impl Lock {
    /// Locks a folder that is there; none when someone else has it, or it has just gone.
    pub(super) fn take(folder: PathBuf) -> io::Result<Option<Self>> {
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let file = match File::open(&folder) {
            Err(error) if gone(&error) => return Ok(None),
            file => file?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Who had it before has removed it, and perhaps someone has made another since.
        let (locked, now) = (file.metadata()?, fs::metadata(&folder));
        match now {
            Ok(now) if (now.dev(), now.ino()) == (locked.dev(), locked.ino()) => Ok(Some(Self { folder, _file: file })),
            Err(error) if !gone(&error) => Err(error),
            _ => Ok(None),
        }
    }

    /// A folder to build into: it has an empty [`OUT`], and no one else writes to it, not even what a
    /// crashed build of the same key left running.
    pub(super) fn stage(&self, deployment: DeploymentId) -> io::Result<PathBuf> {
        for entry in fs::read_dir(&self.folder)? {
            fs::remove_dir_all(entry?.path())?;
        }
        let stage = self.folder.join(deployment.to_string());
        fs::create_dir_all(stage.join(OUT))?;
        Ok(stage)
    }

    /// Keeps a finished build as `target`. A damaged one there is moved out of the way: what has it
    /// mounted goes on.
    pub(super) fn keep(self, stage: &Path, target: &Path) -> io::Result<()> {
        seal::seal(stage)?;
        if target.try_exists()? {
            let unique = stage.file_name().unwrap_or_default().to_string_lossy();
            let mut aside = target.to_owned().into_os_string();
            aside.push(format!(".{unique}{DAMAGED}"));
            fs::rename(target, aside)?;
        }
        fs::rename(stage, target)?;
        target.parent().map_or(Ok(()), |store| File::open(store)?.sync_all())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // What cannot be removed now is by whoever prunes next.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_builds_a_key_at_a_time_and_leaves_nothing_when_it_gives_up() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("builds"));
        let (one, two) = (BuildKey::of("one"), BuildKey::of("two"));
        let lock = store.try_lock(&one).unwrap().unwrap();
        assert!(store.try_lock(&one).unwrap().is_none());
        assert!(store.try_lock(&two).unwrap().is_some(), "another key is another matter");
        fs::write(lock.stage(DeploymentId::new()).unwrap().join("out/half"), "half").unwrap();
        drop(lock);
        assert_eq!(store.look(&one).unwrap(), Kept::Nothing);
        assert_eq!(fs::read_dir(&store.dir).unwrap().count(), 0);
        assert!(store.try_lock(&one).unwrap().is_some());
    }

    #[test]
    fn a_lock_on_a_folder_that_was_removed_meanwhile_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_owned());
        let key = BuildKey::of("key");
        let first = store.try_lock(&key).unwrap().unwrap();
        let late = File::open(&first.folder).unwrap();
        drop(first);
        late.try_lock().unwrap();
        let second = store.try_lock(&key).unwrap();
        assert!(second.is_some(), "the one that was removed is in nobody's way");
    }

    #[test]
    fn what_is_kept_is_whole_and_what_is_damaged_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_owned());
        let key = BuildKey::of("key");
        let build = || {
            let lock = store.try_lock(&key).unwrap().unwrap();
            let stage = lock.stage(DeploymentId::new()).unwrap();
            fs::write(stage.join("out/program"), "x").unwrap();
            lock.keep(&stage, &store.folder(&key)).unwrap();
            assert_eq!(store.look(&key).unwrap(), Kept::Whole(dir.path().join("key/out")));
        };
        build();
        assert_eq!(fs::read_dir(&store.dir).unwrap().count(), 1, "and nothing else is left");
        fs::remove_file(dir.path().join("key/out/program")).unwrap();
        assert!(matches!(store.look(&key).unwrap(), Kept::Damaged(_)));
        build();
        assert_eq!(fs::read_dir(&store.dir).unwrap().count(), 2, "the damaged one is set aside");
    }
}
