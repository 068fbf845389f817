//! The control groups that a private engine's containers were in.

use std::{fs, path::Path};

/// Where the kernel shows them, in version 2 the root itself.
const ROOT: &str = "/sys/fs/cgroup";

/// Removes the group `name` of every hierarchy with what is below. Nothing may run in them any more.
pub(super) fn remove(name: &str) {
    let root = Path::new(ROOT);
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        remove_tree(&hierarchy.join(name));
    }
}

/// The files in a group are the kernel's and go with their folder.
fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // It may never have been made.
    fs::remove_dir(group).ok();
}
