//! The composition root: parts in, a running agent out.

use std::sync::Arc;

use sdp_core::{
    Deployer, Gateways, OwnGateways, RepoSource, RouteStore,
    data_dir::DataDirLock,
    deploy::{Deadlines, Pipeline, PortPool},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    config::AgentConfig,
    disk::Admission,
    error::AgentError,
    inventory::Inventories,
    link::{self, LinkParts, LinkState, Timing},
    outbox::Outbox,
    output::Outputs,
    redact::Redactor,
    requests::Requests,
    work::{Work, WorkParts},
};

/// What an agent is made of: the adapters that the configuration names, or a test's doubles.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where code comes from.
    pub source: Arc<dyn RepoSource>,
    /// How it runs.
    pub deployer: Arc<dyn Deployer>,
    /// The gateway's routes; used when the configuration has a gateway.
    pub routes: Option<Arc<dyn RouteStore>>,
    /// The routes of gateways that sandboxes bring; without, they bring none.
    pub own_gateways: Option<Arc<dyn OwnGateways>>,
    /// Secrets that no event or answer may show, besides those that requests bring.
    pub secrets: Vec<SecretString>,
    /// How long a deployment's stages may take.
    pub deadlines: Deadlines,
    /// How the connection is kept up.
    pub timing: Timing,
}

impl Parts {
    /// Parts without a gateway, and with the usual times.
    pub fn new(source: Arc<dyn RepoSource>, deployer: Arc<dyn Deployer>) -> Self {
        Self {
            source,
            deployer,
            routes: None,
            own_gateways: None,
            secrets: Vec::new(),
            deadlines: Deadlines::default(),
            timing: Timing::default(),
        }
    }

    /// Sets the gateway's routes.
    pub fn routes(mut self, routes: Arc<dyn RouteStore>) -> Self {
        self.routes = Some(routes);
        self
    }

    /// Lets sandboxes bring gateways of their own.
    pub fn own_gateways(mut self, own: Arc<dyn OwnGateways>) -> Self {
        self.own_gateways = Some(own);
        self
    }
}

/// A running agent. Dropping it leaves it running: [`shutdown`](Self::shutdown) ends it.
#[derive(Debug)]
pub struct Agent {
    outbox: Outbox,
    work: Work,
    outputs: Outputs,
    deployer: Arc<dyn Deployer>,
    link: JoinHandle<()>,
    state: watch::Receiver<LinkState>,
    stop: CancellationToken,
    timing: Timing,
    /// Keeps other agents off the data directory.
    _lock: DataDirLock,
}

impl Agent {
    /// Starts an agent on parts of the caller's. Returns at once: the server is dialled, and what a
    /// crash left is cleaned up, in the background.
    ///
    /// # Errors
    /// [`AgentError`] when the configuration or the data directory cannot be used.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start_with(config: AgentConfig, parts: Parts) -> Result<Self, AgentError> {
        config.check()?;
        let token = config.read_token()?;
        let whole = Arc::new(config.clone());
        let lock = DataDirLock::take(&config.data_dir)?;
        let outbox = Outbox::open(config.data_dir.join("outbox"))?;
        let secrets = parts.secrets.iter().chain([&token]);
        let redactor = secrets.fold(Redactor::default(), |redactor, secret| redactor.secret(secret.expose_secret()));
        let per_request = config.gateway.as_ref().is_some_and(|gateway| gateway.per_request);
        let gateways = config.gateway.as_ref().zip(parts.routes.clone()).map(|(gateway, routes)| {
            let gateways = Gateways::new(gateway.repo.clone(), routes);
            parts.own_gateways.clone().into_iter().fold(gateways, Gateways::own)
        });

        let ports = Arc::new(PortPool::new(config.deployer.port_range.0.clone(), config.deployer.publish));
        let (source, deployer) = (Arc::clone(&parts.source), Arc::clone(&parts.deployer));
        let mut pipeline = Pipeline::new(source, deployer, ports, config.advertise.clone())
            .builds(config.deployer.builds())
            .deadlines(parts.deadlines.clone());
        if let Some(gateways) = &gateways {
            pipeline = pipeline.gateways(gateways.clone());
        }
        let work_parts = WorkParts {
            pipeline,
            source: Arc::clone(&parts.source),
            deployer: Arc::clone(&parts.deployer),
            gateways: gateways.clone(),
            admission: Admission::new(&config),
            outbox: outbox.clone(),
            redactor: redactor.clone(),
            drain: config.deployer.drain,
        };
        let work = Work::start(config.data_dir.join("work"), work_parts)?;
        let link_parts = LinkParts {
            name: config.name,
            server: config.server,
            transport: config.transport,
            token,
            timing: parts.timing.clone(),
            inventories: Inventories {
                advertise: config.advertise,
                source: Arc::clone(&parts.source),
                deployer: Arc::clone(&parts.deployer),
                gateways: gateways.clone(),
                per_request,
                port_range: config.deployer.port_range,
                exec: config.deployer.exec,
            },
            outbox: outbox.clone(),
            work: work.clone(),
            requests: Requests {
                source: parts.source,
                deployer: parts.deployer,
                gateways,
                work: work.clone(),
                redactor,
                config: whole,
                examining: Arc::default(),
                outputs: Outputs::default(),
            },
        };
        let (outputs, deployer) = (link_parts.requests.outputs.clone(), Arc::clone(&link_parts.requests.deployer));
        let (states, state) = watch::channel(LinkState::Connecting);
        let stop = CancellationToken::new();
        let link = tokio::spawn(link::run(Arc::new(link_parts), states, stop.clone()));
        Ok(Self { outbox, work, outputs, deployer, link, state, stop, timing: parts.timing, _lock: lock })
    }

    /// How the connection to the server stands, now and from now on.
    pub fn link(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// Returns when the agent has ended of itself, which only a defect makes it do.
    pub async fn join(&mut self) {
        if let Err(error) = (&mut self.link).await {
            tracing::error!(%error, "the link ended");
        }
    }

    /// Accepts no more deployments, and returns when those that were under way have ended.
    pub async fn finish(&self) {
        self.work.finish().await;
    }

    /// Stops: no new work, what is under way is cancelled and undone, commands are ended, the last events are sent if
    /// the server takes them soon; those it does not take wait on disk for the next start.
    pub async fn shutdown(self) {
        // A disk that stays full must not keep it from stopping.
        self.outbox.close();
        self.outputs.close().await;
        self.work.shutdown().await;
        let (mut state, mut changes) = (self.state.clone(), self.outbox.changes());
        let sent = async {
            while matches!(*state.borrow_and_update(), LinkState::Connected { .. })
                && !self.outbox.deployments().is_empty()
            {
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    changed = state.changed() => if changed.is_err() { return },
                }
            }
        };
        if tokio::time::timeout(self.timing.farewell, sent).await.is_err() {
            tracing::warn!("the server did not acknowledge the last events in time; they wait on disk");
        }
        let commands = async {
            // One that was about to begin is let go as well.
            self.outputs.let_go().await;
            self.deployer.commands_ended().await;
        };
        if tokio::time::timeout(self.timing.farewell, commands).await.is_err() {
            tracing::warn!("a command that was told to end has not ended in time");
        }
        self.stop.cancel();
        if let Err(error) = self.link.await {
            tracing::error!(%error, "the link ended");
        }
    }
}
