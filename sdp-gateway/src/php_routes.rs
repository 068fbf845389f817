use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sdp_core::claims::Claims;
use sdp_core::model::names::{BranchName, ServiceName};
use sdp_core::model::repo::Checkout;
use sdp_core::model::route::{RouteChanges, RouteDefaults, RouteTable};
use sdp_core::{Clock, Explanation, RepoSource, RouteError, RouteQuestion, RouteStore, ServedBy, SystemClock};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::atomic;
use crate::change::Change;
use crate::config::{ConfigError, GatewayConfig};
use crate::defaults;
use crate::error::{io_error, lock_error, php_error, repo_error};
use crate::files::{Files, Mode, Rendered, in_force, read_all, read_consistent, rendered};
use crate::http::Connection;
use crate::lint::lint;
use crate::lock::Lock;
use crate::overrides::{Overrides, Record};
use crate::php::ConfigFile;
use crate::plan::plan;
use crate::probe::{self, Expected, Question, Verdict};
use crate::reload::{Reload, Reloaded};
use crate::site::{Site, program_from};
use crate::table::{Seen, Sources, table};

/// A [`RouteStore`] on the PHP configuration of a gateway's checkout. Cheap to clone; clones are the same store.
///
/// What SDP records lies beside the checkout's own files, in `.sdp/`: `overrides.json` (what it wrote and for whom),
/// `ocp-defaults.json` (the branches' own values), `lock`, `drifted-<time>.php` (a copy of a file that somebody had
/// edited, made before it was replaced), and for routing per request `request.php` and its table `routes.php`.
#[derive(Debug, Clone)]
pub struct PhpRoutes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: GatewayConfig,
    repos: Arc<dyn RepoSource>,
    reload: Arc<dyn Reload>,
    clock: Arc<dyn Clock>,
    /// Where the program that chooses routes per request is, from the configuration.
    program: String,
    /// What the gateway was last seen to use.
    seen: Mutex<Seen>,
    /// Where it last answered: whoever runs it takes a while to say.
    answered: Mutex<Option<Url>>,
    /// Where the checkout was when its files were last changed.
    root: Mutex<Option<PathBuf>>,
}

/// What is read before anything is decided.
struct Base {
    checkout: Checkout,
    committed: ConfigFile,
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
        Self::with_clock(config, repos, reload, Arc::new(SystemClock))
    }

    /// As [`PhpRoutes::new`], with another clock to tell when claims expire.
    ///
    /// # Errors
    /// As [`PhpRoutes::new`].
    pub fn with_clock(
        config: GatewayConfig,
        repos: Arc<dyn RepoSource>,
        reload: Arc<dyn Reload>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let program = program_from(&config.config);
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                repos,
                reload,
                clock,
                program,
                seen: Mutex::default(),
                answered: Mutex::default(),
                root: Mutex::default(),
            }),
        })
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

    async fn explain(&self, question: &RouteQuestion) -> Result<Explanation, RouteError> {
        let mut explanation = Explanation::of(&self.inner.table().await?, question);
        let target = explanation.target.as_deref().filter(|_| !explanation.expression);
        let target =
            target.and_then(|target| Url::parse(target).ok()).filter(|url| matches!(url.scheme(), "http" | "https"));
        match target {
            Some(url) => explanation.answer = Some(probe::target(&url).await),
            None if explanation.served_by == ServedBy::Nothing => {}
            None => explanation.because.push("only the gateway can tell the URL, so it was not asked".into()),
        }
        Ok(explanation)
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
        let key = self.config.key();
        let (checkout, bytes) = tokio::join!(self.checkout(), self.repos.committed_file(&key, &self.config.config));
        let (checkout, bytes) = (checkout?, bytes.map_err(|error| repo_error(&site.config, error))?);
        let bytes = bytes.ok_or_else(|| RouteError::NoGateway { path: site.config.clone() })?;
        let committed = ConfigFile::parse(bytes).map_err(|error| php_error(&site.config, None, error))?;
        Ok(Base { checkout, committed })
    }

    /// The lock, and what is there under it.
    async fn locked(&self) -> Result<(Site, Lock, Base), RouteError> {
        // Mostly it is where it was, which is seen under the lock.
        let known = lock(&self.root).clone();
        if let Some(root) = known
            && let Ok(site) = Site::open(&root, &self.config.config)
        {
            let locked = self.locked_at(site).await?;
            if locked.2.checkout.path == root {
                return Ok(locked);
            }
        }
        let locked = self.locked_at(self.site().await?).await?;
        *lock(&self.root) = Some(locked.2.checkout.path.clone());
        Ok(locked)
    }

    async fn locked_at(&self, site: Site) -> Result<(Site, Lock, Base), RouteError> {
        site.make()?;
        let lock = self.lock(&site).await?;
        let base = self.base(&site).await?;
        Ok((site, lock, base))
    }

    async fn lock(&self, site: &Site) -> Result<Lock, RouteError> {
        let path = site.lock();
        Lock::acquire(&path, self.config.lock_timeout).await.map_err(|error| lock_error(&path, error))
    }

    async fn table(&self) -> Result<RouteTable, RouteError> {
        let site = self.site().await?;
        let base = self.base(&site).await?;
        let (record, files) = read_consistent(&site)?;
        self.table_of(&site, base, &record, &files)
    }

    /// How the routes are to be written.
    fn mode(&self) -> Mode<'_> {
        if self.config.per_request { Mode::PerRequest(&self.program) } else { Mode::Plain }
    }

    /// How they may have been written, likely first.
    fn modes(&self) -> [Mode<'_>; 2] {
        let modes = [Mode::PerRequest(&self.program), Mode::Plain];
        if self.config.per_request { modes } else { [modes[1], modes[0]] }
    }

    fn table_of(&self, site: &Site, base: Base, record: &Record, files: &Files) -> Result<RouteTable, RouteError> {
        let committed = &base.committed;
        let claims = in_force(record, committed, files, self.modes());
        let bytes = files.config.clone().ok_or_else(|| RouteError::NoGateway { path: site.config.clone() })?;
        let file = ConfigFile::parse(bytes).map_err(|error| php_error(&site.config, None, error))?;
        let ours = match self.mode() {
            Mode::Plain if claims.requests.is_empty() => None,
            mode => {
                let rendered = rendered(committed, &claims, mode);
                Some(rendered.map_err(|error| php_error(&site.config, Some(committed), error))?)
            }
        };
        let is_ours = |ours: &Rendered| (&ours.files.table, &ours.files.program) == (&files.table, &files.program);
        let seen = lock(&self.seen).clone();
        let sources = Sources {
            committed,
            file: &file,
            claims: &claims,
            seen: &seen,
            per_request: self.config.per_request,
            table_is_ours: ours.as_ref().is_some_and(is_ours),
        };
        let mut table = table(base.checkout.branch, &sources);
        table.warnings.extend(ours.into_iter().flat_map(|ours| ours.requests_aside));
        Ok(table)
    }

    async fn snapshot(&self, branch: &BranchName) -> Result<RouteDefaults, RouteError> {
        let (site, _lock, base) = self.locked().await?;
        defaults::snapshot(&site.defaults(), branch, &base.checkout.commit, &base.committed)
    }

    async fn apply(&self, changes: &RouteChanges) -> Result<RouteTable, RouteError> {
        let (site, _lock, base) = self.locked().await?;
        site.sweep()?;
        let (record, files) = read_all(&site)?;
        let committed = &base.committed;
        let before = in_force(&record, committed, &files, self.modes());
        let now = self.clock.now();
        let plan = plan(&site.config, committed, &before, changes, self.mode(), now)?;
        let drifted = files.config.as_deref().is_some_and(|config| config != committed.bytes())
            && !self.wrote_config(committed, &before, &record, &files);
        let change = Arc::new(Change::new(site.clone(), before, files, plan, drifted, now));
        if let Some(command) = self.config.lint.as_deref() {
            for (path, bytes) in change.new_php().into_iter().filter(|(_, bytes)| bytes != committed.bytes()) {
                lint(command, &path, &bytes).await?;
            }
        }
        atomic::check(&site.config).map_err(|error| io_error("write", &site.config, error))?;

        let mut warnings = match self.make(&change, &base.committed).await {
            Ok(warnings) => warnings,
            Err(error) => {
                let undo = Arc::clone(&change);
                if blocking(move || Ok(undo.undo())).await? {
                    // The gateway may already have read the new file.
                    self.reload.reload().await.map(drop).unwrap_or_else(|error| {
                        tracing::error!(%error, "the previous routes were put back but the gateway was not reloaded");
                    });
                    self.look_again(&site).await;
                }
                return Err(error);
            }
        };
        let (record, files) = read_all(&site)?;
        let mut table = self.table_of(&site, base, &record, &files)?;
        warnings.extend(change.plan.warnings.iter().cloned());
        warnings.append(&mut table.warnings);
        table.warnings = warnings;
        table.taken = change.plan.taken.clone();
        Ok(table)
    }

    /// Whether the configuration is one that SDP wrote, whatever became of the files beside it: before the last
    /// change, or in the middle of one that was cut off.
    fn wrote_config(&self, committed: &ConfigFile, before: &Claims, record: &Record, files: &Files) -> bool {
        let wrote = |claims: &Claims| {
            let config = |mode| rendered(committed, claims, mode).ok().and_then(|rendered| rendered.files.config);
            self.modes().into_iter().any(|mode| config(mode) == files.config)
        };
        wrote(before) || record.pending().is_some_and(|pending| wrote(&pending))
    }

    /// Writes the change and sees the gateway take it over.
    async fn make(&self, change: &Arc<Change>, committed: &ConfigFile) -> Result<Vec<String>, RouteError> {
        let mut warnings = Vec::new();
        let write = Arc::clone(change);
        let expected = expected(committed, &change.before.overrides, &change.plan.claims.overrides);
        // The question itself has OPcache look at the files again. Only a gateway whose answer does not prove that it
        // knows them then is reloaded, which costs it the connections that are kept alive.
        let named = &change.plan.services;
        let can_prove = !named.is_empty() && named.iter().all(|service| expected.contains_key(service));
        let ask_first = change.is_of_requests_alone() || can_prove;
        // To connect takes a gateway about as long as to answer, so it does that while the disk is busy.
        let known = lock(&self.answered).clone().filter(|_| ask_first);
        let opening = AbortOnDropHandle::new(tokio::spawn(async move { Connection::open(&known?).await.ok() }));
        warnings.extend(blocking(move || write.write()).await?);
        let open = if opening.is_finished() { opening.await.ok().flatten() } else { None };
        let confirm = Arc::clone(change);
        // Both to their end, so that nothing is still being written when all of it is put back.
        let (taken, confirmed) = tokio::join!(
            self.take_over(change, committed, &expected, ask_first, open),
            blocking(move || confirm.confirm())
        );
        warnings.extend(taken?);
        confirmed?;
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

    /// Has the gateway take the change over, and asks it what it uses. A warning, not an error, is a gateway that does not
    /// run or cannot be asked, and a service the change is not about: others must not suffer from it.
    ///
    /// With `ask_first` it is asked before it is reloaded, over the connection that is `open` to it, if one is.
    async fn take_over(
        &self,
        change: &Change,
        committed: &ConfigFile,
        expected: &BTreeMap<ServiceName, Expected>,
        ask_first: bool,
        open: Option<Connection>,
    ) -> Result<Option<String>, RouteError> {
        self.set_seen(Seen::new());
        let services: Vec<ServiceName> = defaults::of(committed).into_keys().collect();
        let is_of_requests = change.is_of_requests_alone();
        let ask = async |base: &Url, settle, open| {
            let question = Question {
                base,
                site: &change.site,
                config: &self.config.config,
                expected,
                is_of_requests,
                table: change.plan.version.as_deref(),
                named: &change.plan.services,
                services: &services,
            };
            probe::verify(&question, settle, open).await
        };
        let named = &change.plan.services;
        if ask_first {
            let answered = lock(&self.answered).clone();
            let url = if answered.is_some() { answered } else { self.url().await };
            if let Some(url) = url
                && let Verdict::Taken(seen) = ask(&url, Duration::ZERO, open).await?
                // Some values can be had only by those who use them.
                && (is_of_requests || named.iter().all(|service| seen.contains_key(service)))
            {
                *lock(&self.answered) = Some(url);
                self.set_seen(seen);
                return Ok(None);
            }
        }
        let (reloaded, url) = tokio::join!(self.reload.reload(), self.url());
        match reloaded {
            Ok(Reloaded::Told) => {}
            Ok(Reloaded::NotRunning) => {
                return Ok(Some("the gateway does not run; it will use these routes when it starts".into()));
            }
            Err(error) => {
                let reason = "it could not be told to read its file again".into();
                return Err(RouteError::Reload { reason, source: Some(error.into()) });
            }
        }
        let Some(url) = url else { return Ok(None) };
        let verdict = ask(&url, self.config.settle_timeout, None).await?;
        *lock(&self.answered) = matches!(verdict, Verdict::Taken(_)).then_some(url);
        self.judge(change, verdict)
    }

    /// Has OPcache look at what was put back, as it was made to look at what was there before.
    async fn look_again(&self, site: &Site) {
        let answered = lock(&self.answered).clone();
        let url = if answered.is_some() { answered } else { self.url().await };
        let Some(base) = &url else { return };
        let question = Question {
            base,
            site,
            config: &self.config.config,
            expected: &BTreeMap::new(),
            is_of_requests: false,
            table: None,
            named: &BTreeSet::new(),
            services: &[],
        };
        if let Err(error) = probe::verify(&question, Duration::ZERO, None).await {
            tracing::warn!(%error, "the previous routes were put back but the gateway was not asked again");
        }
    }

    /// What a gateway's answer after its reload means for the change.
    fn judge(&self, change: &Change, verdict: Verdict) -> Result<Option<String>, RouteError> {
        let settle = self.config.settle_timeout;
        match verdict {
            Verdict::Taken(seen) => {
                self.set_seen(seen);
                Ok(None)
            }
            Verdict::Unknown(reason) => {
                tracing::warn!(%reason, "what the gateway uses is unknown");
                Ok(Some(format!("the file is written, but what the gateway uses is unknown: {reason}")))
            }
            Verdict::OtherTable => {
                let reason = format!(
                    "{settle:?} after its reload it still routes requests by another `.sdp/routes.php` (it serves another \
                     checkout, or PHP's OPcache never looks again)"
                );
                Err(RouteError::Reload { reason, source: None })
            }
            Verdict::Differs { uses, seen } => {
                let told: Vec<_> = uses.iter().map(|(service, uses)| format!("{uses} for `{service}`")).collect();
                let told = told.join(", ");
                if uses.keys().any(|service| change.plan.services.contains(service)) {
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
        *lock(&self.seen) = seen;
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
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
