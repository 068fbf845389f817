//! Bringing gateways up to date. What happens while a gateway is being changed is taken together; a gateway
//! whose agent is away is compared when it is back; what fails is tried again.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use sdp_core::{
    Agent, AgentName, AuditSubject, Deployment, ErrorCode, Inventory, Sandbox, SandboxName, ServiceName, TakenRoute,
    api::audit::AuditAction,
};
use tokio::{
    sync::broadcast::{self, error::TryRecvError},
    time::{Instant, MissedTickBehavior},
};

use super::{facts::Facts, gateway, plan, retire};
use crate::{ApiError, AppState, hub::RequestError, store::Deed};

/// The first and the longest pause before what failed is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What is to be compared.
#[derive(Debug, Default)]
struct Scope {
    /// Everything, whether or not it seems to need it.
    all: bool,
    /// The sandboxes that something happened to.
    sandboxes: BTreeSet<SandboxName>,
}

impl Scope {
    /// Takes in that a deployment changed. False when that matters to no route.
    fn changed(&mut self, deployment: &Deployment) -> bool {
        if deployment.state.is_active() {
            return false;
        }
        self.sandboxes.extend(deployment.key.sandbox.clone());
        true
    }

    /// Takes in what has come meanwhile.
    fn drain(&mut self, changes: &mut broadcast::Receiver<Deployment>) {
        loop {
            match changes.try_recv() {
                Ok(deployment) => drop(self.changed(&deployment)),
                Err(TryRecvError::Lagged(_)) => self.all = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}

/// Keeps the gateways up to date until the server stops.
pub(crate) async fn run(state: AppState) {
    let mut changes = state.hub().changes();
    let mut connections = state.hub().connections();
    // Not at once: the agents come first, each with a look of its own.
    let period = state.config().agents.reconcile;
    let mut ticks = tokio::time::interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut left, mut pause): (Option<(Scope, Instant)>, _) = (None, PAUSE.0);
    loop {
        let again = left.as_ref().map(|(_, at)| *at);
        let mut scope = Scope::default();
        let due = tokio::select! {
            () = state.stopping().cancelled() => return,
            changed = changes.recv() => match changed {
                Ok(deployment) => scope.changed(&deployment),
                Err(broadcast::error::RecvError::Lagged(_)) => { scope.all = true; true }
                Err(broadcast::error::RecvError::Closed) => return,
            },
            // The sender lives as long as the state.
            connected = connections.changed() => connected.is_ok(),
            () = state.routing().inner.wake.notified() => true,
            _ = ticks.tick() => { scope.all = true; true }
            () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => true,
        };
        if !due {
            continue;
        }
        scope.drain(&mut changes);
        if let Some((before, _)) = left.take() {
            scope.all |= before.all;
            scope.sandboxes.extend(before.sandboxes);
        }
        let synced = state.stopping().run_until_cancelled(sync(&state, &scope)).await;
        match synced {
            None => return,
            Some(Ok(())) => pause = PAUSE.0,
            Some(Err(error)) => {
                tracing::warn!(reason = error.0.detail, "routes could not be brought up to date; trying again");
                left = Some((scope, Instant::now() + pause));
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

async fn sync(state: &AppState, scope: &Scope) -> Result<(), ApiError> {
    // Before the facts: what routes are made of is to be no older than what is told of them.
    let waiting = state.store().retirements().await?;
    let agents = state.hub().agents().await?;
    let facts = Facts::read(state, &agents).await?;
    let of_waiting = waiting.iter().filter_map(|deployment| deployment.key.sandbox.as_ref());
    let concerned: BTreeSet<_> = scope.sandboxes.iter().chain(of_waiting).collect();
    let inventory = |name: &AgentName| {
        let agent = agents.iter().find(|agent| agent.name == *name && agent.connected);
        agent.and_then(|agent| agent.inventory.as_deref())
    };
    let mut result = Ok(());
    // Those that say what they should.
    let (mut in_order, mut routed) = (BTreeSet::new(), BTreeSet::new());
    for agent in facts.shared_gateways() {
        let Some(inventory) = inventory(agent) else { continue };
        match shared(state, scope, &facts.at(agent), agent, inventory).await {
            Ok(()) => drop(in_order.insert(agent.clone())),
            failed => result = result.and(failed),
        }
    }
    for (name, sandbox) in &facts.sandboxes {
        if !scope.all && !concerned.contains(name) {
            continue;
        }
        match own(state, &agents, &facts, sandbox).await {
            Ok(true) if facts.shared_by(sandbox).is_none_or(|agent| in_order.contains(agent)) => {
                routed.insert(name);
            }
            Ok(_) => {}
            Err(error) => result = result.and(Err(error)),
        }
    }
    result.and(retire::replaced(state, &facts, &waiting, &routed).await)
}

async fn shared(
    state: &AppState,
    scope: &Scope,
    facts: &Facts,
    agent: &AgentName,
    inventory: &Inventory,
) -> Result<(), ApiError> {
    let routing = state.routing();
    let per_request = inventory.gateway.as_ref().is_some_and(|gateway| gateway.per_request);
    let seems_needed = || match routing.seen().get(agent) {
        Some(table) => !plan::shared(facts, table, per_request, Timestamp::now()).is_empty(),
        // Nobody has looked since the server started: what is claimed may have moved meanwhile.
        None => !facts.open.is_empty(),
    };
    if !scope.all && !per_request && !seems_needed() {
        return Ok(());
    }
    let _turn = routing.turn().await;
    // As things are now that nobody else changes routes.
    let facts = &Facts::read(state, &state.hub().agents().await?).await?.at(agent);
    let Some(table) = there(routing.table(state.hub(), agent, None).await)? else { return Ok(()) };
    let plan = plan::shared(facts, &table, per_request, Timestamp::now());
    for follow in plan.owners {
        let owner = follow.changes.by.clone();
        routing.apply(state.hub(), agent, None, follow.changes).await?;
        if let Some(owner) = owner {
            state.audit(released(&owner, &follow.released, "its deployment failed")).await;
        }
    }
    if let Some(changes) = plan.platform {
        let table = routing.apply(state.hub(), agent, None, changes).await?;
        state.audit(table.taken.iter().map(ended).collect()).await;
    }
    Ok(())
}

/// The table of a gateway, if it has a checkout at all.
fn there(table: Result<sdp_core::RouteTable, RequestError>) -> Result<Option<sdp_core::RouteTable>, ApiError> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(RequestError::Refused(problem)) if problem.code == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the sandbox's own gateway says what it should, or there is none.
async fn own(state: &AppState, agents: &[Agent], facts: &Facts, sandbox: &Sandbox) -> Result<bool, ApiError> {
    let Some(own) = gateway::own_among(state, agents, sandbox).await? else { return Ok(true) };
    if !agents.iter().any(|agent| agent.name == own.agent && agent.connected) {
        return Ok(false);
    }
    let (routing, name) = (state.routing(), &sandbox.name);
    let _turn = routing.turn().await;
    let Some(table) = there(routing.table(state.hub(), &own.agent, Some(name.clone())).await)? else { return Ok(true) };
    let choices = state.store().own_routes(name).await?;
    if let Some(changes) = plan::own(facts, name, &table, &choices) {
        routing.apply(state.hub(), &own.agent, Some(name.clone()), changes).await?;
    }
    Ok(true)
}

fn released(owner: &SandboxName, services: &[ServiceName], why: &str) -> Vec<Deed> {
    let deed = |service| Deed::of_the_platform(AuditAction::RouteReleased, AuditSubject::route(owner, service));
    services.iter().map(|service| deed(service).detail(why)).collect()
}

fn ended(taken: &TakenRoute) -> Deed {
    let TakenRoute { service, was, expired } = taken;
    let subject = AuditSubject::route(&was.owner, service);
    let why = if *expired { "its claim expired" } else { "its sandbox is gone, or has another gateway" };
    Deed::of_the_platform(AuditAction::RouteReleased, subject).detail(why)
}
