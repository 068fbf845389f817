//! How much room the disks have, and whether that is enough for another deployment.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use sdp_core::{Disk, ErrorCode, Problem, RepoName, RepoSpec};

use crate::config::AgentConfig;

/// One MiB.
pub(crate) const MIB: u64 = 1024 * 1024;

/// The room on one disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Tells the disk from others.
    pub(crate) id: u64,
    pub(crate) free: u64,
    pub(crate) total: u64,
}

/// The room where `path` is or would be, and the existing folder that was asked.
pub(crate) fn room(path: &Path) -> (PathBuf, io::Result<Room>) {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let disk = rustix::fs::statvfs(existing).map_err(io::Error::from);
    let room = disk.map(|disk| Room {
        id: disk.f_fsid,
        free: disk.f_bavail.saturating_mul(disk.f_frsize),
        total: disk.f_blocks.saturating_mul(disk.f_frsize),
    });
    (existing.into(), room)
}

/// A folder whose disk cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("{}", path.display())]
pub(crate) struct Unreadable {
    path: PathBuf,
    source: io::Error,
}

/// Every disk that an agent uses, once.
pub(crate) fn of(config: &AgentConfig) -> Vec<Result<Disk, Unreadable>> {
    let paths = std::iter::once(&config.data_dir).chain(config.repo.iter().map(|repo| &repo.path));
    let mut seen = BTreeSet::new();
    let disk = |path: &PathBuf| match room(path) {
        (path, Ok(room)) => seen.insert(room.id).then(|| {
            Ok(Disk {
                path: path.display().to_string(),
                free_bytes: room.free,
                total_bytes: room.total,
                min_free_bytes: min_free(config),
            })
        }),
        (path, Err(source)) => Some(Err(Unreadable { path, source })),
    };
    paths.filter_map(disk).collect()
}

fn min_free(config: &AgentConfig) -> u64 {
    config.deployer.min_free_mib.saturating_mul(MIB)
}

/// Refuses deployments while a disk they need is nearly full.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    own: Vec<PathBuf>,
    repos: Vec<(RepoName, PathBuf)>,
    min_free: u64,
}

impl Admission {
    pub(crate) fn new(config: &AgentConfig) -> Self {
        let repo = |spec: &RepoSpec| (spec.name.clone(), spec.path.clone());
        Self {
            own: vec![config.data_dir.clone(), config.worktrees()],
            repos: config.repo.iter().map(repo).collect(),
            min_free: min_free(config),
        }
    }

    /// Whether there is room for a deployment of `repo`.
    pub(crate) fn admit(&self, repo: &RepoName) -> Result<(), Problem> {
        let of_repo = self.repos.iter().filter(|(name, _)| name == repo).map(|(_, path)| path);
        for path in self.own.iter().chain(of_repo) {
            let (existing, room) = room(path);
            match room {
                Ok(room) if room.free < self.min_free => {
                    let sentence = format!(
                        "only {} MiB are free at {} on the agent's machine, and a deployment needs {}: delete sandboxes \
                         that are no longer needed, free some space, or lower `deployer.min_free_mib`",
                        room.free / MIB,
                        existing.display(),
                        self.min_free / MIB
                    );
                    return Err(Problem::new(ErrorCode::DiskFull, sentence));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(path = %existing.display(), %error, "how much room there is cannot be told");
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(min_free: u64) -> Admission {
        let repos = vec![("eredar".parse().unwrap(), std::env::temp_dir().join("none").join("eredar"))];
        Admission { own: Vec::new(), repos, min_free }
    }

    #[test]
    fn a_deployment_needs_room_where_its_repo_is_or_will_be() {
        let repo = "eredar".parse().unwrap();
        let (existing, room) = room(&admission(0).repos[0].1);
        assert_eq!(existing, std::env::temp_dir());
        assert!(room.unwrap().total > 0);
        assert_eq!(admission(0).admit(&repo), Ok(()));
        let problem = admission(u64::MAX).admit(&repo).unwrap_err();
        assert_eq!((problem.code, problem.status), (ErrorCode::DiskFull, 507));
        assert!(problem.detail.contains("MiB are free at") && problem.detail.contains("min_free_mib"), "{problem}");
        assert_eq!(admission(u64::MAX).admit(&"other".parse().unwrap()), Ok(()), "it is on another disk");
    }
}
