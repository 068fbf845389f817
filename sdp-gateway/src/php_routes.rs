use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use sdp_core::model::names::{BranchName, ServiceName};
use sdp_core::model::repo::Checkout;
use sdp_core::model::route::{RouteChanges, RouteDefaults, RouteTable};
use sdp_core::{RepoSource, RouteError, RouteStore};
use url::Url;

use crate::atomic;
use crate::config::{ConfigError, GatewayConfig};
use crate::defaults;
use crate::error::{io_error, lock_error, php_error, repo_error};
use crate::lint::lint;
use crate::lock::Lock;
use crate::overrides::{Overrides, Record};
use crate::php::ConfigFile;
use crate::plan::{Plan, in_force, plan, rendered};
use crate::probe::{Expected, Probe, Question, Verdict};
use crate::reload::{Reload, Reloaded};
use crate::site::Site;
use crate::table::{Seen, table};

/// A [`RouteStore`] on the PHP configuration of a gateway's checkout. Cheap to clone; clones are the same store.
///
/// What SDP records lies beside the checkout's own files, in `.sdp/`: `overrides.json` (what it wrote and for whom),
/// `ocp-defaults.json` (the branches' own values), `lock`, and `drifted-<time>.php` (a copy of a file that somebody
/// had edited, made before it was replaced).
#[derive(Debug, Clone)]
pub struct PhpRoutes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: GatewayConfig,
    repos: Arc<dyn RepoSource>,
    reload: Arc<dyn Reload>,
    probe: Probe,
    /// What the gateway was last seen to use.
    seen: Mutex<Seen>,
}

/// What is read before anything is decided.
struct Base {
    checkout: Checkout,
    committed: ConfigFile,
}

/// The two files at one moment.
struct Files {
    record: Record,
    config: Option<Vec<u8>>,
}

impl PhpRoutes {
    /// The routes of the gateway that `config` describes, whose checkout and commits `repos` knows, and which `reload`
    /// reloads; [`GatewayConfig::reloader`] makes one. Does no I/O.
    ///
    /// # Errors
    /// [`ConfigError`] when `config` cannot be used.
    pub fn new(
        config: GatewayConfig,
        repos: Arc<dyn RepoSource>,
        reload: Arc<dyn Reload>,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let probe = Probe::new()?;
        Ok(Self { inner: Arc::new(Inner { config, repos, reload, probe, seen: Mutex::default() }) })
    }

    /// Runs `work` to its end even when the caller gives up: half a change is nobody's wish.
    async fn whole<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T, RouteError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, RouteError>> + Send + 'static,
    {
        tokio::spawn(work(Arc::clone(&self.inner))).await.unwrap_or_else(|error| {
            let path = self.inner.config.config.clone();
            Err(RouteError::Io { action: "finish the change of".into(), path, source: error.into() })
        })
    }
}

#[async_trait]
impl RouteStore for PhpRoutes {
    async fn table(&self) -> Result<RouteTable, RouteError> {
        self.inner.table().await
    }

    async fn snapshot(&self, branch: &BranchName) -> Result<RouteDefaults, RouteError> {
        let branch = branch.clone();
        self.whole(|inner| async move { inner.snapshot(&branch).await }).await
    }

    async fn apply(&self, changes: &RouteChanges) -> Result<RouteTable, RouteError> {
        let changes = changes.clone();
        self.whole(|inner| async move { inner.apply(&changes).await }).await
    }

    async fn reload(&self) -> Result<(), RouteError> {
        match self.inner.reload.reload().await {
            Ok(_) => Ok(()),
            Err(error) => Err(RouteError::Reload {
                reason: "it could not be told to read its file again".into(),
                source: Some(error.into()),
            }),
        }
    }
}

impl Inner {
    async fn checkout(&self) -> Result<Checkout, RouteError> {
        let checkout =
            self.repos.checkout(&self.config.key()).await.map_err(|error| repo_error(&self.config.config, error))?;
        checkout.ok_or_else(|| RouteError::NoGateway { path: self.config.config.clone() })
    }

    async fn site(&self) -> Result<Site, RouteError> {
        let root = self.checkout().await?.path;
        Site::open(&root, &self.config.config)
    }

    /// The checkout and what its commit says.
    async fn base(&self, site: &Site) -> Result<Base, RouteError> {
        let checkout = self.checkout().await?;
        let bytes = self
            .repos
            .committed_file(&self.config.key(), &self.config.config)
            .await
            .map_err(|error| repo_error(&site.config, error))?
            .ok_or_else(|| RouteError::NoGateway { path: site.config.clone() })?;
        let committed = ConfigFile::parse(bytes).map_err(|error| php_error(&site.config, None, error))?;
        Ok(Base { checkout, committed })
    }

    async fn lock(&self, site: &Site) -> Result<Lock, RouteError> {
        let path = site.lock();
        Lock::acquire(&path, self.config.lock_timeout).await.map_err(|error| lock_error(&path, error))
    }

    async fn table(&self) -> Result<RouteTable, RouteError> {
        let site = self.site().await?;
        let base = self.base(&site).await?;
        let files = consistent_files(&site)?;
        self.table_of(&site, base, files)
    }

    fn table_of(&self, site: &Site, base: Base, files: Files) -> Result<RouteTable, RouteError> {
        let overrides = in_force(files.record, &base.committed, files.config.as_deref());
        let bytes = files.config.ok_or_else(|| RouteError::NoGateway { path: site.config.clone() })?;
        let file = ConfigFile::parse(bytes).map_err(|error| php_error(&site.config, None, error))?;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(table(base.checkout.branch, &base.committed, &file, &overrides, &seen))
    }

    async fn snapshot(&self, branch: &BranchName) -> Result<RouteDefaults, RouteError> {
        let site = self.site().await?;
        site.make()?;
        let _lock = self.lock(&site).await?;
        let base = self.base(&site).await?;
        defaults::snapshot(&site.defaults(), branch, &base.checkout.commit, &base.committed)
    }

    async fn apply(&self, changes: &RouteChanges) -> Result<RouteTable, RouteError> {
        let site = self.site().await?;
        site.make()?;
        let _lock = self.lock(&site).await?;
        site.sweep()?;
        let base = self.base(&site).await?;
        let files = read_files(&site)?;
        let before = in_force(files.record, &base.committed, files.config.as_deref());
        let plan = plan(&site.config, &base.committed, &before, changes)?;
        if let Some(command) = self.config.lint.as_deref().filter(|_| plan.overriding) {
            lint(command, &site.config, &plan.bytes).await?;
        }
        atomic::check(&site.config).map_err(|error| io_error("write", &site.config, error))?;

        let named = changes.services.keys().cloned().collect();
        let copy = site.own.join(format!("drifted-{}.php", Timestamp::now().strftime("%Y%m%dT%H%M%S%.6fZ")));
        let change = Arc::new(Change { site: site.clone(), before, config: files.config, plan, copy, named });
        let mut warnings = match self.make(&change, &base.committed).await {
            Ok(warnings) => warnings,
            Err(error) => {
                let undo = Arc::clone(&change);
                if blocking(move || Ok(undo.undo())).await? {
                    // The gateway may already have read the new file.
                    self.reload.reload().await.map(drop).unwrap_or_else(|error| {
                        tracing::error!(%error, "the previous routes were put back but the gateway was not reloaded");
                    });
                }
                return Err(error);
            }
        };
        let mut table = self.table_of(&site, base, read_files(&site)?)?;
        warnings.extend(change.plan.warnings.iter().cloned());
        warnings.append(&mut table.warnings);
        table.warnings = warnings;
        Ok(table)
    }

    /// Writes the change and sees the gateway take it over.
    async fn make(&self, change: &Arc<Change>, committed: &ConfigFile) -> Result<Vec<String>, RouteError> {
        let mut warnings = Vec::new();
        let write = Arc::clone(change);
        let drifted = change.drifted(committed);
        warnings.extend(blocking(move || write.write(drifted)).await?);
        warnings.extend(self.take_over(change, committed).await?);
        let confirm = Arc::clone(change);
        blocking(move || confirm.confirm()).await?;
        Ok(warnings)
    }

    /// Where the gateway serves the checkout's root, where that is known.
    async fn url(&self) -> Option<Url> {
        if let Some(url) = &self.config.url {
            return Some(url.clone());
        }
        let port = self.reload.host_port().await?;
        let repo = self.repos.repos().into_iter().find(|repo| repo.name == self.config.repo);
        self.config.url_on(port, repo.and_then(|repo| repo.url_prefix).as_deref().unwrap_or("/"))
    }

    /// Reloads the gateway and asks it what it uses. A warning, not an error, is a gateway that does not run or cannot
    /// be asked, and a service the change is not about: others must not suffer from it.
    async fn take_over(&self, change: &Change, committed: &ConfigFile) -> Result<Option<String>, RouteError> {
        self.set_seen(Seen::new());
        match self.reload.reload().await {
            Ok(Reloaded::Told) => {}
            Ok(Reloaded::NotRunning) => {
                return Ok(Some("the gateway does not run; it will use these routes when it starts".into()));
            }
            Err(error) => {
                let reason = "it could not be told to read its file again".into();
                return Err(RouteError::Reload { reason, source: Some(error.into()) });
            }
        }
        let Some(base) = self.url().await else { return Ok(None) };
        let services: Vec<ServiceName> = defaults::of(committed).into_keys().collect();
        let question = Question {
            base: &base,
            site: &change.site,
            config: &self.config.config,
            expected: &expected(committed, &change.before, &change.plan.overrides),
            named: &change.named,
            services: &services,
        };
        let settle = self.config.settle_timeout;
        match self.probe.verify(&question, settle).await? {
            Verdict::Taken(seen) => {
                self.set_seen(seen);
                Ok(None)
            }
            Verdict::Unknown(reason) => {
                tracing::warn!(%reason, "what the gateway uses is unknown");
                Ok(Some(format!("the file is written, but what the gateway uses is unknown: {reason}")))
            }
            Verdict::Differs { uses, seen } => {
                let told: Vec<_> = uses.iter().map(|(service, uses)| format!("{uses} for `{service}`")).collect();
                let told = told.join(", ");
                if uses.keys().any(|service| change.named.contains(service)) {
                    let reason = format!(
                        "{settle:?} after its reload it still uses {told} (something else sets that too, or PHP's \
                         OPcache never looks again)"
                    );
                    return Err(RouteError::Reload { reason, source: None });
                }
                self.set_seen(seen);
                tracing::warn!(%told, "the gateway does not use some earlier overrides");
                Ok(Some(format!("the gateway does not use what its file says: it uses {told}")))
            }
        }
    }

    fn set_seen(&self, seen: Seen) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

/// A change under way and the way back.
struct Change {
    site: Site,
    /// The overrides in force before.
    before: Overrides,
    /// The gateway's file before; none when there was none.
    config: Option<Vec<u8>>,
    plan: Plan,
    /// Where a copy of the file goes if somebody edited it.
    copy: PathBuf,
    /// The services that the change is about.
    named: BTreeSet<ServiceName>,
}

impl Change {
    /// Whether somebody edited the gateway's file: it is neither what SDP wrote nor a fresh checkout.
    fn drifted(&self, committed: &ConfigFile) -> bool {
        self.config.as_deref().is_some_and(|config| {
            config != committed.bytes()
                && !rendered(committed, &self.before).is_ok_and(|rendered| rendered.bytes == config)
        })
    }

    /// Announces the change and replaces the gateway's file. A copy of a `drifted` one is kept, which the answer tells.
    fn write(&self, drifted: bool) -> Result<Option<String>, RouteError> {
        let record = Record { overrides: self.before.clone(), pending: Some(self.plan.overrides.clone()) };
        record.write(&self.site.overrides())?;
        let mut warning = None;
        if let Some(config) = self.config.as_deref().filter(|_| drifted) {
            let copy = &self.copy;
            atomic::write_like(&self.site.config, copy, config).map_err(|error| io_error("write", copy, error))?;
            tracing::warn!(copy = %copy.display(), "replacing a gateway's file that was edited by hand");
            warning = Some(format!("the file had been edited by hand; that version is kept in {}", copy.display()));
        }
        atomic::write(&self.site.config, &self.plan.bytes)
            .map_err(|error| io_error("write", &self.site.config, error))?;
        Ok(warning)
    }

    /// Records that the change is in force.
    fn confirm(&self) -> Result<(), RouteError> {
        Record { overrides: self.plan.overrides.clone(), pending: None }.write(&self.site.overrides())
    }

    /// Puts both files back. Answers whether the gateway's file had been replaced.
    fn undo(&self) -> bool {
        let config = &self.site.config;
        let replaced = atomic::read(config).map(|now| now != self.config).unwrap_or(true);
        if replaced {
            let back = match &self.config {
                Some(bytes) => atomic::write(config, bytes),
                None => atomic::remove(config),
            };
            back.unwrap_or_else(|error| {
                tracing::error!(path = %config.display(), %error, "failed to put a gateway's previous file back");
            });
        }
        // The edited file itself is in its place again.
        let _ = atomic::remove(&self.copy);
        let record = Record { overrides: self.before.clone(), pending: None };
        record.write(&self.site.overrides()).unwrap_or_else(|error| {
            tracing::error!(%error, "failed to put the previous overrides back; the next change will");
        });
        replaced
    }
}

/// Runs `work`, which waits for the disk, where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RouteError> + Send + 'static,
) -> Result<T, RouteError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        let path = PathBuf::from("the gateway's files");
        Err(RouteError::Io { action: "write".into(), path, source: error.into() })
    })
}

/// What the gateway must use after a change from `before` to `after`.
fn expected(committed: &ConfigFile, before: &Overrides, after: &Overrides) -> BTreeMap<ServiceName, Expected> {
    let has = |service: &ServiceName| committed.entry(service.as_str()).ok();
    let set = after
        .iter()
        .filter(|(service, _)| has(service).is_some())
        .map(|(service, target)| (service.clone(), Expected::Url(target.url.as_str().to_owned())));
    let cleared = before.iter().filter(|(service, target)| {
        let default = has(service).map(|entry| entry.literal());
        !after.contains_key(service) && default.is_some_and(|default| default != Some(target.url.as_str()))
    });
    let cleared =
        cleared.map(|(service, target)| (service.clone(), Expected::AnythingBut(target.url.as_str().to_owned())));
    set.chain(cleared).collect()
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, RouteError> {
    atomic::read(path).map_err(|error| io_error("read", path, error))
}

fn read_files(site: &Site) -> Result<Files, RouteError> {
    let record = read(&site.overrides())?;
    let record = Record::from_bytes(&site.overrides(), record.as_deref())?;
    Ok(Files { record, config: read(&site.config)? })
}

/// Both files as they were together at one moment, without the lock: the record changes before and after every change
/// of the gateway's file, so while it stays the same, so does the file.
fn consistent_files(site: &Site) -> Result<Files, RouteError> {
    loop {
        let before = read(&site.overrides())?;
        let config = read(&site.config)?;
        if before == read(&site.overrides())? {
            let record = Record::from_bytes(&site.overrides(), before.as_deref())?;
            return Ok(Files { record, config });
        }
    }
}
