//! The adapter: [`RepoSource`] on libgit2.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use git2::{Oid, Repository};
use sdp_core::{
    Branch, BranchName, Checkout, CommitId, Credentials, EventKind, EventSink, InstanceKey, RepoError, RepoName,
    RepoSource, RepoSpec, Stage,
};
use tokio::{
    net::TcpStream,
    sync::{Mutex as AsyncMutex, OwnedMutexGuard, mpsc},
};
use tokio_util::sync::CancellationToken;

use crate::{
    checkout,
    config::{ConfigError, GitConfig},
    error::{of_checkout, of_remote, unreachable},
    opened::Opened,
    remote::{self, Login, Progress, RemoteAddress},
    store, worktrees,
};

/// How long a git host may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Below it, each checkout has the ref that its branch is fetched into.
const FETCHED: &str = "refs/sdp/";

/// [`RepoSource`] over git remotes, with checkouts on this machine.
///
/// A quick deploy's checkout is the repo's configured path; a sandbox's is a git worktree of its
/// own. All of one repo share one object store, so a commit is fetched once. libgit2 runs no
/// hooks, and the only program it could start, `ssh`, it does not need.
///
/// Clones share the locks that keep two calls off one checkout.
#[derive(Debug, Clone)]
pub struct GitRepos {
    config: Arc<GitConfig>,
    locks: Arc<Mutex<BTreeMap<RepoName, Arc<AsyncMutex<()>>>>>,
    opened: Opened,
}

/// One repo, and what a call to its remote needs.
#[derive(Debug, Clone)]
struct Target {
    spec: RepoSpec,
    address: RemoteAddress,
    login: Login,
}

/// What a checkout is to hold.
#[derive(Debug, Clone)]
struct Wanted {
    branch: BranchName,
    /// The branch's tip when there is none.
    commit: Option<CommitId>,
}

impl GitRepos {
    /// Checks the configuration; touches neither disk nor network.
    ///
    /// # Errors
    /// [`ConfigError`] names the repo and the cure.
    pub fn new(config: GitConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self { config: Arc::new(config), locks: Arc::default(), opened: Opened::default() })
    }

    fn target(&self, repo: &RepoName, credentials: Option<&Credentials>) -> Result<Target, RepoError> {
        let spec = self.config.repos.iter().find(|spec| spec.name == *repo);
        let spec = spec.ok_or_else(|| RepoError::UnknownRepo { repo: repo.clone() })?.clone();
        let address = RemoteAddress::parse(&spec.remote)
            .map_err(|reason| RepoError::Git { repo: repo.clone(), source: reason.into() })?;
        let credentials = credentials.cloned().or_else(|| self.config.credentials.clone());
        let login = Login { host: address.host.clone(), credentials, ssh_key: self.config.ssh_key.clone() };
        Ok(Target { spec, address, login })
    }

    fn path(&self, spec: &RepoSpec, key: &InstanceKey) -> PathBuf {
        match &key.sandbox {
            None => spec.path.clone(),
            Some(sandbox) => self.config.worktrees.join(sandbox.as_str()).join(spec.name.as_str()),
        }
    }

    /// The lock of a repo's store and of its checkouts, which libgit2 changes together.
    async fn lock(&self, repo: &RepoName) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(locks.entry(repo.clone()).or_default())
        };
        lock.lock_owned().await
    }

    async fn check_out(
        &self,
        key: &InstanceKey,
        wanted: Wanted,
        credentials: Option<&Credentials>,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Checkout, RepoError> {
        let target = self.target(&key.repo, credentials)?;
        let here = match wanted.commit.clone() {
            Some(commit) => {
                let path = target.spec.path.clone();
                let look = move || Ok(Repository::open(path).is_ok_and(|store| commit_in(&store, &commit).is_some()));
                blocking(cancel, look).await?
            }
            None => false,
        };
        if !here {
            reach(&target, cancel).await?;
        }
        let guard = tokio::select! {
            guard = self.lock(&key.repo) => guard,
            () = cancel.cancelled() => return Err(RepoError::Cancelled),
        };
        let (branch, address) = (&wanted.branch, &target.address);
        let line = match &wanted.commit {
            Some(commit) if here => format!("{} of {branch} is here already", commit.short()),
            _ => format!("fetching {branch} from {address}"),
        };
        sink.accept(EventKind::note(Stage::Source, line)).await?;
        let (sender, mut lines) = mpsc::unbounded_channel();
        let (key, path, token) = (key.clone(), self.path(&target.spec, key), cancel.clone());
        let work = blocking(cancel, move || {
            let _guard = guard;
            let tell: Progress = Arc::new(move |line| drop(sender.send(line)));
            target.prepare(&key, &path, &wanted, &token, tell)
        });
        let tell = async {
            while let Some(line) = lines.recv().await {
                sink.accept(EventKind::note(Stage::Source, line)).await?;
            }
            Ok::<_, RepoError>(())
        };
        tokio::pin!(work, tell);
        let prepared = tokio::select! {
            prepared = &mut work => prepared,
            told = &mut tell => {
                told?;
                return work.await;
            }
        };
        // A cancelled thread may still hold the other end.
        if !matches!(prepared, Err(RepoError::Cancelled)) {
            tell.await?;
        }
        prepared
    }

    async fn list(
        &self,
        repo: &RepoName,
        credentials: Option<&Credentials>,
        cancel: &CancellationToken,
    ) -> Result<Vec<(String, Oid)>, RepoError> {
        let target = self.target(repo, credentials)?;
        reach(&target, cancel).await?;
        let token = cancel.clone();
        blocking(cancel, move || {
            let listed = remote::list(&target.spec.remote, &target.login, &token);
            listed.map_err(|error| target.remote_error(&token, error))
        })
        .await
    }
}

impl Target {
    fn remote_error(&self, cancel: &CancellationToken, error: git2::Error) -> RepoError {
        of_remote(&self.spec.name, &self.address, self.login.credentials.as_ref(), cancel, error)
    }

    /// Puts the checkout at what is wanted, fetched unless it is here. On libgit2's thread.
    fn prepare(
        &self,
        key: &InstanceKey,
        path: &Path,
        wanted: &Wanted,
        cancel: &CancellationToken,
        tell: Progress,
    ) -> Result<Checkout, RepoError> {
        let store = store::open(&self.spec.path, &self.spec.remote)?;
        if key.sandbox.is_none() && checkout::reset_hard(&store).is_err() {
            tell("the checkout is damaged; it will be put right after the fetch".into());
        }
        let (store, tip) = match self.bring(&store, key, wanted, cancel, &tell) {
            Ok(tip) => (store, tip),
            // A damaged store is fetched anew, unless the remote itself is what failed.
            Err(RepoError::Git { .. }) if store::worktree_names(&store).is_empty() && damaged(&store) => {
                tell("the object store is damaged; fetching everything again".into());
                let store =
                    store::rebuild(&self.spec.path).and_then(|_| store::open(&self.spec.path, &self.spec.remote))?;
                let tip = self.bring(&store, key, wanted, cancel, &tell)?;
                (store, tip)
            }
            Err(error) => return Err(error),
        };
        if cancel.is_cancelled() {
            return Err(RepoError::Cancelled);
        }
        let failed = |error| of_checkout(path, "it could not be switched to the branch", error);
        if checkout::has_own_folder(&store, tip).map_err(failed)? {
            let reason = "its commit has `.sdp`, which is SDP's own folder in a checkout; rename it in the repo";
            return Err(of_checkout(path, reason, io::Error::from(io::ErrorKind::AlreadyExists)));
        }
        let repo = if key.sandbox.is_some() {
            let name = worktrees::name(key);
            let repo = store::open_worktree(&store, &name, path, tip)?;
            if checkout::put(&repo, tip, &wanted.branch).is_ok() {
                repo
            } else {
                let repo = store::remake_worktree(&store, &name, path, tip)?;
                checkout::put(&repo, tip, &wanted.branch).map_err(failed)?;
                repo
            }
        } else {
            checkout::put(&store, tip, &wanted.branch).map_err(failed)?;
            store
        };
        let short = CommitId::new(tip.to_string())?;
        tell(format!("HEAD is now at {} {}", short.short(), checkout::summary(&repo, tip)));
        let vanished = || of_checkout(path, "it vanished", io::Error::from(io::ErrorKind::NotFound));
        checkout::read(&repo, path)?.ok_or_else(vanished)
    }

    /// The wanted commit, brought into the store unless it is there.
    fn bring(
        &self,
        store: &Repository,
        key: &InstanceKey,
        wanted: &Wanted,
        cancel: &CancellationToken,
        tell: &Progress,
    ) -> Result<Oid, RepoError> {
        let Wanted { branch, commit } = wanted;
        let Some(commit) = commit else { return self.fetch(store, key, branch, cancel, tell) };
        if let Some(here) = commit_in(store, commit) {
            return Ok(here);
        }
        match self.fetch(store, key, branch, cancel, tell) {
            Ok(_) | Err(RepoError::UnknownBranch { .. }) => commit_in(store, commit).ok_or_else(|| {
                let repo = self.spec.name.clone();
                RepoError::UnknownCommit { repo, branch: branch.clone(), commit: commit.clone() }
            }),
            Err(error) => Err(error),
        }
    }

    fn fetch(
        &self,
        store: &Repository,
        key: &InstanceKey,
        branch: &BranchName,
        cancel: &CancellationToken,
        tell: &Progress,
    ) -> Result<Oid, RepoError> {
        let into = format!("{FETCHED}{}", worktrees::name(key));
        let fetched =
            remote::fetch(store, &self.spec.remote, branch.as_str(), &into, &self.login, cancel, Arc::clone(tell));
        let tip = fetched.map_err(|error| self.remote_error(cancel, error))?;
        tip.ok_or_else(|| RepoError::UnknownBranch { repo: self.spec.name.clone(), branch: branch.clone() })
    }
}

/// A commit that the store has, with everything in it.
fn commit_in(store: &Repository, commit: &CommitId) -> Option<Oid> {
    Oid::from_str(commit.as_str()).ok().filter(|commit| store::holds(store, *commit))
}

/// Whether the store's own content is at fault: its tips cannot be read.
fn damaged(store: &Repository) -> bool {
    let Ok(refs) = store.references() else { return true };
    refs.flatten().any(|reference| reference.peel_to_commit().and_then(|commit| commit.tree().map(drop)).is_err())
}

/// Finds out quickly whether the git host accepts connections: libgit2 itself would wait for as
/// long as the kernel does.
async fn reach(target: &Target, cancel: &CancellationToken) -> Result<(), RepoError> {
    let RemoteAddress { host, port } = &target.address;
    let connect = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), *port)));
    let connected = tokio::select! {
        connected = connect => connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut)),
        () = cancel.cancelled() => return Err(RepoError::Cancelled),
    };
    let reached = connected.and_then(|connected| connected);
    reached.map(drop).map_err(|error| unreachable(&target.spec.name, &target.address, error))
}

/// Runs libgit2 on a thread of its own. When cancelled, the caller goes on at once, and the thread
/// ends at libgit2's next look at the token; locks that the closure owns are held until then.
async fn blocking<T: Send + 'static>(
    cancel: &CancellationToken,
    work: impl FnOnce() -> Result<T, RepoError> + Send + 'static,
) -> Result<T, RepoError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(RepoError::Cancelled),
        done = tokio::task::spawn_blocking(work) => match done {
            Ok(done) => done,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime shuts down.
                Err(_) => Err(RepoError::Cancelled),
            },
        },
    }
}

#[async_trait]
impl RepoSource for GitRepos {
    fn repos(&self) -> Vec<RepoSpec> {
        self.config.repos.clone()
    }

    async fn verify(
        &self,
        repo: Option<&RepoName>,
        credentials: &Credentials,
        cancel: &CancellationToken,
    ) -> Result<(), RepoError> {
        let first = self.config.repos.first().map(|spec| &spec.name);
        match repo.or(first) {
            Some(repo) => self.list(repo, Some(credentials), cancel).await.map(drop),
            None => Ok(()),
        }
    }

    async fn branches(
        &self,
        repo: &RepoName,
        credentials: Option<&Credentials>,
        cancel: &CancellationToken,
    ) -> Result<Vec<Branch>, RepoError> {
        let heads = self.list(repo, credentials, cancel).await?;
        let branch = |(name, commit): (String, Oid)| {
            Some(Branch { name: BranchName::new(name).ok()?, commit: CommitId::new(commit.to_string()).ok()? })
        };
        let mut branches: Vec<_> = heads.into_iter().filter_map(branch).collect();
        branches.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(branches)
    }

    async fn prepare(
        &self,
        key: &InstanceKey,
        branch: &BranchName,
        credentials: Option<&Credentials>,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Checkout, RepoError> {
        self.check_out(key, Wanted { branch: branch.clone(), commit: None }, credentials, sink, cancel).await
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
        let wanted = Wanted { branch: branch.clone(), commit: Some(commit.clone()) };
        self.check_out(key, wanted, credentials, sink, cancel).await
    }

    async fn rewind(&self, key: &InstanceKey, previous: &Checkout) -> Result<(), RepoError> {
        let guard = self.lock(&key.repo).await;
        let previous = previous.clone();
        blocking(&CancellationToken::new(), move || {
            let _guard = guard;
            let put = || {
                let repo = Repository::open(&previous.path)?;
                checkout::put(&repo, Oid::from_str(previous.commit.as_str())?, &previous.branch)
            };
            put().map_err(|error| of_checkout(&previous.path, "it could not be put back", error))
        })
        .await
    }

    async fn checkout(&self, key: &InstanceKey) -> Result<Option<Checkout>, RepoError> {
        let path = self.path(&self.target(&key.repo, None)?.spec, key);
        let opened = self.opened.clone();
        blocking(&CancellationToken::new(), move || {
            opened.look(&path, |repo| checkout::read(repo, &path), |_| Ok(None))
        })
        .await
    }

    async fn sandbox_checkouts(&self) -> Result<Vec<InstanceKey>, RepoError> {
        let config = Arc::clone(&self.config);
        blocking(&CancellationToken::new(), move || {
            let mut keys = worktrees::on_disk(&config.worktrees)
                .map_err(|error| of_checkout(&config.worktrees, "the worktrees cannot be listed", error))?;
            for spec in &config.repos {
                // Without a store there is nothing that shares it.
                let Ok(store) = Repository::open(&spec.path) else { continue };
                let sandboxes = store::worktree_names(&store).into_iter().filter_map(|name| worktrees::sandbox(&name));
                keys.extend(sandboxes.map(|sandbox| InstanceKey::in_sandbox(sandbox, spec.name.clone())));
            }
            Ok(keys.into_iter().collect())
        })
        .await
    }

    async fn committed_file(&self, key: &InstanceKey, path: &Path) -> Result<Option<Vec<u8>>, RepoError> {
        let checkout = self.path(&self.target(&key.repo, None)?.spec, key);
        let file = path.to_owned();
        let opened = self.opened.clone();
        blocking(&CancellationToken::new(), move || {
            let failed = |error| of_checkout(&checkout, "its commit cannot be read", error);
            let look = |repo: &Repository| checkout::committed_file(repo, &file).map_err(failed);
            opened.look(&checkout, look, |error| Err(failed(error)))
        })
        .await
    }

    async fn discard(&self, key: &InstanceKey) -> Result<(), RepoError> {
        let guard = self.lock(&key.repo).await;
        if let Ok(target) = self.target(&key.repo, None) {
            self.opened.close(&self.path(&target.spec, key));
        }
        if let Some(sandbox) = &key.sandbox {
            // The repo may be configured no more, and its store gone: the folder goes all the same.
            let store = self.config.repos.iter().find(|spec| spec.name == key.repo).map(|spec| spec.path.clone());
            let folder = self.config.worktrees.join(sandbox.as_str());
            let (name, path) = (worktrees::name(key), folder.join(key.repo.as_str()));
            return blocking(&CancellationToken::new(), move || {
                let _guard = guard;
                match store.map(Repository::open) {
                    Some(Ok(store)) => {
                        store::remove_worktree(&store, &name, &path)?;
                        store::forget(&store, &format!("{FETCHED}{name}"))
                            .map_err(|error| of_checkout(&path, "the ref of its branch could not be removed", error))?;
                    }
                    _ => store::remove_folder(&path)?,
                }
                // The sandbox's folder goes with its last checkout.
                let _ = fs::remove_dir(folder);
                Ok(())
            })
            .await;
        }
        let spec = self.target(&key.repo, None)?.spec;
        let path = spec.path.clone();
        blocking(&CancellationToken::new(), move || {
            let _guard = guard;
            let Ok(store) = Repository::open(&spec.path) else { return Ok(()) };
            checkout::forget(&store);
            let shared = !store::worktree_names(&store).is_empty();
            let kept = if shared { vec![path.join(".git"), spec.builds()] } else { Vec::new() };
            empty(&path, &kept).map_err(|error| of_checkout(&path, "it could not be removed", error))
        })
        .await
    }
}

/// Removes everything at `path` but what is `kept`.
fn empty(path: &Path, kept: &[PathBuf]) -> io::Result<()> {
    if !kept.iter().any(|kept| kept.starts_with(path)) {
        return fs::remove_dir_all(path);
    }
    for entry in fs::read_dir(path)? {
        let (entry, is_folder) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?.is_dir())))?;
        if kept.contains(&entry) {
            continue;
        }
        if is_folder { empty(&entry, kept)? } else { fs::remove_file(entry)? }
    }
    Ok(())
}
