//! A gateway's checkout in a temporary directory, and a repo source that knows only it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sdp_core::model::repo::{Branch, Checkout, RepoSpec};
use sdp_core::testing::ManualClock;
use sdp_core::{
    BranchName, CommitId, EventSink, InstanceKey, Override, OverrideKind, RepoError, RepoName, RepoSource,
    RequestRoutes, RouteChanges, SandboxKey,
};
use sdp_gateway::php::ConfigFile;
use sdp_gateway::reload::{NoReload, Reload};
use sdp_gateway::{GatewayConfig, PhpRoutes};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const CONFIG: &str = "application/config/config.php";

/// A gateway's checkout. Its files go when it is dropped.
#[derive(Debug)]
pub(crate) struct Gateway {
    dir: TempDir,
    repo: Arc<OneCheckout>,
    pub(crate) clock: ManualClock,
    pub(crate) per_request: AtomicBool,
}

impl Gateway {
    /// A checkout of `main` whose configuration is `committed`.
    pub(crate) fn new(committed: impl AsRef<[u8]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let gateway = Self { repo: Arc::default(), dir, clock: ManualClock::default(), per_request: false.into() };
        gateway.switch_to("main", committed);
        gateway
    }

    /// A checkout whose gateway routes per request.
    pub(crate) fn per_request(committed: impl AsRef<[u8]>) -> Self {
        let gateway = Self::new(committed);
        gateway.per_request.store(true, Ordering::Relaxed);
        gateway
    }

    /// Makes the checkout a fresh one of `branch`; `.sdp/` stays, as it does in a real one.
    pub(crate) fn switch_to(&self, branch: &str, committed: impl AsRef<[u8]>) {
        fs::create_dir_all(self.config().parent().unwrap()).unwrap();
        fs::write(self.config(), committed.as_ref()).unwrap();
        *self.repo.state.lock().unwrap() = Some((
            Checkout {
                path: self.root().to_owned(),
                branch: branch.parse().unwrap(),
                commit: "0123456789abcdef0123456789abcdef01234567".parse().unwrap(),
                tree: "1123456789abcdef0123456789abcdef01234567".into(),
            },
            committed.as_ref().to_vec(),
        ));
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.root().join(CONFIG)
    }

    pub(crate) fn own(&self, name: &str) -> PathBuf {
        self.root().join(".sdp").join(name)
    }

    /// The gateway's file as it is now.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.config()).unwrap()).into_owned()
    }

    pub(crate) fn committed(&self) -> Vec<u8> {
        self.repo.state.lock().unwrap().as_ref().unwrap().1.clone()
    }

    /// A configuration that names this gateway's file and reloads nothing.
    pub(crate) fn settings(&self) -> GatewayConfig {
        let per_request = self.per_request.load(Ordering::Relaxed);
        GatewayConfig { per_request, ..GatewayConfig::new("erangel-ocean".parse().unwrap(), CONFIG) }
    }

    pub(crate) fn routes(&self) -> PhpRoutes {
        self.routes_with(self.settings(), NoReload)
    }

    pub(crate) fn routes_with(&self, settings: GatewayConfig, reload: impl Reload + 'static) -> PhpRoutes {
        let repos = Arc::clone(&self.repo) as Arc<dyn RepoSource>;
        PhpRoutes::with_clock(settings, repos, Arc::new(reload), Arc::new(self.clock.clone())).unwrap()
    }

    /// Everything below the checkout, relative, sorted: what would show a leak.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut dirs = vec![self.root().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    files.push(path.strip_prefix(self.root()).unwrap().to_string_lossy().into_owned());
                }
            }
        }
        files.sort();
        files
    }

    /// Changes a value in the file, as a person with an editor would.
    pub(crate) fn edit_by_hand(&self, service: &str, value: &str) {
        let file = ConfigFile::parse(fs::read(self.config()).unwrap()).unwrap();
        let edited = file.patched(&BTreeMap::from([(service.to_owned(), value.to_owned())])).unwrap();
        fs::write(self.config(), edited).unwrap();
    }
}

/// Changes that sandbox `by` asks for: a URL to set, or none to clear.
pub(crate) fn changes(by: &str, services: &[(&str, Option<&str>)]) -> RouteChanges {
    let change = |url: &str| {
        let (url, owner) = (url.parse().unwrap(), by.parse().unwrap());
        Override::new(url, OverrideKind::Sandbox, owner)
    };
    RouteChanges {
        services: services.iter().map(|(name, url)| (name.parse().unwrap(), url.map(change))).collect(),
        by: Some(by.parse().unwrap()),
        ..RouteChanges::default()
    }
}

/// The key of sandbox `name` in these tests.
pub(crate) fn key(name: &str) -> SandboxKey {
    SandboxKey::generate(&name.parse().unwrap(), 7)
}

/// Routes of sandbox `by`'s own requests, asked for by itself; none to clear them.
pub(crate) fn requests(by: &str, services: Option<&[(&str, &str)]>) -> RouteChanges {
    let routes = services.map(|services| RequestRoutes {
        key: key(by),
        services: services.iter().map(|(name, url)| (name.parse().unwrap(), url.parse().unwrap())).collect(),
    });
    RouteChanges {
        requests: [(by.parse().unwrap(), routes)].into(),
        by: Some(by.parse().unwrap()),
        ..RouteChanges::default()
    }
}

/// Knows one checkout and its one committed file.
#[derive(Debug, Default)]
pub(crate) struct OneCheckout {
    state: Mutex<Option<(Checkout, Vec<u8>)>>,
}

#[async_trait]
impl RepoSource for OneCheckout {
    fn repos(&self) -> Vec<RepoSpec> {
        Vec::new()
    }

    async fn verify(
        &self,
        _repo: Option<&RepoName>,
        _credentials: &sdp_core::Credentials,
        _cancel: &CancellationToken,
    ) -> Result<(), RepoError> {
        Ok(())
    }

    async fn branches(
        &self,
        repo: &RepoName,
        _credentials: Option<&sdp_core::Credentials>,
        _cancel: &CancellationToken,
    ) -> Result<Vec<Branch>, RepoError> {
        Err(RepoError::UnknownRepo { repo: repo.clone() })
    }

    async fn prepare(
        &self,
        key: &InstanceKey,
        _branch: &BranchName,
        _credentials: Option<&sdp_core::Credentials>,
        _sink: &dyn EventSink,
        _cancel: &CancellationToken,
    ) -> Result<Checkout, RepoError> {
        Err(RepoError::UnknownRepo { repo: key.repo.clone() })
    }

    async fn prepare_commit(
        &self,
        key: &InstanceKey,
        _branch: &BranchName,
        _commit: &CommitId,
        _credentials: Option<&sdp_core::Credentials>,
        _sink: &dyn EventSink,
        _cancel: &CancellationToken,
    ) -> Result<Checkout, RepoError> {
        Err(RepoError::UnknownRepo { repo: key.repo.clone() })
    }

    async fn checkout(&self, _key: &InstanceKey) -> Result<Option<Checkout>, RepoError> {
        Ok(self.state.lock().unwrap().as_ref().map(|(checkout, _)| checkout.clone()))
    }

    async fn committed_file(&self, _key: &InstanceKey, path: &Path) -> Result<Option<Vec<u8>>, RepoError> {
        let state = self.state.lock().unwrap();
        Ok(state.as_ref().filter(|_| path == Path::new(CONFIG)).map(|(_, committed)| committed.clone()))
    }

    async fn rewind(&self, _key: &InstanceKey, _to: &Checkout) -> Result<(), RepoError> {
        Ok(())
    }

    async fn discard(&self, _key: &InstanceKey) -> Result<(), RepoError> {
        *self.state.lock().unwrap() = None;
        Ok(())
    }
}
