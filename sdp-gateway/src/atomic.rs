//! The only writer of files in this crate: a reader sees the old file or the new one, and after a crash too.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::iter;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Gid, Uid};

/// Start of the names of files under way. Web servers deny `.ht*` by default, so that none serves one as text.
const TEMPORARY: &str = ".ht-sdp-";

/// Mode of a file that was not there before. The gateway runs as another user and must read it.
const NEW_MODE: u32 = 0o644;

/// Puts `bytes` in place of `path`, keeping mode and owner of what was there: temporary file in the same directory,
/// fsync, rename, fsync of the directory, then read back and compared.
///
/// A file or directory without any write permission is refused, also where this user could override it: somebody
/// meant it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, regular(path)?.as_ref(), Sync::All)?;
    read_back(path, bytes)
}

/// As [`write`] for several files of one directory, one after another, but after a crash the earlier ones may be there
/// instead, whole, until [`sync`]. A path may be among them more than once.
pub(crate) fn write_unsynced(files: &[(&Path, &[u8])]) -> io::Result<()> {
    let prepare = |(path, bytes): &(&Path, &[u8])| prepare(path, bytes, regular(path)?.as_ref(), Sync::Content);
    // The disk has them all to do at once.
    let prepared: io::Result<Vec<_>> = thread::scope(|scope| {
        let Some((first, rest)) = files.split_first() else { return Ok(Vec::new()) };
        let rest: Vec<_> = rest.iter().map(|file| scope.spawn(|| prepare(file))).collect();
        let broken = |_| Err(io::Error::other("a file could not be written"));
        let rest = rest.into_iter().map(|writing| writing.join().unwrap_or_else(broken));
        iter::once(prepare(first)).chain(rest).collect()
    });
    for ((path, bytes), temporary) in files.iter().zip(prepared?) {
        temporary.put_in_place_of(path)?;
        read_back(path, bytes)?;
    }
    Ok(())
}

/// Makes sure that what was written into `path`'s directory is there after a crash.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(directory(path)?)?.sync_all()
}

fn read_back(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if read(path)?.as_deref() != Some(bytes) {
        return Err(io::Error::other("it does not read back as it was written; check the disk"));
    }
    Ok(())
}

/// As [`write`], with the mode and owner of the file `model`, so that a copy is readable for the same people.
pub(crate) fn write_like(model: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, regular(model)?.as_ref(), Sync::All)
}

/// As [`write`], for a file of the moment: whole for every reader, but not forced to the disk.
pub(crate) fn write_passing(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, None, Sync::Nothing)
}

/// What is forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    Nothing,
    /// What is in the file, before it gets its name.
    Content,
    /// That, and its name.
    All,
}

fn replace(path: &Path, bytes: &[u8], model: Option<&Metadata>, sync: Sync) -> io::Result<()> {
    prepare(path, bytes, model, sync)?.put_in_place_of(path)?;
    if sync == Sync::All { self::sync(path) } else { Ok(()) }
}

/// The whole file, under another name.
fn prepare(path: &Path, bytes: &[u8], model: Option<&Metadata>, sync: Sync) -> io::Result<Temporary> {
    let dir = directory(path)?;
    check_writable(dir, regular(path)?.as_ref())?;
    let temporary = Temporary { path: dir.join(format!("{TEMPORARY}{:032x}", rand::random::<u128>())) };
    let mut file = create(&temporary.path)?;
    file.write_all(bytes)?;
    keep(&file, model)?;
    if sync != Sync::Nothing {
        file.sync_all()?;
    }
    Ok(temporary)
}

/// Whether [`write`] would be refused for want of permission, without touching anything.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    check_writable(directory(path)?, regular(path)?.as_ref())
}

/// The file's bytes; none when there is no file. Refuses anything but a regular file.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if regular(path)?.is_none() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the file; none there is fine.
#[expect(clippy::disallowed_methods, reason = "this is the writer that the other modules must use")]
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what a killed process left in `dir`: files under way, and those whose name starts with `also`. Only to be
/// called while nobody else writes there.
pub(crate) fn sweep(dir: &Path, also: Option<&str>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(TEMPORARY) || also.is_some_and(|prefix| name.starts_with(prefix)) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn directory(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path has no directory"))
}

fn regular(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata)),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a link or a directory, not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn check_writable(dir: &Path, previous: Option<&Metadata>) -> io::Result<()> {
    let frozen = |metadata: &Metadata| metadata.permissions().mode() & 0o222 == 0;
    let refused = |reason| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    if previous.is_some_and(frozen) {
        return refused("the file is read-only; allow writing with `chmod u+w`");
    }
    if frozen(&fs::metadata(dir)?) {
        return refused("its directory is read-only; allow writing with `chmod u+w`");
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "this is the writer that the other modules must use")]
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn keep(file: &File, previous: Option<&Metadata>) -> io::Result<()> {
    let Some(previous) = previous else {
        return file.set_permissions(fs::Permissions::from_mode(NEW_MODE));
    };
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (previous.uid(), previous.gid()) {
        rustix::fs::fchown(file, Some(Uid::from_raw(previous.uid())), Some(Gid::from_raw(previous.gid())))?;
    }
    // After the owner, because changing the owner clears some modes.
    file.set_permissions(fs::Permissions::from_mode(previous.permissions().mode() & 0o7777))
}

/// A file under way, removed unless it was put in place.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    #[expect(clippy::disallowed_methods, reason = "this is the writer that the other modules must use")]
    fn put_in_place_of(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing is there any more once it was put in place.
        let _ = remove(&self.path);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests arrange files")]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn mode_and_owner_are_kept_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.php");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let before = fs::metadata(&path).unwrap();
        write(&path, b"new").unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(after.permissions().mode(), before.permissions().mode());
        assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
        assert_ne!(after.ino(), before.ino());
        assert_eq!(names(dir.path()), ["config.php"]);
    }

    #[test]
    fn a_foreign_owner_is_kept_where_this_user_may() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.php");
        fs::write(&path, "old").unwrap();
        let (uid, gid) = (Uid::from_raw(4242), Gid::from_raw(4243));
        if rustix::fs::chown(&path, Some(uid), Some(gid)).is_ok() {
            write(&path, b"new").unwrap();
            let after = fs::metadata(&path).unwrap();
            assert_eq!((after.uid(), after.gid()), (4242, 4243));
        }
    }

    #[test]
    fn read_only_files_and_directories_links_and_missing_directories_are_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.php");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        assert_eq!(write(&path, b"new").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();

        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
        assert_eq!(write(&path, b"new").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(check(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();

        let link = dir.path().join("link.php");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(write(&link, b"new").is_err());
        assert!(read(&link).is_err());
        assert_eq!(write(&dir.path().join("no/such.php"), b"x").unwrap_err().kind(), io::ErrorKind::NotFound);

        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["config.php", "link.php"]);
    }

    #[test]
    fn what_a_killed_process_left_is_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".ht-sdp-00", "probe-1.php", "config.php", ".htaccess"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        sweep(dir.path(), Some("probe-")).unwrap();
        assert_eq!(names(dir.path()), [".htaccess", "config.php"]);
    }
}
