//! What is running here: deployments under way, by id and by what they change.
//!
//! - A deployment id is accepted once; asking again changes nothing.
//! - Everything that changes one sandbox's repo, deployments, stops, removals, takes its turn. Of
//!   the deployments that wait for one, only the newest stays: it supersedes the older.
//! - What is under way is written down, so that after a crash each deployment is ended truthfully
//!   and what served before it serves again.

mod journal;
mod recovery;
mod retire;
mod tidy;

use std::{
    collections::{BTreeMap, HashMap},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use sdp_core::{
    Credentials, DeployRequest, Deployer, DeploymentId, DeploymentState, ErrorCode, EventKind, EventSink, Gateways,
    InstanceKey, Problem, Replacement, RepoName, RepoSource, Stage, deploy::Pipeline,
};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::journal::Journal;
use crate::{disk::Admission, error::AgentError, outbox::Outbox, redact::Redactor};

/// How many ended deployments are remembered, so that asking again for one changes nothing.
const REMEMBERED: usize = 1000;

/// What [`Work`] is made of.
#[derive(Debug, Clone)]
pub(crate) struct WorkParts {
    pub(crate) pipeline: Pipeline,
    pub(crate) source: Arc<dyn RepoSource>,
    pub(crate) deployer: Arc<dyn Deployer>,
    pub(crate) gateways: Option<Gateways>,
    pub(crate) admission: Admission,
    pub(crate) outbox: Outbox,
    pub(crate) redactor: Redactor,
    /// How long what was replaced serves on after nobody new is sent there.
    pub(crate) drain: Duration,
}

/// The deployments of this agent. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parts: WorkParts,
    journal: Journal,
    table: Mutex<Table>,
    tasks: TaskTracker,
    stopping: CancellationToken,
    /// Cancelled when no more deployments are accepted, and those under way go on to their ends.
    finishing: CancellationToken,
    /// Changes whenever a deployment has ended.
    ended: watch::Sender<()>,
    /// Whether what an earlier agent left is cleaned up.
    ready: watch::Sender<bool>,
    gateway_changed: watch::Sender<()>,
    /// Changes whenever what was replaced by some deployment may be ended.
    deserted: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Table {
    known: BTreeMap<DeploymentId, Known>,
    lanes: HashMap<InstanceKey, Lane>,
}

#[derive(Debug)]
struct Known {
    key: Option<InstanceKey>,
    cancel: CancellationToken,
    ended: bool,
    /// Whether nobody is sent any more to what it replaced.
    deserted: bool,
    /// Whether what it replaced waits to be ended.
    retiring: bool,
}

impl Known {
    fn new(key: Option<InstanceKey>, ended: bool) -> Self {
        Self { key, cancel: CancellationToken::new(), ended, deserted: false, retiring: false }
    }
}

/// The turns of one key.
#[derive(Debug, Default)]
struct Lane {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The deployment that waits, and what tells it that a newer one does.
    waiting: Option<(DeploymentId, CancellationToken)>,
}

impl Work {
    /// Opens the journal in `dir` and begins to clean up what an earlier agent left.
    ///
    /// # Errors
    /// [`AgentError::DataDir`] when the journal cannot be read.
    pub(crate) fn start(dir: impl Into<std::path::PathBuf>, parts: WorkParts) -> Result<Self, AgentError> {
        let journal = Journal::open(dir)?;
        let mut table = Table::default();
        let of_journal = journal.left().iter().map(|record| (record.deployment, Some(record.key.clone())));
        let of_outbox = parts.outbox.deployments().into_iter().map(|deployment| (deployment, None));
        for (deployment, key) in of_outbox.chain(of_journal) {
            table.known.insert(deployment, Known::new(key, true));
        }
        let inner = Arc::new(Inner {
            parts,
            journal,
            table: Mutex::new(table),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            finishing: CancellationToken::new(),
            ended: watch::Sender::new(()),
            ready: watch::Sender::new(false),
            gateway_changed: watch::Sender::new(()),
            deserted: watch::Sender::new(()),
        });
        let recovering = Arc::clone(&inner);
        inner.tasks.spawn(async move {
            recovery::recover(&recovering).await;
            recovering.ready.send_replace(true);
        });
        Ok(Self { inner })
    }

    /// Accepts a deployment: when this returns, it survives a crash, and its events tell the rest.
    ///
    /// # Errors
    /// A problem when it cannot be written down, a disk is nearly full, or the agent is stopping.
    pub(crate) fn deploy(&self, request: DeployRequest, credentials: Option<Credentials>) -> Result<(), Problem> {
        let inner = &self.inner;
        let deployment = request.deployment;
        let mut table = inner.table();
        if table.known.contains_key(&deployment) {
            return Ok(());
        }
        if inner.stopping.is_cancelled() {
            return Err(Problem::new(ErrorCode::AgentAway, "the agent is stopping; try again when it is back"));
        }
        if inner.finishing.is_cancelled() {
            let sentence = "the agent restarts as soon as the deployments under way have ended; try again after that";
            return Err(Problem::new(ErrorCode::AgentAway, sentence));
        }
        inner.parts.admission.admit(&request.key.repo)?;
        let storage =
            |error: &dyn std::error::Error| Problem::new(ErrorCode::EventsUnavailable, sdp_core::problem::chain(error));
        inner.journal.begin(&request).map_err(|error| storage(&error))?;
        let sink = inner.parts.outbox.sink(deployment).map_err(|error| {
            inner.journal.end(deployment);
            storage(&error)
        })?;
        let mut redactor = inner.parts.redactor.clone();
        if let Some(credentials) = &credentials {
            redactor = redactor.credentials(credentials);
        }
        let known = Known::new(Some(request.key.clone()), false);
        let attempt = Attempt {
            inner: Arc::clone(inner),
            sink: Box::new(redactor.wrap(sink)),
            cancel: known.cancel.clone(),
            superseded: CancellationToken::new(),
            request,
            credentials,
        };
        let key = attempt.request.key.clone();
        table.known.insert(deployment, known);
        let lane = table.lane(&key);
        if let Some((_, superseded)) = lane.waiting.replace((deployment, attempt.superseded.clone())) {
            superseded.cancel();
        }
        let turn = Arc::clone(&lane.turn);
        inner.tasks.spawn(attempt.run(turn));
        Ok(())
    }

    /// Cancels a deployment. One that has ended stays as it is.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] for an id that was never accepted, or long ago.
    pub(crate) fn cancel(&self, deployment: DeploymentId) -> Result<(), Problem> {
        let table = self.inner.table();
        let known = table.known.get(&deployment).ok_or_else(|| {
            Problem::new(ErrorCode::NotFound, format!("this agent knows no deployment {deployment}"))
                .field("deployment")
        })?;
        known.cancel.cancel();
        Ok(())
    }

    /// Has what a deployment replaced ended, once requests under way have had their time.
    pub(crate) fn retire(&self, deployment: DeploymentId) {
        let mut table = self.inner.table();
        let key = table.known.get(&deployment).and_then(|known| known.key.clone());
        // Those before it as well: it may have left an instance of theirs as it was.
        let of_key = |known: &Known| key.is_some() && known.key == key;
        let earlier = table.known.iter_mut().filter(|(id, known)| **id <= deployment && of_key(known));
        earlier.for_each(|(_, known)| known.deserted = true);
        drop(table);
        self.inner.deserted.send_replace(());
    }

    /// Returns when what an earlier agent left is cleaned up.
    pub(crate) async fn ready(&self) {
        self.inner.ready().await;
    }

    /// Stops an instance, after what is under way for it.
    pub(crate) async fn stop(&self, key: &InstanceKey, cancel: &CancellationToken) -> Result<(), Problem> {
        let _turn = self.turn(key, cancel).await?;
        self.inner.parts.deployer.stop(key).await.map_err(|error| Problem::from(&error))
    }

    /// Restarts an instance, after what is under way for it.
    pub(crate) async fn restart(&self, key: &InstanceKey, cancel: &CancellationToken) -> Result<(), Problem> {
        let _turn = self.turn(key, cancel).await?;
        self.inner.parts.deployer.restart(key).await.map_err(|error| Problem::from(&error))
    }

    /// Removes an instance and its checkout. Deployments under way for it are cancelled first.
    pub(crate) async fn remove(&self, key: &InstanceKey, cancel: &CancellationToken) -> Result<(), Problem> {
        for known in self.inner.table().known.values().filter(|known| known.key.as_ref() == Some(key)) {
            known.cancel.cancel();
        }
        let _turn = self.turn(key, cancel).await?;
        self.inner.parts.deployer.remove(key).await.map_err(|error| Problem::from(&error))?;
        self.inner.parts.source.discard(key).await.map_err(|error| Problem::from(&error))?;
        if let Some(gateways) = &self.inner.parts.gateways {
            gateways.forget(key);
        }
        self.inner.tell_gateway(&key.repo);
        Ok(())
    }

    /// Changes whenever the gateway may be on another branch.
    pub(crate) fn gateway_changes(&self) -> watch::Receiver<()> {
        self.inner.gateway_changed.subscribe()
    }

    /// Says that the gateway may be on another branch.
    pub(crate) fn gateway_may_have_changed(&self) {
        self.inner.gateway_changed.send_replace(());
    }

    /// Accepts no more deployments, and returns when those that were under way have ended.
    pub(crate) async fn finish(&self) {
        let mut ended = self.inner.ended.subscribe();
        {
            // Under the lock: a deployment is accepted before this, and waited for, or refused.
            let _table = self.inner.table();
            self.inner.finishing.cancel();
        }
        while self.inner.table().known.values().any(|known| !known.ended) {
            // The sender lives as long as `self`.
            ended.changed().await.ok();
        }
    }

    /// Accepts nothing more, cancels what is under way, and returns when all of it has ended.
    pub(crate) async fn shutdown(&self) {
        self.inner.stopping.cancel();
        let active: Vec<_> = {
            let table = self.inner.table();
            let active = table.known.iter().filter(|(_, known)| !known.ended);
            active.map(|(deployment, known)| (*deployment, known.cancel.clone())).collect()
        };
        for (deployment, cancel) in active {
            let progress = self.inner.parts.outbox.progress(deployment);
            let stage = progress.and_then(|progress| progress.stage).map_or(Stage::Source, |(stage, _)| stage);
            if let Some(sink) = self.inner.parts.outbox.sink_under_way(deployment) {
                let note = EventKind::note(stage, "the agent is stopping and cancels this deployment");
                sink.accept(note).await.map_err(|error| tracing::error!(%deployment, %error, "an event was lost")).ok();
            }
            cancel.cancel();
        }
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    async fn turn(&self, key: &InstanceKey, cancel: &CancellationToken) -> Result<OwnedMutexGuard<()>, Problem> {
        let turn = Arc::clone(&self.inner.table().lane(key).turn);
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Problem::new(ErrorCode::Cancelled, "cancelled before its turn came")),
            turn = self.inner.turn(turn) => Ok(turn),
        }
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn turn(&self, turn: Arc<tokio::sync::Mutex<()>>) -> OwnedMutexGuard<()> {
        self.ready().await;
        turn.lock_owned().await
    }

    async fn ready(&self) {
        // The sender lives as long as `self`: the wait cannot fail.
        self.ready.subscribe().wait_for(|ready| *ready).await.ok();
    }

    /// Takes note that what earlier deployments of a key replaced is gone with them.
    fn desert_earlier(&self, key: &InstanceKey, deployment: DeploymentId) {
        let mut table = self.table();
        // What a later one replaces, it is not for this one to say.
        let earlier = table.known.iter_mut().filter(|(id, known)| **id < deployment && known.key.as_ref() == Some(key));
        earlier.for_each(|(_, known)| known.deserted = true);
        drop(table);
        self.deserted.send_replace(());
    }

    fn set_retiring(&self, deployment: DeploymentId, retiring: bool) {
        if let Some(known) = self.table().known.get_mut(&deployment) {
            known.retiring = retiring;
        }
    }

    fn tell_gateway(&self, repo: &RepoName) {
        if self.parts.gateways.as_ref().is_some_and(|gateways| gateways.repo() == repo) {
            self.gateway_changed.send_replace(());
        }
    }
}

impl Table {
    fn lane(&mut self, key: &InstanceKey) -> &mut Lane {
        self.lanes.retain(|_, lane| Arc::strong_count(&lane.turn) > 1 || lane.waiting.is_some());
        self.lanes.entry(key.clone()).or_default()
    }

    /// Whether `deployment` is the one that waits for `key`; it waits no more.
    fn leave(&mut self, key: &InstanceKey, deployment: DeploymentId) -> bool {
        let waiting = self.lanes.get_mut(key).map(|lane| &mut lane.waiting);
        waiting.is_some_and(|waiting| waiting.take_if(|(waits, _)| *waits == deployment).is_some())
    }

    fn end(&mut self, deployment: DeploymentId) {
        if let Some(known) = self.known.get_mut(&deployment) {
            known.ended = true;
        }
        let ended = self.known.values().filter(|known| known.ended).count();
        let oldest = self.known.iter().filter(|(_, known)| known.ended).map(|(deployment, _)| *deployment);
        let forgotten: Vec<_> = oldest.take(ended.saturating_sub(REMEMBERED)).collect();
        self.known.retain(|deployment, _| !forgotten.contains(deployment));
    }
}

/// One deployment, from its acceptance to its end.
struct Attempt {
    inner: Arc<Inner>,
    request: DeployRequest,
    credentials: Option<Credentials>,
    sink: Box<dyn EventSink>,
    cancel: CancellationToken,
    superseded: CancellationToken,
}

impl Attempt {
    async fn run(mut self, turn: Arc<tokio::sync::Mutex<()>>) {
        let (deployment, key) = (self.request.deployment, self.request.key.clone());
        let turn = tokio::select! {
            biased;
            () = self.superseded.cancelled() => Err(DeploymentState::Superseded),
            () = self.cancel.cancelled() => Err(DeploymentState::Cancelled),
            turn = self.inner.turn(turn) => Ok(turn),
        };
        let still_wanted = self.inner.table().leave(&key, deployment);
        let turn = if still_wanted { turn } else { Err(DeploymentState::Superseded) };
        let (inner, credentials) = (Arc::clone(&self.inner), self.credentials.take());
        let state = match turn {
            Ok(turn) => {
                let (state, retiring, kept) = self.deploy(credentials).await;
                if state == DeploymentState::Running && !kept {
                    inner.desert_earlier(&key, deployment);
                }
                if let Some(replacement) = retiring {
                    let on_request = self.request.retire_on_request;
                    inner.tasks.spawn(retire::later(Arc::clone(&inner), replacement, on_request));
                }
                if state == DeploymentState::Running {
                    inner.journal.end(deployment);
                } else {
                    tidy::after(&inner, &self.request).await;
                }
                drop(turn);
                state
            }
            Err(state) => {
                self.end_in_queue(state).await;
                inner.journal.end(deployment);
                state
            }
        };
        tracing::info!(%deployment, %key, %state, "deployment ended");
        inner.table().end(deployment);
        inner.ended.send_replace(());
        inner.tell_gateway(&key.repo);
    }

    /// Its end, what is to be ended when nobody is sent there any more, and whether all was left as it was.
    async fn deploy(&self, credentials: Option<Credentials>) -> (DeploymentState, Option<Replacement>, bool) {
        let DeployRequest { deployment, key, branch, .. } = &self.request;
        tracing::info!(%deployment, %key, %branch, "deployment begins");
        // One that cannot be read is nothing to go back to.
        let previous = self.inner.parts.source.checkout(key).await.unwrap_or_default();
        self.inner.journal.turn_came(&self.request, previous);
        let pipeline = &self.inner.parts.pipeline;
        let run = pipeline.run(&self.request, credentials, &*self.sink, &self.cancel);
        match AssertUnwindSafe(run).catch_unwind().await {
            Ok(finished) => (finished.state, finished.retiring, finished.kept),
            Err(_) => {
                let progress = self.inner.parts.outbox.progress(*deployment);
                let reason = "the agent failed inside this deployment; its log says more";
                for event in progress.into_iter().flat_map(|at| recovery::failed(at, ErrorCode::Internal, reason, None))
                {
                    self.tell(event).await;
                }
                (DeploymentState::Failed, None, false)
            }
        }
    }

    async fn end_in_queue(&self, state: DeploymentState) {
        for state in [DeploymentState::Queued, state] {
            self.tell(EventKind::state(state)).await;
        }
    }

    async fn tell(&self, event: EventKind) {
        if let Err(error) = self.sink.accept(event).await {
            let deployment = self.request.deployment;
            tracing::error!(%deployment, error = sdp_core::problem::chain(&error), "an event was lost");
        }
    }
}
