//! The gateways of one agent: the shared one, and those that sandboxes bring.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    model::{
        ids::InstanceKey,
        names::{RepoName, SandboxName},
    },
    routes::{RouteError, RouteStore},
};

/// Makes the routes of sandboxes' own gateways.
pub trait OwnGateways: std::fmt::Debug + Send + Sync {
    /// The routes of the gateway that `sandbox` deploys from its own branch. Does no I/O: whether it has one is
    /// found out when the routes are used.
    ///
    /// # Errors
    /// [`RouteError`] when they cannot be had.
    fn routes_of(&self, sandbox: &SandboxName) -> Result<Arc<dyn RouteStore>, RouteError>;
}

/// The gateways of one agent, all of the same repo. Clones share everything.
#[derive(Debug, Clone)]
pub struct Gateways {
    repo: RepoName,
    shared: Arc<dyn RouteStore>,
    own: Option<Arc<dyn OwnGateways>>,
    /// What was made already: a store remembers what its gateway was last seen to use.
    made: Arc<Mutex<BTreeMap<SandboxName, Arc<dyn RouteStore>>>>,
}

impl Gateways {
    /// The shared gateway of `repo`, and none of a sandbox.
    pub fn new(repo: RepoName, shared: Arc<dyn RouteStore>) -> Self {
        Self { repo, shared, own: None, made: Arc::default() }
    }

    /// Lets sandboxes bring gateways of their own.
    pub fn own(mut self, own: Arc<dyn OwnGateways>) -> Self {
        self.own = Some(own);
        self
    }

    /// The gateways' repo.
    pub fn repo(&self) -> &RepoName {
        &self.repo
    }

    /// Whether sandboxes may bring gateways of their own.
    pub fn allow_own(&self) -> bool {
        self.own.is_some()
    }

    /// The routes of the shared gateway, or of a sandbox's own.
    ///
    /// # Errors
    /// [`RouteError::NoOwnGateways`]; what [`OwnGateways::routes_of`] says.
    pub fn routes(&self, sandbox: Option<&SandboxName>) -> Result<Arc<dyn RouteStore>, RouteError> {
        let Some(sandbox) = sandbox else { return Ok(Arc::clone(&self.shared)) };
        let own = self.own.as_ref().ok_or_else(|| RouteError::NoOwnGateways { sandbox: sandbox.clone() })?;
        let mut made = self.made();
        if let Some(routes) = made.get(sandbox) {
            return Ok(Arc::clone(routes));
        }
        let routes = own.routes_of(sandbox)?;
        made.insert(sandbox.clone(), Arc::clone(&routes));
        Ok(routes)
    }

    /// The routes of the gateway that `key` is; none when it is another repo, or a sandbox's gateway where sandboxes
    /// have none of their own.
    ///
    /// # Errors
    /// As [`routes`](Self::routes).
    pub fn routes_of(&self, key: &InstanceKey) -> Result<Option<Arc<dyn RouteStore>>, RouteError> {
        if key.repo != self.repo || key.sandbox.is_some() && !self.allow_own() {
            return Ok(None);
        }
        self.routes(key.sandbox.as_ref()).map(Some)
    }

    /// Forgets what was made for a sandbox whose gateway is gone.
    pub fn forget(&self, key: &InstanceKey) {
        if let Some(sandbox) = key.sandbox.as_ref().filter(|_| key.repo == self.repo) {
            self.made().remove(sandbox);
        }
    }

    fn made(&self) -> MutexGuard<'_, BTreeMap<SandboxName, Arc<dyn RouteStore>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
