//! A working tree: putting it at a commit, and reading what it is at.

use std::{fs, io, os::unix::ffi::OsStrExt, path::Path};

use git2::{Commit, ObjectType, Oid, Repository, ResetType, StatusOptions, Tree, build::CheckoutBuilder};
use sdp_core::{BranchName, Checkout, CommitId, RepoError};

use crate::{error::of_checkout, store::OWN_FOLDER};

/// The file in a checkout's git directory that names the branch it was prepared for: its `HEAD`
/// may be detached, because a branch can be checked out only once.
const BRANCH_FILE: &str = "sdp-branch";

/// The mode of a symbolic link.
const LINK: i32 = 0o120_000;

/// Lets `HEAD` name a commit, no branch.
pub(crate) fn detach(repo: &Repository, commit: Oid) -> Result<(), git2::Error> {
    repo.set_head_detached(commit)
}

/// Drops local edits and unfinished merges, where there is a commit to go back to.
pub(crate) fn reset_hard(repo: &Repository) -> Result<(), git2::Error> {
    repo.cleanup_state()?;
    match repo.head().and_then(|head| head.peel_to_commit()) {
        Ok(commit) => reset_to(repo, &commit),
        // A fresh store has no commit, and a broken HEAD is about to be set.
        Err(_) => Ok(()),
    }
}

fn reset_to(repo: &Repository, commit: &Commit<'_>) -> Result<(), git2::Error> {
    if let Some(root) = repo.workdir() {
        let tree = commit.tree()?;
        let unlinked = unlink(&root.join(OWN_FOLDER)).and_then(|()| unlink_in(repo, &tree, root));
        unlinked.map_err(|error| git2::Error::from_str(&format!("links cannot be removed: {error}")))?;
    }
    repo.reset(commit.as_object(), ResetType::Hard, Some(&mut forced()))
}

/// Removes the links that stand where a commit has a file, or on the way to one: an earlier commit or a build left
/// them, and libgit2 would write to where they lead.
fn unlink_in(repo: &Repository, tree: &Tree<'_>, folder: &Path) -> io::Result<()> {
    for entry in tree {
        let name = entry.name_bytes();
        // Those that no checkout takes lead elsewhere.
        let is_plain = !matches!(name, b"." | b".." | b".git") && !name.contains(&b'/');
        if !is_plain || entry.filemode() == LINK {
            continue;
        }
        let path = folder.join(bytes_to_path(name));
        unlink(&path)?;
        if entry.kind() == Some(ObjectType::Tree) && path.is_dir() {
            let tree = entry.to_object(repo).and_then(|object| object.peel_to_tree()).map_err(io::Error::other)?;
            unlink_in(repo, &tree, &path)?;
        }
    }
    Ok(())
}

fn unlink(path: &Path) -> io::Result<()> {
    if path.is_symlink() { fs::remove_file(path) } else { Ok(()) }
}

/// Whether a commit has something in the place of SDP's own folder.
pub(crate) fn has_own_folder(repo: &Repository, commit: Oid) -> Result<bool, git2::Error> {
    Ok(repo.find_commit(commit)?.tree()?.get_name(OWN_FOLDER).is_some())
}

fn forced() -> CheckoutBuilder<'static> {
    let mut options = CheckoutBuilder::new();
    options.force().remove_untracked(true).remove_ignored(false);
    options
}

/// Makes the working tree hold exactly `commit`, and remembers the branch.
pub(crate) fn put(repo: &Repository, commit: Oid, branch: &BranchName) -> Result<(), git2::Error> {
    detach(repo, commit)?;
    let target = repo.find_commit(commit)?;
    if reset_to(repo, &target).is_err() {
        // An index that cannot be read is made anew from the commit.
        let _ = fs::remove_file(repo.path().join("index"));
        let repo = Repository::open(repo.path())?;
        reset_to(&repo, &repo.find_commit(commit)?)?;
    }
    remove_untracked(repo)?;
    if !repo.is_worktree() {
        // For the person who looks with `git status`; branch names in each other's way (`a` and
        // `a/b`) leave it detached.
        let name = format!("refs/heads/{branch}");
        if repo.reference(&name, commit, true, "sdp: deploy").is_ok() {
            let _ = repo.set_head(&name);
        }
    }
    fs::write(repo.path().join(BRANCH_FILE), branch.as_str())
        .map_err(|error| git2::Error::from_str(&format!("{BRANCH_FILE} could not be written: {error}")))
}

/// Removes what the reset left: libgit2 keeps repositories inside the working tree.
fn remove_untracked(repo: &Repository) -> Result<(), git2::Error> {
    let Some(root) = repo.workdir() else { return Ok(()) };
    let mut options = StatusOptions::new();
    options.include_untracked(true).recurse_untracked_dirs(false).include_ignored(false);
    for entry in repo.statuses(Some(&mut options))?.iter().filter(|entry| entry.status().is_wt_new()) {
        let path = root.join(bytes_to_path(entry.path_bytes()));
        let removed =
            if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|error| git2::Error::from_str(&format!("{} cannot be removed: {error}", path.display())))?;
    }
    Ok(())
}

fn bytes_to_path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// Forgets which branch it was prepared for: it counts as no checkout then.
pub(crate) fn forget(repo: &Repository) {
    let _ = fs::remove_file(repo.path().join(BRANCH_FILE));
}

/// What the working tree `repo` at `path` is at; none when nothing was prepared there.
pub(crate) fn read(repo: &Repository, path: &Path) -> Result<Option<Checkout>, RepoError> {
    let Ok(name) = fs::read_to_string(repo.path().join(BRANCH_FILE)) else { return Ok(None) };
    // As it was written: a branch may end with what looks like a space.
    let branch = BranchName::new(name)?;
    let failed = |error: git2::Error| of_checkout(path, "its HEAD cannot be read", error);
    let commit = repo.head().and_then(|head| head.peel_to_commit()).map_err(failed)?;
    Ok(Some(Checkout {
        path: path.to_owned(),
        branch,
        commit: CommitId::new(commit.id().to_string())?,
        tree: commit.tree_id().to_string(),
    }))
}

/// The first line of a commit's message.
pub(crate) fn summary(repo: &Repository, commit: Oid) -> String {
    let commit = repo.find_commit(commit);
    commit.ok().and_then(|commit| commit.summary().ok().flatten().map(str::to_owned)).unwrap_or_default()
}

/// A file as committed at `HEAD`.
pub(crate) fn committed_file(repo: &Repository, file: &Path) -> Result<Option<Vec<u8>>, git2::Error> {
    let tree = repo.head()?.peel_to_tree()?;
    match tree.get_path(file) {
        Ok(entry) => Ok(entry.to_object(repo)?.as_blob().map(|blob| blob.content().to_vec())),
        Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
