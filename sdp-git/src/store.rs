//! The object store of a repo: the repository at its configured path, which all of its checkouts
//! share.

use std::{fs, io, path::Path};

use git2::{
    ErrorCode, ObjectType, Oid, Repository, RepositoryInitOptions, TreeWalkMode, TreeWalkResult, WorktreePruneOptions,
};
use sdp_core::RepoError;

use crate::{checkout, error::of_checkout};

/// Below it, everything in a checkout belongs to SDP and survives.
pub(crate) const OWN_FOLDER: &str = ".sdp";

/// Opens the repository at `path`, or makes an empty one where there is nothing. One that is
/// broken beyond opening loses its `.git`, whose content the remote has, and keeps its files.
pub(crate) fn open(path: &Path, remote: &str) -> Result<Repository, RepoError> {
    let opened = match Repository::open(path) {
        Ok(repo) if repo.is_bare() || repo.workdir().map(same) != Some(same(path)) => Err(foreign(path)),
        Ok(repo) => Ok(repo),
        Err(error) if error.code() == ErrorCode::NotFound && !path.join(".git").exists() => match is_vacant(path) {
            Ok(true) => make(path),
            Ok(false) => Err(foreign(path)),
            Err(error) => Err(of_checkout(path, "its directory cannot be read", error)),
        },
        Err(_) => rebuild(path),
    }?;
    clear_locks(&opened).map_err(|error| of_checkout(path, "a stale lock could not be removed", error))?;
    if opened.find_reference("HEAD").is_err() {
        let head = opened.path().join("HEAD");
        fs::write(head, "ref: refs/heads/main\n")
            .map_err(|error| of_checkout(path, "its broken HEAD could not be replaced", error))?;
    }
    exclude_own_folder(&opened).map_err(|error| of_checkout(path, "its exclude file could not be written", error))?;
    let named = match opened.find_remote("origin") {
        Ok(origin) if origin.url().is_ok_and(|url| url == remote) => Ok(()),
        Ok(_) => opened.remote_set_url("origin", remote),
        Err(_) => opened.remote("origin", remote).map(drop),
    };
    named.map_err(|error| of_checkout(path, "its remote could not be set", error))?;
    Ok(opened)
}

/// Removes what is left of a broken `.git` and begins anew in the same directory.
pub(crate) fn rebuild(path: &Path) -> Result<Repository, RepoError> {
    let git = path.join(".git");
    let removed = if git.is_dir() { fs::remove_dir_all(&git) } else { fs::remove_file(&git) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(of_checkout(path, "its broken .git could not be removed", error))
        }
        _ => make(path),
    }
}

fn make(path: &Path) -> Result<Repository, RepoError> {
    let mut options = RepositoryInitOptions::new();
    // No templates: a machine's template directory may bring hooks.
    options.external_template(false).no_reinit(true).mkpath(true);
    Repository::init_opts(path, &options).map_err(|error| of_checkout(path, "it could not be created", error))
}

fn foreign(path: &Path) -> RepoError {
    of_checkout(
        path,
        "it holds files that are not a git checkout; move them away, or configure another path",
        io::Error::from(io::ErrorKind::AlreadyExists),
    )
}

fn same(path: &Path) -> std::path::PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Whether nothing but our own folder is at `path`.
fn is_vacant(path: &Path) -> io::Result<bool> {
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
        Ok(entries) => {
            for entry in entries {
                if entry?.file_name() != OWN_FOLDER {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

/// Removes lock files that a killed git left: whoever works on this checkout holds our own lock.
pub(crate) fn clear_locks(repo: &Repository) -> io::Result<()> {
    for folder in [repo.path(), repo.commondir()] {
        for name in ["index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock"] {
            remove_if_there(&folder.join(name))?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn exclude_own_folder(repo: &Repository) -> io::Result<()> {
    let file = repo.commondir().join("info").join("exclude");
    let line = format!("/{OWN_FOLDER}/");
    let text = fs::read_to_string(&file).unwrap_or_default();
    if text.lines().any(|existing| existing == line) {
        return Ok(());
    }
    fs::create_dir_all(repo.commondir().join("info"))?;
    let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    fs::write(file, format!("{text}{separator}{line}\n"))
}

/// Whether the store has a commit with everything in it.
pub(crate) fn holds(store: &Repository, commit: Oid) -> bool {
    let all_there = || {
        let (odb, tree) = (store.odb()?, store.find_commit(commit)?.tree()?);
        let mut missing = false;
        tree.walk(TreeWalkMode::PreOrder, |_, entry| {
            // Another repository's commit is that repository's.
            missing |= entry.kind() == Some(ObjectType::Blob) && !odb.exists(entry.id());
            if missing { TreeWalkResult::Abort } else { TreeWalkResult::Ok }
        })?;
        Ok::<_, git2::Error>(!missing)
    };
    all_there().unwrap_or(false)
}

/// The names of the worktrees that share this store.
pub(crate) fn worktree_names(repo: &Repository) -> Vec<String> {
    let Ok(names) = repo.worktrees() else { return Vec::new() };
    names.iter().flatten().flatten().map(str::to_owned).collect()
}

/// Opens the worktree `name` at `path`, or makes it at `commit`.
pub(crate) fn open_worktree(
    store: &Repository,
    name: &str,
    path: &Path,
    commit: git2::Oid,
) -> Result<Repository, RepoError> {
    if let Ok(repo) = Repository::open(path)
        && repo.is_worktree()
        && store.find_worktree(name).is_ok_and(|worktree| worktree.validate().is_ok())
        && clear_locks(&repo).is_ok()
    {
        return Ok(repo);
    }
    remake_worktree(store, name, path, commit)
}

/// Makes the worktree `name` anew; what is below our own folder is kept.
pub(crate) fn remake_worktree(
    store: &Repository,
    name: &str,
    path: &Path,
    commit: git2::Oid,
) -> Result<Repository, RepoError> {
    let failed = |action: &'static str| move |error: git2::Error| of_checkout(path, action, error);
    let io_failed = |error: io::Error| of_checkout(path, "its directory could not be prepared", error);
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(io_failed)?;
    let kept = parent.join(format!(".{name}.kept"));
    if path.join(OWN_FOLDER).is_dir() {
        if kept.exists() {
            fs::remove_dir_all(&kept).map_err(io_failed)?;
        }
        fs::rename(path.join(OWN_FOLDER), &kept).map_err(io_failed)?;
    }
    remove_worktree(store, name, path)?;
    let own_branch = format!("{OWN_BRANCHES}{name}");
    let reference = store
        .reference(&own_branch, commit, true, "sdp: worktree")
        .map_err(failed("its branch could not be created"))?;
    let mut options = git2::WorktreeAddOptions::new();
    options.reference(Some(&reference));
    store.worktree(name, path, Some(&options)).map_err(failed("its worktree could not be created"))?;
    if kept.exists() {
        fs::rename(&kept, path.join(OWN_FOLDER)).map_err(io_failed)?;
    }
    let repo = Repository::open(path).map_err(failed("it could not be opened"))?;
    checkout::detach(&repo, commit).map_err(failed("it could not be detached from its branch"))?;
    Ok(repo)
}

/// Branches that exist because libgit2 makes worktrees of branches only.
const OWN_BRANCHES: &str = "refs/heads/sdp-worktree/";

/// Removes a worktree and what the store knows of it. Idempotent.
pub(crate) fn remove_worktree(store: &Repository, name: &str, path: &Path) -> Result<(), RepoError> {
    remove_folder(path)?;
    let failed = |error: git2::Error| of_checkout(path, "its worktree could not be removed", error);
    if let Ok(worktree) = store.find_worktree(name) {
        let mut options = WorktreePruneOptions::new();
        worktree.prune(Some(options.valid(true).locked(true))).map_err(failed)?;
    }
    forget(store, &format!("{OWN_BRANCHES}{name}")).map_err(failed)
}

/// Removes a checkout's folder. Idempotent.
pub(crate) fn remove_folder(path: &Path) -> Result<(), RepoError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(of_checkout(path, "it could not be removed", error))
        }
        _ => Ok(()),
    }
}

/// Removes a ref. Idempotent.
pub(crate) fn forget(store: &Repository, reference: &str) -> Result<(), git2::Error> {
    match store.find_reference(reference) {
        Ok(mut reference) => reference.delete(),
        Err(_) => Ok(()),
    }
}
