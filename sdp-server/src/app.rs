//! The composition root: [`AppState`], the router, and the running [`Server`].

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use rustix::net::sockopt;
use sdp_core::{
    AgentName, SandboxName,
    api::live::Change,
    config::ConfigError,
    data_dir::{DataDirError, DataDirLock},
};
use secrecy::SecretString;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ServerConfig, api,
    auth::{self, Limiter, People, Sessions},
    config::TlsConfig,
    events::{EventLogError, EventLogs},
    hub::{Hub, IngestError},
    integrations::Integrations,
    metrics::Metrics,
    routing::Routing,
    serve::{self, Serving},
    store::{Store, StoreError},
    tls::{Tls, TlsError},
    turns::Turns,
    upkeep,
};

/// How long requests in flight have when the server stops.
const GRACE: Duration = Duration::from_secs(10);

/// How much the kernel keeps of what one connection is sent and has not taken; it takes twice this.
/// Left to itself, Linux would keep up to 4 MiB of a log for a reader that takes nothing.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The address cannot be served on.
    #[error("{address} cannot be listened on; is another server running there, or `listen` wrong?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What went wrong below.
        source: io::Error,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event logs cannot be used.
    #[error(transparent)]
    Events(#[from] EventLogError),
    /// Connections cannot be encrypted.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The database cannot be brought up to what the logs say.
    #[error("the database cannot be brought up to date with the event logs")]
    Recover(#[from] IngestError),
}

/// What a server is made of, for who composes it otherwise than from a configuration alone.
#[derive(Debug)]
pub struct Parts {
    /// The configuration; `listen` and `data_dir` are not looked at.
    pub config: ServerConfig,
    /// The database.
    pub store: Store,
    /// The event logs.
    pub logs: EventLogs,
    /// Where to serve.
    pub listener: TcpListener,
}

/// Everything the handlers share. Clones share it.
#[derive(Debug, Clone)]
pub struct AppState {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ServerConfig,
    store: Store,
    logs: EventLogs,
    hub: Hub,
    sessions: Sessions,
    people: People,
    limiter: Limiter,
    turns: Turns<SandboxName>,
    routing: Routing,
    metrics: Metrics,
    integrations: Integrations,
    stop: CancellationToken,
}

impl AppState {
    /// The state of a control plane that is to be mounted in another service; see [`router`].
    ///
    /// # Errors
    /// [`ServerError::Recover`]; [`ServerError::Store`]; [`ServerError::Config`] when a secret that it names cannot be
    /// read.
    pub async fn new(config: ServerConfig, store: Store, logs: EventLogs) -> Result<Self, ServerError> {
        store.forget_interrupted().await?;
        store.tell(&Change::Started { version: env!("CARGO_PKG_VERSION").into() });
        let metrics = Metrics::default();
        let hub = Hub::new(store.clone(), logs.clone(), config.agents.clone(), metrics.clone());
        hub.recover().await?;
        let inner = Inner {
            people: People::load(store.clone(), config.auth.clone()).await?,
            sessions: Sessions::new(config.session.idle, config.session.absolute),
            limiter: Limiter::new(config.login.attempts, config.login.window),
            turns: Turns::default(),
            routing: Routing::default(),
            metrics,
            integrations: Integrations::new(&config)?,
            stop: CancellationToken::new(),
            config,
            store,
            logs,
            hub,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The configuration.
    pub fn config(&self) -> &ServerConfig {
        &self.inner.config
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The event logs.
    pub fn logs(&self) -> &EventLogs {
        &self.inner.logs
    }

    /// The agents' connections.
    pub fn hub(&self) -> &Hub {
        &self.inner.hub
    }

    /// Who is signed in.
    pub fn sessions(&self) -> &Sessions {
        &self.inner.sessions
    }

    /// Who may do what, and the tokens for scripts.
    pub fn people(&self) -> &People {
        &self.inner.people
    }

    /// Sign-in attempts.
    pub fn limiter(&self) -> &Limiter {
        &self.inner.limiter
    }

    /// Who changes what runs in a sandbox.
    pub(crate) fn turns(&self) -> &Turns<SandboxName> {
        &self.inner.turns
    }

    /// Routes that follow what happens to sandboxes.
    pub(crate) fn routing(&self) -> &Routing {
        &self.inner.routing
    }

    /// What is counted and measured.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// What the server works with outside.
    pub(crate) fn integrations(&self) -> &Integrations {
        &self.inner.integrations
    }

    /// Cancelled when the server stops: streams end.
    pub fn stopping(&self) -> &CancellationToken {
        &self.inner.stop
    }

    /// Ends streams and agents' connections.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.hub.shutdown().await;
    }
}

/// The whole control plane as a router, to serve or to mount inside another one.
///
/// Serve it with [`ConnectInfo`](axum::extract::ConnectInfo) so that sign-in attempts are counted by address.
pub fn router(state: AppState) -> Router {
    api::router(state)
}

/// A running control plane.
#[derive(Debug)]
pub struct Server {
    state: AppState,
    address: SocketAddr,
    serving: JoinHandle<()>,
    upkeep: TaskTracker,
    /// Keeps other servers off the data directory.
    _lock: Option<DataDirLock>,
}

impl Server {
    /// Opens the data directory and serves.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn bind(config: ServerConfig) -> Result<Self, ServerError> {
        config.check()?;
        let lock = DataDirLock::take(&config.data_dir)?;
        let store = Store::open(&config.data_dir.join("sdp.db"))?;
        let logs = EventLogs::open(config.data_dir.join("logs"))?;
        let address = config.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })?;
        let server = Self::bind_with(Parts { config, store, logs, listener }).await?;
        Ok(Self { _lock: Some(lock), ..server })
    }

    /// Serves from parts.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn bind_with(parts: Parts) -> Result<Self, ServerError> {
        let Parts { config, store, logs, listener } = parts;
        let listen = config.listen;
        let address = listener.local_addr().map_err(|source| ServerError::Listen { address: listen, source })?;
        // Connections get it from the listener.
        sockopt::set_socket_send_buffer_size(&listener, SEND_BUFFER_BYTES)
            .map_err(|error| ServerError::Listen { address: listen, source: error.into() })?;
        let state = AppState::new(config, store, logs).await?;
        let tls = state.config().tls.clone().map(|TlsConfig { certificate, key }| Tls::new(certificate, key));
        let tls = tls.transpose()?;
        let upkeep = upkeep::start(&state);
        if let Some(tls) = tls.clone() {
            upkeep.spawn(tls.keep_fresh(state.stopping().clone()));
        }
        tracing::info!(%address, tls = tls.is_some(), "serving");
        let serving = Serving {
            app: router(state.clone()),
            tls,
            connections: state.config().connections,
            head: serve::HEAD,
            stalled: serve::STALLED,
            stop: state.stopping().clone(),
        };
        let serving = tokio::spawn(serving.run(listener));
        Ok(Self { state, address, serving, upkeep, _lock: None })
    }

    /// Where it serves.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What the handlers share.
    pub fn state(&self) -> &AppState {
        &self.state
    }

    /// Enrols an agent and gives its token, which is not to be had again.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when the name is taken.
    pub async fn enrol(&self, name: &AgentName) -> Result<SecretString, StoreError> {
        auth::enrol(&self.state.inner.store, name).await
    }

    /// Waits until it ends of itself.
    pub async fn join(&mut self) {
        // A panic has been reported where it happened.
        let _ = (&mut self.serving).await;
    }

    /// Stops: streams and agents' connections end, requests in flight are answered.
    pub async fn shutdown(mut self) {
        self.state.shutdown().await;
        if tokio::time::timeout(GRACE, &mut self.serving).await.is_err() {
            tracing::warn!("some requests were still in flight");
            self.serving.abort();
        }
        self.upkeep.wait().await;
    }
}
