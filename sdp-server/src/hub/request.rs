//! Requests in flight on one connection.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use sdp_core::{
    AgentName, ErrorCode, Problem,
    model::units::format_duration,
    protocol::{Outcome, Reply, ReplyBody, Request, RequestBody, ServerFrame},
};
use tokio::sync::oneshot;

use super::Link;
use crate::store::StoreError;

/// What the server waits longer than it tells the agent, for the reply's way.
const GRACE: Duration = Duration::from_secs(2);

/// Why a request was not answered with success.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The agent is not connected. It was not asked.
    #[error("agent {agent} is away ({}); start it, or see its log for why it cannot connect", seen(*.last_seen))]
    Away {
        /// Which.
        agent: AgentName,
        /// When it was last heard of.
        last_seen: Option<Timestamp>,
    },
    /// The connection went away after the request was sent: it may have been carried out.
    #[error("agent {agent} went away before it answered (last seen {last_seen}); look again when it is back")]
    Lost {
        /// Which.
        agent: AgentName,
        /// When it was last heard of.
        last_seen: Timestamp,
    },
    /// No answer in time: it may still be carried out.
    #[error("agent {agent} did not answer within {}", format_duration(*.limit))]
    Timeout {
        /// Which.
        agent: AgentName,
        /// How long was waited.
        limit: Duration,
    },
    /// The agent answered that it could not.
    #[error(transparent)]
    Refused(Problem),
    /// The agent answered something else than was asked.
    #[error("agent {agent} gave an answer that does not fit the question; it is newer or older than the server")]
    Unexpected {
        /// Which.
        agent: AgentName,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn seen(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never seen".into(), |at| format!("last seen {at}"))
}

impl From<&RequestError> for Problem {
    fn from(error: &RequestError) -> Self {
        let told = |code, agent: &AgentName| Problem::new(code, error.to_string()).holder(agent.as_str());
        match error {
            RequestError::Away { agent, .. } | RequestError::Lost { agent, .. } => told(ErrorCode::AgentAway, agent),
            RequestError::Timeout { agent, .. } => told(ErrorCode::Timeout, agent),
            RequestError::Unexpected { agent } => told(ErrorCode::Unsupported, agent),
            RequestError::Refused(problem) => problem.clone(),
            RequestError::Store(error) => error.into(),
        }
    }
}

/// The requests that wait for their reply; none once the connection is gone.
#[derive(Debug)]
pub(super) struct Pending {
    waiting: Mutex<Option<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    replies: HashMap<u64, oneshot::Sender<Outcome>>,
}

impl Default for Pending {
    fn default() -> Self {
        Self { waiting: Mutex::new(Some(Waiting::default())) }
    }
}

impl Pending {
    fn add(&self) -> Option<(u64, oneshot::Receiver<Outcome>)> {
        let mut guard = self.lock();
        let waiting = guard.as_mut()?;
        waiting.next += 1;
        let (reply, replied) = oneshot::channel();
        waiting.replies.insert(waiting.next, reply);
        Some((waiting.next, replied))
    }

    /// Hands a reply to who waits for it. False when nobody does.
    pub(super) fn answer(&self, reply: Reply) -> bool {
        let waiter = self.lock().as_mut().and_then(|waiting| waiting.replies.remove(&reply.id));
        waiter.is_some_and(|waiter| waiter.send(reply.outcome).is_ok())
    }

    /// Fails everything that waits, and all that comes.
    pub(super) fn close(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a request whose asker has given up.
struct Slot<'a>(&'a Pending, u64);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.0.lock().as_mut() {
            waiting.replies.remove(&self.1);
        }
    }
}

pub(super) async fn send(
    agent: &AgentName,
    link: &Link,
    body: RequestBody,
    limit: Duration,
) -> Result<ReplyBody, RequestError> {
    let away = || RequestError::Away { agent: agent.clone(), last_seen: Some(link.heard()) };
    let (id, replied) = link.pending.add().ok_or_else(away)?;
    let _slot = Slot(&link.pending, id);
    let deadline_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let exchange = async {
        let request = ServerFrame::Request(Request { id, deadline_ms, body });
        link.frames.send(Box::new(request)).await.map_err(|_| away())?;
        replied.await.map_err(|_| RequestError::Lost { agent: agent.clone(), last_seen: link.heard() })
    };
    match tokio::time::timeout(limit.saturating_add(GRACE), exchange).await {
        Ok(Ok(Outcome::Ok(body))) => Ok(body),
        Ok(Ok(Outcome::Problem(problem))) => Err(RequestError::Refused(problem)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(RequestError::Timeout { agent: agent.clone(), limit }),
    }
}
