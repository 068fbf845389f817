//! How sandboxes' worktrees are named, and what is there of them: `<worktrees>/<sandbox>/<repo>` on the
//! disk, `sandbox-<sandbox>` in the repo's store.

use std::{collections::BTreeSet, fs, io, path::Path};

use sdp_core::{InstanceKey, RepoName, SandboxName};

const PREFIX: &str = "sandbox-";

/// The name of a key's worktree, and of the ref its branch is fetched into.
pub(crate) fn name(key: &InstanceKey) -> String {
    match &key.sandbox {
        None => "quick".into(),
        Some(sandbox) => format!("{PREFIX}{sandbox}"),
    }
}

/// The sandbox that a worktree of this name is of.
pub(crate) fn sandbox(name: &str) -> Option<SandboxName> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// The keys whose folders are below `worktrees`. What has no valid name is not ours.
pub(crate) fn on_disk(worktrees: &Path) -> io::Result<BTreeSet<InstanceKey>> {
    let mut keys = BTreeSet::new();
    for sandbox in folders(worktrees)? {
        let Ok(name) = SandboxName::new(&sandbox) else { continue };
        let repos = folders(&worktrees.join(&sandbox))?.into_iter().filter_map(|repo| RepoName::new(repo).ok());
        keys.extend(repos.map(|repo| InstanceKey::in_sandbox(name.clone(), repo)));
    }
    Ok(keys)
}

fn folders(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_sandbox() {
        let key = InstanceKey::in_sandbox("pay".parse().unwrap(), "eredar".parse().unwrap());
        assert_eq!(sandbox(&name(&key)).as_ref(), key.sandbox.as_ref());
        assert_eq!(sandbox(&name(&InstanceKey::quick(key.repo))), None);
    }

    #[test]
    fn folders_without_valid_names_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["pay/eredar", "pay/.sandbox-pay.kept", "UPPER/eredar", "empty"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("pay/file"), "").unwrap();
        let keys: Vec<_> = on_disk(dir.path()).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(keys, ["pay/eredar"]);
        assert_eq!(on_disk(&dir.path().join("none")).unwrap().len(), 0);
    }
}
