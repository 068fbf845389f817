//! Agents' connections: sessions, requests in flight, events on their way to disk, dispatch.
//!
//! - The newest connection of an agent replaces an older one.
//! - A request fails as soon as the connection it went over is gone.
//! - An event is acknowledged when it is in the deployment's log on disk, and not before.

mod dispatch;
mod ingest;
mod intake;
mod output;
mod polled;
mod request;
mod session;
mod socket;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use sdp_core::{
    Agent, AgentName, Deployment, DeploymentId, Inventory, Transport,
    api::live::{AgentHappened, Change},
    protocol::{ReplyBody, RequestBody, ServerFrame},
};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::request::Pending;
pub use self::{
    dispatch::{Asker, Destination},
    ingest::IngestError,
    request::RequestError,
};
pub(crate) use self::{
    dispatch::{Earlier, declares},
    output::{Piece, Pieces},
    polled::PolledSession,
    socket::accept,
};
use crate::{
    config::AgentsConfig,
    events::EventLogs,
    metrics::Metrics,
    store::{Store, StoreError},
    turns::Turns,
};

/// How many changes a slow listener may be behind before it misses some.
const CHANGES: usize = 1024;

/// The hub. Clones share everything.
#[derive(Debug, Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    logs: EventLogs,
    timing: AgentsConfig,
    metrics: Metrics,
    links: Mutex<HashMap<AgentName, Link>>,
    polled: Mutex<polled::Sessions>,
    epochs: AtomicU64,
    changes: broadcast::Sender<Deployment>,
    connections: watch::Sender<()>,
    /// Whose turn it is to bring changes of a deployment into its log and the database.
    changing: Turns<DeploymentId>,
    /// Deployments on their way to an agent, which no hello can know yet.
    dispatching: Mutex<HashSet<DeploymentId>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Where frames for one connection go. Boxed, because a channel has room for 32 from its beginning:
/// an idle connection should cost little.
type Frames = mpsc::Sender<Box<ServerFrame>>;

/// One agent's live connection.
#[derive(Debug, Clone)]
struct Link {
    epoch: u64,
    transport: Transport,
    inventory: Arc<Inventory>,
    frames: Frames,
    pending: Arc<Pending>,
    close: CancellationToken,
    heard: Arc<Mutex<Timestamp>>,
}

impl Hub {
    /// A hub without connections.
    pub(crate) fn new(store: Store, logs: EventLogs, timing: AgentsConfig, metrics: Metrics) -> Self {
        let shared = Shared {
            store,
            logs,
            timing,
            metrics,
            links: Mutex::default(),
            polled: Mutex::default(),
            epochs: AtomicU64::new(1),
            changes: broadcast::Sender::new(CHANGES),
            connections: watch::Sender::new(()),
            changing: Turns::default(),
            dispatching: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Every change of a deployment from now on.
    pub fn changes(&self) -> broadcast::Receiver<Deployment> {
        self.shared.changes.subscribe()
    }

    /// Changes whenever an agent connects, or tells anew what it is.
    pub fn connections(&self) -> watch::Receiver<()> {
        self.shared.connections.subscribe()
    }

    /// How many agents are connected now.
    pub fn connected(&self) -> usize {
        self.links().len()
    }

    /// Every enrolled agent, by name.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn agents(&self) -> Result<Vec<Agent>, StoreError> {
        // Whoever leaves meanwhile is remembered.
        let told: HashMap<_, _> =
            self.links().iter().map(|(name, link)| (name.clone(), Arc::clone(&link.inventory))).collect();
        let (enrolled, active) = tokio::try_join!(
            self.shared.store.agents_but(told.keys().cloned().collect()),
            self.shared.store.active_deployments(None)
        )?;
        let links = self.links();
        let agents = enrolled.into_iter().map(|(name, last_seen, inventory)| {
            let link = links.get(&name);
            let count = active.iter().filter(|deployment| deployment.agent == name).count();
            Agent {
                connected: link.is_some(),
                transport: link.map(|link| link.transport),
                last_seen: link.map(Link::heard).or(last_seen),
                inventory: link.map(|link| &link.inventory).or(told.get(&name)).cloned().or(inventory.map(Arc::new)),
                active_deployments: u32::try_from(count).unwrap_or(u32::MAX),
                name,
            }
        });
        Ok(agents.collect())
    }

    /// An enrolled agent.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub(crate) async fn agent(&self, name: &AgentName) -> Result<Option<Agent>, StoreError> {
        Ok(self.agents().await?.into_iter().find(|agent| agent.name == *name))
    }

    /// Asks an agent and waits for its answer, at most the configured time.
    ///
    /// # Errors
    /// [`RequestError`]; at once when the agent is away or goes away meanwhile.
    pub async fn request(&self, agent: &AgentName, body: RequestBody) -> Result<ReplyBody, RequestError> {
        self.request_within(agent, body, self.shared.timing.request).await
    }

    /// Asks an agent and waits at most `limit` for its answer. Where a newer connection has taken the
    /// place of the one that the request went over, it is asked again if that does no harm.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn request_within(
        &self,
        agent: &AgentName,
        body: RequestBody,
        limit: Duration,
    ) -> Result<ReplyBody, RequestError> {
        let routes = route_change(agent, &body);
        let answer = self.ask(agent, body, limit).await?;
        if let Some(change) = routes {
            self.shared.store.tell(&change);
        }
        Ok(answer)
    }

    async fn ask(&self, agent: &AgentName, body: RequestBody, limit: Duration) -> Result<ReplyBody, RequestError> {
        let link = self.links().get(agent).cloned();
        let Some(link) = link else { return Err(self.away(agent).await) };
        let again = body.is_repeatable().then(|| body.clone());
        let answer = request::send(agent, &link, body, limit).await;
        let newer = self.links().get(agent).filter(|newer| newer.epoch != link.epoch).cloned();
        match (answer, again, newer) {
            (Err(lost @ RequestError::Lost { .. }), Some(body), Some(newer)) => {
                match request::send(agent, &newer, body, limit).await {
                    // Not asked twice, but perhaps carried out the first time.
                    Err(RequestError::Away { .. }) => Err(lost),
                    answer => answer,
                }
            }
            (answer, ..) => answer,
        }
    }

    /// That an agent is away, and since when.
    pub(crate) async fn away(&self, agent: &AgentName) -> RequestError {
        match self.shared.store.agents().await {
            Ok(agents) => {
                let seen = agents.into_iter().find(|(name, ..)| name == agent).and_then(|(_, seen, _)| seen);
                RequestError::Away { agent: agent.clone(), last_seen: seen }
            }
            Err(error) => RequestError::Store(error),
        }
    }

    /// Ends an agent's connection; it may come back if its token is still good.
    pub(crate) fn disconnect(&self, agent: &AgentName) {
        if let Some(link) = self.links().get(agent) {
            link.end();
        }
    }

    /// Ends every connection and waits until all is quiet.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn links(&self) -> MutexGuard<'_, HashMap<AgentName, Link>> {
        self.shared.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new connection in; an older one of the same agent ends.
    fn register(&self, agent: &AgentName, transport: Transport, inventory: Inventory, frames: Frames) -> Link {
        let link = Link {
            epoch: self.shared.epochs.fetch_add(1, Ordering::Relaxed),
            transport,
            inventory: Arc::new(inventory),
            frames,
            pending: Arc::default(),
            close: self.shared.stop.child_token(),
            heard: Arc::new(Mutex::new(Timestamp::now())),
        };
        if let Some(older) = self.links().insert(agent.clone(), link.clone()) {
            tracing::warn!(%agent, "a newer connection of this agent replaces the older one");
            older.end();
        }
        self.shared.connections.send_replace(());
        link
    }

    /// Takes a connection out, unless a newer one has its place: then it gives false.
    fn unregister(&self, agent: &AgentName, link: &Link) -> bool {
        link.end();
        let mut links = self.links();
        let is_current = links.get(agent).is_some_and(|current| current.epoch == link.epoch);
        if is_current {
            links.remove(agent);
        }
        is_current
    }

    /// Tells who follows what changes of an agent that came or went.
    fn tell_of(&self, agent: &AgentName, change: AgentHappened) {
        self.shared.store.tell(&Change::Agent { name: agent.clone(), change });
    }

    fn set_inventory(&self, agent: &AgentName, epoch: u64, inventory: Inventory) {
        if let Some(link) = self.links().get_mut(agent).filter(|link| link.epoch == epoch) {
            link.inventory = Arc::new(inventory);
            self.shared.connections.send_replace(());
        }
    }
}

/// What a request changes of routes, if it does.
fn route_change(agent: &AgentName, body: &RequestBody) -> Option<Change> {
    let RequestBody::ApplyRoutes { changes, sandbox } = body else { return None };
    let services = changes.services.keys().cloned().collect();
    let mut sandboxes = changes.clear.clone();
    sandboxes.extend(changes.requests.keys().chain(&changes.by).cloned());
    Some(Change::Route { gateway: agent.clone(), sandbox: sandbox.clone(), services, sandboxes })
}

impl Link {
    fn heard(&self) -> Timestamp {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Timestamp::now();
    }

    fn end(&self) {
        self.close.cancel();
        self.pending.close();
    }
}
