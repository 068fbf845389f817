//! Which builds are removed: those that nothing runs or is about to run, but for the newest that
//! proved good.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::store::{BUILDING, DAMAGED, Lock};

/// In a build's folder: it ran and was healthy, last when this file was last changed.
const GOOD: &str = "good";
/// The end of the name of what is being removed.
const REMOVED: &str = ".removed";

/// Notes that what was built in `folder` has just proved good.
pub(super) fn mark_good(folder: &Path) -> io::Result<()> {
    match File::create(folder.join(GOOD)) {
        // Somebody removed what runs; that is theirs to put right.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        file => file?.set_modified(SystemTime::now()),
    }
}

/// Renames what is not needed, so that nobody finds it any more, and answers what to
/// [`remove`](fs::remove_dir_all). Needed are the keys in `in_use` and the `keep` newest good ones.
pub(super) fn sort_out(store: &Path, in_use: &BTreeSet<String>, keep: usize) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(store) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let (mut builds, mut doomed) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.ends_with(BUILDING) {
            // One that is to be had is one that a crash left.
            if let Some(_lock) = Lock::take(path.clone())? {
                doomed.extend(take_away(&path)?);
            }
        } else if name.ends_with(REMOVED) {
            doomed.push(path);
        } else if name.ends_with(DAMAGED) {
            let key = name.split('.').next().unwrap_or(name);
            if !in_use.contains(key) {
                doomed.push(path);
            }
        } else if !in_use.contains(name) {
            builds.push((good_since(&path)?, path));
        }
    }
    builds.sort();
    let good = builds.iter().filter(|(since, _)| since.is_some()).count();
    let bad = builds.len() - good;
    // Those without a time come first in the order, then the oldest.
    for (_, path) in builds.into_iter().take(bad + good.saturating_sub(keep)) {
        doomed.extend(take_away(&path)?);
    }
    Ok(doomed)
}

/// Gives a folder a name by which nobody looks for it; none when somebody else has.
fn take_away(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut name = path.to_owned().into_os_string();
    name.push(REMOVED);
    match fs::rename(path, &name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        renamed => renamed.map(|()| Some(name.into())),
    }
}

fn good_since(build: &Path) -> io::Result<Option<SystemTime>> {
    match fs::metadata(build.join(GOOD)) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        metadata => Ok(Some(metadata?.modified()?)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn build(store: &Path, name: &str, good: Option<u64>) {
        fs::create_dir_all(store.join(name).join("out")).unwrap();
        if let Some(second) = good {
            mark_good(&store.join(name)).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            File::options().write(true).open(store.join(name).join(GOOD)).unwrap().set_modified(time).unwrap();
        }
    }

    fn left(store: &Path, in_use: &[&str], keep: usize) -> Vec<String> {
        let in_use = in_use.iter().map(|key| (*key).to_owned()).collect();
        for path in sort_out(store, &in_use, keep).unwrap() {
            fs::remove_dir_all(path).unwrap();
        }
        let mut names: Vec<_> =
            fs::read_dir(store).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_newest_good_ones_and_those_in_use_stay() {
        let dir = tempfile::tempdir().unwrap();
        for (at, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            build(dir.path(), name, Some(at as u64));
        }
        build(dir.path(), "never-good", None);
        build(dir.path(), "about-to-run", None);
        assert_eq!(left(dir.path(), &["a", "about-to-run"], 2), ["a", "about-to-run", "d", "e"]);
        assert_eq!(left(dir.path(), &["a"], 0), ["a"]);
        assert!(sort_out(&dir.path().join("none"), &BTreeSet::new(), 1).unwrap().is_empty());
    }

    #[test]
    fn what_crashes_left_goes_unless_someone_has_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a.building/half")).unwrap();
        fs::create_dir_all(dir.path().join("b.building/half")).unwrap();
        for name in ["c.x.damaged", "d.x.damaged", "e.removed"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let building = Lock::take(dir.path().join("b.building")).unwrap().unwrap();
        assert_eq!(left(dir.path(), &["c"], 9), ["b.building", "c.x.damaged"]);
        drop(building);
        assert_eq!(left(dir.path(), &[], 9), [""; 0]);
    }
}
