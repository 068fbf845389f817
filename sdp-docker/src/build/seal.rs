//! How a finished build is told from one that is half written, damaged or changed since: by a list
//! of what is in it, written last.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Where, in a build's folder, what the build made is.
pub(super) const OUT: &str = "out";

/// The list, beside it.
const LIST: &str = "list.json";

/// Above so many files one sync of the whole file system is cheaper than one of each.
const FEW_FILES: usize = 64;

/// What is in a build, by its path in it.
type Listing = BTreeMap<String, Entry>;

/// One thing in a build. Times tell changes that keep the size.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Entry {
    File { mode: u32, size: u64, modified: (i64, i64) },
    Folder,
    Link { target: String },
    Other,
}

/// Why a build cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage(pub(super) String);

/// Whether a build made anything.
pub(super) fn is_empty(folder: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(folder.join(OUT))?.next().is_none())
}

/// Has all of a finished build on the disk, safe from being written to by who runs it, and listed.
pub(super) fn seal(folder: &Path) -> io::Result<()> {
    let out = folder.join(OUT);
    let paths = walk(&out)?;
    let files: Vec<_> = paths.iter().filter(|(_, metadata)| metadata.is_file()).collect();
    for (path, metadata) in &files {
        let mut permissions = metadata.permissions();
        permissions.set_mode(permissions.mode() & !0o222);
        fs::set_permissions(path, permissions)?;
    }
    let listing = serde_json::to_vec(&list(&out)?)?;
    let mut list = File::create(folder.join(LIST))?;
    list.write_all(&listing)?;
    list.sync_all()?;
    if files.len() > FEW_FILES {
        rustix::fs::syncfs(&list)?;
        return Ok(());
    }
    for (path, _) in &files {
        File::open(path)?.sync_all()?;
    }
    let folders = paths.iter().filter(|(_, metadata)| metadata.is_dir()).map(|(path, _)| path.as_path());
    for path in folders.chain([out.as_path(), folder]) {
        File::open(path)?.sync_all()?;
    }
    Ok(())
}

/// Whether a build is what was sealed.
pub(super) fn check(folder: &Path) -> io::Result<Result<(), Damage>> {
    let damage = |text: String| Ok(Err(Damage(text)));
    let text = match fs::read(folder.join(LIST)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return damage("it was never finished".into()),
        text => text?,
    };
    let Ok(sealed) = serde_json::from_slice::<Listing>(&text) else {
        return damage(format!("its {LIST} cannot be read"));
    };
    let found = match list(&folder.join(OUT)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Listing::new(),
        found => found?,
    };
    if let Some((path, _)) = sealed.iter().find(|(path, entry)| found.get(*path) != Some(entry)) {
        let how = if found.contains_key(path) { "has changed" } else { "is missing" };
        return damage(format!("{path} {how}"));
    }
    match found.keys().find(|path| !sealed.contains_key(*path)) {
        Some(path) => damage(format!("{path} was added")),
        None => Ok(Ok(())),
    }
}

fn list(root: &Path) -> io::Result<Listing> {
    let mut listing = Listing::new();
    for (path, metadata) in walk(root)? {
        let entry = if metadata.is_file() {
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            Entry::File { mode: metadata.mode(), size: metadata.size(), modified }
        } else if metadata.is_dir() {
            Entry::Folder
        } else if metadata.is_symlink() {
            Entry::Link { target: printable(&fs::read_link(&path)?) }
        } else {
            Entry::Other
        };
        listing.insert(printable(path.strip_prefix(root).unwrap_or(&path)), entry);
    }
    Ok(listing)
}

/// Any path as text, two different ones as different texts.
fn printable(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}

fn walk(root: &Path) -> io::Result<Vec<(PathBuf, fs::Metadata)>> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, metadata) = (entry.path(), entry.metadata()?);
            if metadata.is_dir() {
                folders.push(path.clone());
            }
            found.push((path, metadata));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("out/lib")).unwrap();
        fs::write(dir.path().join("out/program"), "program").unwrap();
        fs::write(dir.path().join("out/lib/a"), "a").unwrap();
        std::os::unix::fs::symlink("lib/a", dir.path().join("out/link")).unwrap();
        seal(dir.path()).unwrap();
        dir
    }

    #[test]
    fn what_was_sealed_is_whole_and_its_files_are_not_to_be_written() {
        let dir = sealed();
        assert_eq!(check(dir.path()).unwrap(), Ok(()));
        let mode = fs::metadata(dir.path().join("out/program")).unwrap().permissions().mode();
        assert_eq!(mode & 0o222, 0, "{mode:o}");
        let moved = tempfile::tempdir().unwrap();
        fs::rename(dir.path(), moved.path().join("elsewhere")).unwrap();
        assert_eq!(check(&moved.path().join("elsewhere")).unwrap(), Ok(()));
    }

    #[test]
    fn many_files_are_sealed_too() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("out")).unwrap();
        for n in 0..=FEW_FILES {
            fs::write(dir.path().join(format!("out/{n}")), "x").unwrap();
        }
        seal(dir.path()).unwrap();
        assert_eq!(check(dir.path()).unwrap(), Ok(()));
    }

    type Harm = fn(&Path);

    #[test]
    fn whatever_happened_to_it_is_noticed() {
        let harms: [(&str, Harm); 9] = [
            ("lib/a is missing", |dir| fs::remove_file(dir.join("out/lib/a")).unwrap()),
            ("lib/a has changed", |dir| {
                fs::remove_file(dir.join("out/lib/a")).unwrap();
                fs::write(dir.join("out/lib/a"), "b").unwrap();
            }),
            ("program has changed", |dir| {
                fs::File::options().write(true).open(dir.join("out/program")).map_or_else(
                    // Who may not write at all has done no harm: cut it by replacing it.
                    |_| {
                        fs::remove_file(dir.join("out/program")).unwrap();
                        fs::write(dir.join("out/program"), "prog").unwrap();
                    },
                    |file| file.set_len(4).unwrap(),
                )
            }),
            ("link has changed", |dir| {
                fs::remove_file(dir.join("out/link")).unwrap();
                std::os::unix::fs::symlink("lib/b", dir.join("out/link")).unwrap();
            }),
            ("more was added", |dir| fs::write(dir.join("out/more"), "").unwrap()),
            ("is missing", |dir| fs::remove_dir_all(dir.join("out")).unwrap()),
            ("cannot be read", |dir| fs::write(dir.join(LIST), "{\"half").unwrap()),
            ("cannot be read", |dir| fs::write(dir.join(LIST), "").unwrap()),
            ("never finished", |dir| fs::remove_file(dir.join(LIST)).unwrap()),
        ];
        for (told, harm) in harms {
            let dir = sealed();
            harm(dir.path());
            let Err(Damage(text)) = check(dir.path()).unwrap() else { panic!("not noticed: {told}") };
            assert!(text.contains(told), "{told}: {text}");
        }
    }
}
