//! Repositories that stay open between looks at them: to open one takes libgit2 longer than most looks.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use git2::Repository;
use sdp_core::RepoError;

/// So many stay open, as each keeps its packs mapped.
const MAX_OPEN: usize = 32;

/// Repositories that nobody looks at right now. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Opened {
    idle: Arc<Mutex<BTreeMap<PathBuf, Repository>>>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened({} repositories)", self.idle().len())
    }
}

impl Opened {
    /// What `look` finds in the repository at `path`, or what `unopened` makes of why it cannot be opened. libgit2 reads
    /// references and objects anew each time; what else may have changed shows in a look that finds nothing, and is
    /// taken again on the repository opened anew.
    pub(crate) fn look<T>(
        &self,
        path: &Path,
        look: impl Fn(&Repository) -> Result<Option<T>, RepoError>,
        unopened: impl FnOnce(git2::Error) -> Result<Option<T>, RepoError>,
    ) -> Result<Option<T>, RepoError> {
        let known = self.idle().remove(path);
        if let Some(repo) = known
            && let Ok(Some(found)) = look(&repo)
        {
            self.keep(path, repo);
            return Ok(Some(found));
        }
        let repo = match Repository::open(path) {
            Ok(repo) => repo,
            Err(error) => return unopened(error),
        };
        let found = look(&repo);
        if matches!(found, Ok(Some(_))) {
            self.keep(path, repo);
        }
        found
    }

    /// Closes the repository at `path`, which is about to go.
    pub(crate) fn close(&self, path: &Path) {
        self.idle().remove(path);
    }

    fn keep(&self, path: &Path, repo: Repository) {
        let mut idle = self.idle();
        if idle.len() < MAX_OPEN {
            idle.insert(path.to_owned(), repo);
        }
    }

    fn idle(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Repository>> {
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
        std::fs::rename(&path, dir.path().join("away")).unwrap();
        assert_eq!(head(&opened, &path), None);
        // Another kind of repository in its place.
        Repository::init_bare(&path).unwrap().set_head("refs/heads/three").unwrap();
        assert_eq!(head(&opened, &path).as_deref(), Some("refs/heads/three"));
        opened.close(&path);
        assert!(opened.idle().is_empty());
    }
}
