//! Repositories in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{
    events::EventSink,
    model::{
        credentials::Credentials,
        deployment::Stage,
        event::EventKind,
        ids::InstanceKey,
        names::{BranchName, CommitId, RepoName},
        repo::{Branch, Checkout, RepoSpec},
    },
    repos::{RepoError, RepoSource},
};

/// The files of a commit, by path.
type Files = BTreeMap<String, Vec<u8>>;

/// A [`RepoSource`] whose remotes are maps. Clones share them; nothing survives the process.
///
/// Made with [`in_dir`](Self::in_dir) it writes its checkouts as files, so that a deployer can
/// build them; otherwise their paths exist nowhere.
///
/// ```
/// use sdp_core::testing::MemoryRepos;
/// let repos = MemoryRepos::with_repo("eredar").branch("eredar", "main", &[("main.go", "package main")]);
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryRepos {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    specs: Vec<RepoSpec>,
    branches: BTreeMap<RepoName, BTreeMap<BranchName, CommitId>>,
    commits: BTreeMap<CommitId, Files>,
    /// What a checkout once held, which needs no remote any more.
    fetched: BTreeSet<CommitId>,
    checkouts: BTreeMap<InstanceKey, Checkout>,
    dir: Option<PathBuf>,
    accepted: Option<(String, String)>,
    fail_prepare: bool,
    block_prepare: bool,
}

impl MemoryRepos {
    /// One repo of recipe `command`, without branches.
    ///
    /// # Panics
    /// When the name is not valid: this is a double.
    pub fn with_repo(name: &str) -> Self {
        Self::default().repo(name)
    }

    /// Adds a repo of recipe `command` that serves the service of its own name, where that is one.
    ///
    /// # Panics
    /// When the name is not valid: this is a double.
    pub fn repo(self, name: &str) -> Self {
        let spec = serde_json::json!({
            "name": name,
            "path": format!("/memory/{name}"),
            "remote": format!("https://git.example/{name}.git"),
            "recipe": "command",
            "run": ["serve"],
            "image": "example:1",
            "health": { "tcp": true, "timeout": "1s", "interval": "5ms" },
        });
        let mut spec: RepoSpec = serde_json::from_value(spec).expect("a valid repo name");
        spec.service = name.parse().ok();
        self.spec(spec)
    }

    /// Adds a repo by its configuration.
    pub fn spec(self, spec: RepoSpec) -> Self {
        self.state().branches.entry(spec.name.clone()).or_default();
        self.state().specs.push(spec);
        self
    }

    /// Puts the tip of a branch at a new commit of these files. Call it again to push.
    ///
    /// # Panics
    /// When a name is not valid: this is a double.
    pub fn branch(self, repo: &str, branch: &str, files: &[(&str, &str)]) -> Self {
        self.push(repo, branch, files);
        self
    }

    /// As [`branch`](Self::branch), and answers the commit.
    ///
    /// # Panics
    /// When a name is not valid: this is a double.
    pub fn push(&self, repo: &str, branch: &str, files: &[(&str, &str)]) -> CommitId {
        let mut state = self.state();
        let id = format!("{:040x}", state.commits.len() + 1);
        let commit = CommitId::new(id).expect("forty digits");
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
        state.commits.insert(commit.clone(), files);
        let repo = repo.parse().expect("a valid repo name");
        let branch = branch.parse().expect("a valid branch name");
        state.branches.entry(repo).or_default().insert(branch, commit.clone());
        commit
    }

    /// Accepts only this user and password from now on; before, anything and nothing is accepted.
    pub fn accept(self, username: &str, password: &str) -> Self {
        self.state().accepted = Some((username.into(), password.into()));
        self
    }

    /// Writes checkouts below `dir`.
    pub fn in_dir(self, dir: impl Into<PathBuf>) -> Self {
        self.state().dir = Some(dir.into());
        self
    }

    /// Whether `prepare` fails from now on.
    pub fn fail_prepare(&self, fail: bool) {
        self.state().fail_prepare = fail;
    }

    /// Whether `prepare` waits, from now on, until it is cancelled.
    pub fn block_prepare(&self, block: bool) {
        self.state().block_prepare = block;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn check_out(
        &self,
        key: &InstanceKey,
        branch: &BranchName,
        commit: Option<&CommitId>,
        credentials: Option<&Credentials>,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Checkout, RepoError> {
        if self.state().block_prepare {
            cancel.cancelled().await;
        }
        if cancel.is_cancelled() {
            return Err(RepoError::Cancelled);
        }
        let checkout = {
            let mut state = self.state();
            let commit = state.commit(&key.repo, branch, commit, credentials)?;
            let path = state.path(key);
            if state.fail_prepare {
                let action = "this double was told to fail".to_owned();
                return Err(RepoError::Checkout { path, action, source: "no reason".into() });
            }
            state.write(&path, &commit)?;
            state.fetched.insert(commit.clone());
            let tree = commit.as_str().to_owned();
            let checkout = Checkout { path, branch: branch.clone(), commit, tree };
            state.checkouts.insert(key.clone(), checkout.clone());
            checkout
        };
        sink.accept(EventKind::note(Stage::Source, format!("HEAD is now at {}", checkout.commit.short()))).await?;
        Ok(checkout)
    }
}

impl State {
    fn check(&self, repo: &RepoName, credentials: Option<&Credentials>) -> Result<(), RepoError> {
        if !self.specs.iter().any(|spec| spec.name == *repo) {
            return Err(RepoError::UnknownRepo { repo: repo.clone() });
        }
        let given = credentials.map(|given| (given.username().as_str(), given.expose_password()));
        match &self.accepted {
            Some((user, password)) if given != Some((user, password)) => Err(RepoError::Auth {
                repo: repo.clone(),
                user: given.map(|(user, _)| user.to_owned()),
                cure: "check the user name and password",
            }),
            _ => Ok(()),
        }
    }

    /// The commit to check out: the one wanted, or the branch's tip.
    fn commit(
        &self,
        repo: &RepoName,
        branch: &BranchName,
        wanted: Option<&CommitId>,
        credentials: Option<&Credentials>,
    ) -> Result<CommitId, RepoError> {
        if let Some(wanted) = wanted.filter(|wanted| self.fetched.contains(*wanted)) {
            return Ok(wanted.clone());
        }
        self.check(repo, credentials)?;
        let tip = self.branches[repo].get(branch);
        match (wanted, tip) {
            (None, Some(tip)) => Ok(tip.clone()),
            (None, None) => Err(RepoError::UnknownBranch { repo: repo.clone(), branch: branch.clone() }),
            (Some(wanted), Some(tip)) if wanted == tip => Ok(tip.clone()),
            (Some(wanted), _) => {
                let (repo, branch, commit) = (repo.clone(), branch.clone(), wanted.clone());
                Err(RepoError::UnknownCommit { repo, branch, commit })
            }
        }
    }

    fn path(&self, key: &InstanceKey) -> PathBuf {
        let base = self.dir.clone().unwrap_or_else(|| PathBuf::from("/memory"));
        base.join(key.container_name())
    }

    fn write(&self, path: &Path, commit: &CommitId) -> Result<(), RepoError> {
        if self.dir.is_none() {
            return Ok(());
        }
        let failed = |source: std::io::Error| RepoError::Checkout {
            path: path.to_owned(),
            action: "it could not be written".into(),
            source: source.into(),
        };
        let old: BTreeSet<_> = self.commits.values().flat_map(BTreeMap::keys).collect();
        for name in old {
            match std::fs::remove_file(path.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        for (name, bytes) in &self.commits[commit] {
            let file = path.join(name);
            std::fs::create_dir_all(file.parent().unwrap_or(path)).map_err(failed)?;
            std::fs::write(file, bytes).map_err(failed)?;
        }
        Ok(())
    }
}

#[async_trait]
impl RepoSource for MemoryRepos {
    fn repos(&self) -> Vec<RepoSpec> {
        self.state().specs.clone()
    }

    async fn verify(
        &self,
        repo: Option<&RepoName>,
        credentials: &Credentials,
        cancel: &CancellationToken,
    ) -> Result<(), RepoError> {
        if cancel.is_cancelled() {
            return Err(RepoError::Cancelled);
        }
        let state = self.state();
        let first = state.specs.first().map(|spec| spec.name.clone());
        match repo.cloned().or(first) {
            Some(repo) => state.check(&repo, Some(credentials)),
            None => Ok(()),
        }
    }

    async fn branches(
        &self,
        repo: &RepoName,
        credentials: Option<&Credentials>,
        cancel: &CancellationToken,
    ) -> Result<Vec<Branch>, RepoError> {
        if cancel.is_cancelled() {
            return Err(RepoError::Cancelled);
        }
        let state = self.state();
        state.check(repo, credentials)?;
        let branch = |(name, commit): (&BranchName, &CommitId)| Branch { name: name.clone(), commit: commit.clone() };
        Ok(state.branches[repo].iter().map(branch).collect())
    }

    async fn prepare(
        &self,
        key: &InstanceKey,
        branch: &BranchName,
        credentials: Option<&Credentials>,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Checkout, RepoError> {
        self.check_out(key, branch, None, credentials, sink, cancel).await
    }

    async fn prepare_commit(
        &self,
        key: &InstanceKey,
        branch: &BranchName,
        commit: &CommitId,
        credentials: Option<&Credentials>,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Checkout, RepoError> {
        self.check_out(key, branch, Some(commit), credentials, sink, cancel).await
    }

    async fn rewind(&self, key: &InstanceKey, previous: &Checkout) -> Result<(), RepoError> {
        let mut state = self.state();
        state.write(&previous.path, &previous.commit)?;
        state.checkouts.insert(key.clone(), previous.clone());
        Ok(())
    }

    async fn checkout(&self, key: &InstanceKey) -> Result<Option<Checkout>, RepoError> {
        Ok(self.state().checkouts.get(key).cloned())
    }

    async fn sandbox_checkouts(&self) -> Result<Vec<InstanceKey>, RepoError> {
        Ok(self.state().checkouts.keys().filter(|key| key.sandbox.is_some()).cloned().collect())
    }

    async fn committed_file(&self, key: &InstanceKey, path: &Path) -> Result<Option<Vec<u8>>, RepoError> {
        let state = self.state();
        let Some(checkout) = state.checkouts.get(key) else {
            let action = "there is no checkout yet".to_owned();
            return Err(RepoError::Checkout { path: state.path(key), action, source: "never prepared".into() });
        };
        Ok(state.commits[&checkout.commit].get(path.to_string_lossy().as_ref()).cloned())
    }

    async fn discard(&self, key: &InstanceKey) -> Result<(), RepoError> {
        let mut state = self.state();
        if let Some(checkout) = state.checkouts.remove(key)
            && state.dir.is_some()
        {
            std::fs::remove_dir_all(&checkout.path).map_err(|source| RepoError::Checkout {
                path: checkout.path.clone(),
                action: "it could not be removed".into(),
                source: source.into(),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::conformance::repos::{RemoteFixture, suite};

    struct Fixture(MemoryRepos);

    #[async_trait]
    impl RemoteFixture for Fixture {
        fn source(&self) -> &dyn RepoSource {
            &self.0
        }

        async fn push(&self, repo: &str, branch: &str, files: &[(&str, &str)]) -> CommitId {
            self.0.push(repo, branch, files)
        }
    }

    #[tokio::test]
    async fn the_double_keeps_the_contract() {
        let dir = std::env::temp_dir().join(format!("sdp-memory-repos-{}", std::process::id()));
        let repos = MemoryRepos::with_repo("eredar").accept("ada", "right").in_dir(&dir);
        suite(&Fixture(repos)).await;
        let _ = std::fs::remove_dir_all(dir);
    }
}
