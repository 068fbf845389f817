//! Repositories that stay open between looks at them: to open one takes libgit2 longer than most looks.

use std::{
    collections::BTreeMap,
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use git2::Repository;
use sdp_core::RepoError;

/// So many stay open, as each keeps its packs mapped.
const MAX_OPEN: usize = 32;

/// Repositories that nobody looks at right now. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Opened {
    idle: Arc<Mutex<BTreeMap<PathBuf, Kept>>>,
}

struct Kept {
    repo: Repository,
    identity: Identity,
}

/// What tells that a path leads to the same repository still, with the same packs.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    /// Device and inode of `.git`, a folder or, in a worktree, a file; of the repository itself where it is bare.
    place: (u64, u64),
    /// When a pack came or went last.
    packs: Option<SystemTime>,
}

impl Identity {
    fn of(path: &Path, repo: &Repository) -> Option<Self> {
        let place = fs::metadata(path.join(".git")).or_else(|_| fs::metadata(path)).ok()?;
        let packs = fs::metadata(repo.commondir().join("objects/pack")).and_then(|packs| packs.modified()).ok();
        Some(Self { place: (place.dev(), place.ino()), packs })
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened({} repositories)", self.idle().len())
    }
}

impl Opened {
    /// What `look` finds in the repository at `path`, or what `unopened` makes of why it cannot be opened. libgit2 reads
    /// references and objects anew each time; a repository that is another one by now, or whose packs changed, is opened
    /// anew, and so is one in which nothing is found.
    pub(crate) fn look<T>(
        &self,
        path: &Path,
        look: impl Fn(&Repository) -> Result<Option<T>, RepoError>,
        unopened: impl FnOnce(git2::Error) -> Result<Option<T>, RepoError>,
    ) -> Result<Option<T>, RepoError> {
        let known = self.idle().remove(path);
        if let Some(kept) = known
            && Identity::of(path, &kept.repo).as_ref() == Some(&kept.identity)
            && let Ok(Some(found)) = look(&kept.repo)
        {
            self.keep(path, kept);
            return Ok(Some(found));
        }
        let repo = match Repository::open(path) {
            Ok(repo) => repo,
            Err(error) => return unopened(error),
        };
        // Before the look: what changes meanwhile shows the next time.
        let identity = Identity::of(path, &repo);
        let found = look(&repo);
        if let (Ok(Some(_)), Some(identity)) = (&found, identity) {
            self.keep(path, Kept { repo, identity });
        }
        found
    }

    /// Closes the repository at `path`, which is about to go.
    pub(crate) fn close(&self, path: &Path) {
        self.idle().remove(path);
    }

    fn keep(&self, path: &Path, kept: Kept) {
        let mut idle = self.idle();
        if idle.len() >= MAX_OPEN {
            idle.pop_first();
        }
        idle.insert(path.to_owned(), kept);
    }

    fn idle(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Kept>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(opened: &Opened, path: &Path) -> Option<String> {
        let name = |repo: &Repository| {
            let head = repo.find_reference("HEAD").ok();
            Ok(head.and_then(|head| head.symbolic_target().ok().flatten().map(str::to_owned)))
        };
        opened.look(path, name, |_| Ok(None)).unwrap()
    }

    #[test]
    fn what_stays_open_is_as_it_is_now() {
        let (opened, dir) = (Opened::default(), tempfile::tempdir().unwrap());
        let path = dir.path().join("repo");
        assert_eq!(head(&opened, &path), None);
        let repo = Repository::init(&path).unwrap();
        repo.set_head("refs/heads/one").unwrap();
        assert_eq!(head(&opened, &path).as_deref(), Some("refs/heads/one"));
        assert_eq!(opened.idle().len(), 1);
        repo.set_head("refs/heads/two").unwrap();
        assert_eq!(head(&opened, &path).as_deref(), Some("refs/heads/two"));
        fs::rename(&path, dir.path().join("away")).unwrap();
        assert_eq!(head(&opened, &path), None);
        // Another kind of repository in its place.
        Repository::init_bare(&path).unwrap().set_head("refs/heads/three").unwrap();
        assert_eq!(head(&opened, &path).as_deref(), Some("refs/heads/three"));
        opened.close(&path);
        assert!(opened.idle().is_empty());
    }

    #[test]
    fn a_worktree_that_is_gone_is_gone_though_its_store_remembers_it() {
        let (opened, dir) = (Opened::default(), tempfile::tempdir().unwrap());
        let store = Repository::init(dir.path().join("store")).unwrap();
        let tree = store.treebuilder(None).and_then(|empty| store.find_tree(empty.write()?)).unwrap();
        let author = git2::Signature::now("a", "a@example.com").unwrap();
        store.commit(Some("HEAD"), &author, &author, "first", &tree, &[]).unwrap();
        let path = dir.path().join("worktree");
        store.worktree("one", &path, None).unwrap();
        assert_eq!(head(&opened, &path).as_deref(), Some("refs/heads/one"));
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(head(&opened, &path), None);
    }

    #[test]
    fn a_link_that_leads_elsewhere_leads_to_the_repository_there() {
        let (opened, dir) = (Opened::default(), tempfile::tempdir().unwrap());
        let path = dir.path().join("link");
        for name in ["one", "two"] {
            let repo = Repository::init(dir.path().join(name)).unwrap();
            repo.set_head(&format!("refs/heads/{name}")).unwrap();
            let _ = fs::remove_file(&path);
            std::os::unix::fs::symlink(dir.path().join(name), &path).unwrap();
            assert_eq!(head(&opened, &path), Some(format!("refs/heads/{name}")));
        }
    }

    #[test]
    fn so_many_stay_open_and_no_more() {
        let (opened, dir) = (Opened::default(), tempfile::tempdir().unwrap());
        for number in 0..MAX_OPEN + 2 {
            let path = dir.path().join(number.to_string());
            Repository::init(&path).unwrap();
            assert!(head(&opened, &path).is_some());
        }
        assert_eq!(opened.idle().len(), MAX_OPEN);
    }
}
