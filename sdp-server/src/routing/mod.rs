//! Routes that follow what happens to sandboxes.
//!
//! A gateway's file is the truth; here is only what it should say. Whenever a deployment comes to run, stops, fails
//! or moves, when the gateway's agent connects, and from time to time, the gateway is compared with that and what
//! differs is changed: the routes of each sandbox's own requests, overrides that lead to a deployment, claims that
//! have ended, and the routes of gateways that sandboxes bring.

mod facts;
mod gateway;
mod plan;
mod retire;
mod sync;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sdp_core::{
    AgentName, RouteChanges, RouteTable, SandboxName,
    protocol::{ReplyBody, RequestBody},
};
use tokio::sync::Notify;

pub(crate) use self::{
    gateway::{Gateway, gateway_among, gateway_of, own_gateway, shared_of},
    sync::run,
};
use crate::hub::{Hub, RequestError};

/// What the server knows of routes besides the database. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routing {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// One change at a time: between a look at a gateway and the change made of it nobody else makes one.
    turn: tokio::sync::Mutex<()>,
    /// The tables of the gateways that sandboxes share, as last seen.
    seen: Mutex<BTreeMap<AgentName, RouteTable>>,
    wake: Notify,
}

impl Routing {
    /// Waits for the turn to change routes.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.turn.lock().await
    }

    /// Has the gateways compared soon, after a change that no deployment tells of.
    pub(crate) fn wake(&self) {
        self.inner.wake.notify_one();
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<AgentName, RouteTable>> {
        self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a gateway's table: the shared one's, or that of a sandbox's own.
    pub(crate) async fn table(
        &self,
        hub: &Hub,
        agent: &AgentName,
        sandbox: Option<SandboxName>,
    ) -> Result<RouteTable, RequestError> {
        self.ask(hub, agent, sandbox.clone(), RequestBody::Routes { sandbox }).await
    }

    /// Changes a gateway's routes. The caller has the turn.
    pub(crate) async fn apply(
        &self,
        hub: &Hub,
        agent: &AgentName,
        sandbox: Option<SandboxName>,
        changes: RouteChanges,
    ) -> Result<RouteTable, RequestError> {
        self.ask(hub, agent, sandbox.clone(), RequestBody::ApplyRoutes { changes, sandbox }).await
    }

    async fn ask(
        &self,
        hub: &Hub,
        agent: &AgentName,
        sandbox: Option<SandboxName>,
        body: RequestBody,
    ) -> Result<RouteTable, RequestError> {
        let ReplyBody::Routes { table } = hub.request(agent, body).await? else {
            return Err(RequestError::Unexpected { agent: agent.clone() });
        };
        if sandbox.is_none() {
            self.seen().insert(agent.clone(), table.clone());
        }
        Ok(table)
    }
}
