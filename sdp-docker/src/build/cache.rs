//! Where builds are kept: `.sdp/builds/<key>` in the checkout, one folder for each tree, recipe,
//! toolchain and environment. A folder of that name is whole: it is filled under another name.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sdp_core::{DeployError, DeployJob};
use sha2::{Digest, Sha256};

use super::own_folder;

/// How many builds that nothing runs are kept, for going back without building.
const SPARE_BUILDS: usize = 3;

/// The folder of a build.
pub(super) fn folder(job: &DeployJob, argv: &[String], toolchain: &str) -> PathBuf {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    part(&job.checkout.tree);
    part(&format!("{:?}", job.repo.recipe));
    part(toolchain);
    argv.iter().for_each(|arg| part(arg));
    for (name, value) in &job.env {
        part(name.as_str());
        part(value);
    }
    let key: String = hash.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    builds(&job.checkout.path).join(key)
}

fn builds(checkout: &Path) -> PathBuf {
    own_folder(checkout).join("builds")
}

/// Whether a build's folder is there and not empty.
pub(super) fn is_filled(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// A folder that is being filled; removed when dropped before [`finish`](Self::finish).
#[derive(Debug)]
pub(super) struct Staging {
    staging: PathBuf,
    target: PathBuf,
}

impl Staging {
    pub(super) fn new(target: &Path, unique: &str) -> Result<Self, DeployError> {
        let staging = target.with_extension(format!("{unique}.partial"));
        let failed = |source| DeployError::Io { action: format!("create {}", staging.display()), source };
        fs::create_dir_all(&staging).map_err(failed)?;
        Ok(Self { staging: staging.clone(), target: target.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.staging
    }

    pub(super) fn finish(self) -> Result<PathBuf, DeployError> {
        let failed =
            |source| DeployError::Io { action: format!("keep the build as {}", self.target.display()), source };
        if self.target.exists() {
            fs::remove_dir_all(&self.target).map_err(failed)?;
        }
        fs::rename(&self.staging, &self.target).map_err(failed)?;
        Ok(self.target.clone())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.staging);
    }
}

/// Removes the builds of a checkout but for `in_use` and the newest few others.
pub(crate) fn prune(checkout: &Path, in_use: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(builds(checkout)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut spare = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.path() != in_use {
            spare.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    spare.sort();
    for (_, path) in spare.into_iter().rev().skip(SPARE_BUILDS) {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pruning_keeps_what_is_in_use_and_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let builds = builds(dir.path());
        for n in 0..6 {
            fs::create_dir_all(builds.join(n.to_string())).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n);
            fs::File::open(builds.join(n.to_string())).unwrap().set_modified(time).unwrap();
        }
        prune(dir.path(), &builds.join("0")).unwrap();
        let mut kept: Vec<_> = fs::read_dir(&builds).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        kept.sort();
        assert_eq!(kept, ["0", "3", "4", "5"]);
        prune(&dir.path().join("none"), &builds).unwrap();
    }

    #[test]
    fn a_build_that_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = builds(dir.path()).join("key");
        let staging = Staging::new(&target, "x").unwrap();
        fs::write(staging.path().join("half"), "half").unwrap();
        drop(staging);
        assert_eq!(fs::read_dir(builds(dir.path())).unwrap().count(), 0);
    }
}
