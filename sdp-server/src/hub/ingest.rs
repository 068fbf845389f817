//! Events on their way: to the log on disk, into the database, to who listens.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sdp_core::{
    AgentName, Deployment, DeploymentId, DeploymentState, ErrorCode, Event, Failure,
    problem::chain,
    protocol::{CheckedBatch, HeldEvents},
};

use super::Hub;
use crate::{events::EventLogError, store::StoreError};

/// How much of a log is read at once when the database catches up with it.
const CATCH_UP_BYTES: usize = 1024 * 1024;

/// Why a batch was not acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The log did not take it.
    #[error("the event log did not take the events")]
    Log(#[from] EventLogError),
    /// The log has it and the database does not: it catches up when the agent connects again.
    #[error("the database did not take the events over")]
    Store(#[from] StoreError),
    /// The deployment is another agent's.
    #[error("deployment {deployment} belongs to agent {owner}")]
    Foreign {
        /// The deployment.
        deployment: DeploymentId,
        /// Whose it is.
        owner: AgentName,
    },
}

/// What a connection has found out about the deployments it sends events of: whether the database
/// knows them.
pub(super) type Known = HashMap<DeploymentId, bool>;

impl Hub {
    /// Takes a batch of a deployment that was [met](Self::meet) over, and gives the sequence number
    /// to acknowledge.
    pub(super) async fn ingest(&self, known: &Known, batch: CheckedBatch) -> Result<u64, IngestError> {
        let (id, last, bytes) = (batch.batch().deployment(), batch.batch().last(), batch.batch().lines().len());
        let changes = batch.changes().len();
        // The database takes changes in the log's order: it would skip what comes after something newer, which a newer
        // connection of the agent may bring before this one has ended.
        let mut turn = if changes == 0 { None } else { Some(self.shared.changing.take(&id).await) };
        let (metrics, began) = (&self.shared.metrics, Instant::now());
        let appended = self.shared.logs.append(batch).await?;
        metrics.appended(bytes, began.elapsed());
        let now = Timestamp::now();
        // One that is ahead has another clock.
        let lags = appended.changes.iter().map(|event| Duration::try_from(now.duration_since(event.at)));
        lags.for_each(|lag| metrics.lag(lag.unwrap_or_default()));
        if known.get(&id) == Some(&true) {
            if appended.changes.len() == changes && appended.last == last {
                let changed = self.shared.store.fold_events(id, &appended.changes).await?;
                self.publish(changed);
            } else {
                // The log has more from another connection, which may have failed before the database had it.
                if turn.is_none() {
                    turn = Some(self.shared.changing.take(&id).await);
                }
                self.take_over(id).await?;
            }
        }
        drop(turn);
        Ok(appended.last)
    }

    /// Finds out whether the database knows a deployment, and whether it is this agent's.
    ///
    /// A deployment that it does not know, after a restored backup for example, keeps its events
    /// too: the log takes them and they are acknowledged, with a warning.
    pub(super) async fn meet(&self, agent: &AgentName, known: &mut Known, id: DeploymentId) -> Result<(), IngestError> {
        if known.contains_key(&id) {
            return Ok(());
        }
        let deployment = self.shared.store.deployment(id).await?;
        match &deployment {
            Some(deployment) if deployment.agent != *agent => {
                return Err(IngestError::Foreign { deployment: id, owner: deployment.agent.clone() });
            }
            Some(_) => {}
            None => {
                tracing::warn!(%agent, deployment = %id, "events of a deployment that the database does not know; kept in its log")
            }
        }
        known.insert(id, deployment.is_some());
        Ok(())
    }

    /// Takes what the log has and the database lacks over into it.
    pub(super) async fn catch_up(&self, id: DeploymentId) -> Result<(), IngestError> {
        let _turn = self.shared.changing.take(&id).await;
        self.take_over(id).await
    }

    /// As [`catch_up`](Self::catch_up), for who has the turn.
    async fn take_over(&self, id: DeploymentId) -> Result<(), IngestError> {
        let mut next = match self.shared.store.folded_seq(id).await {
            Ok(seq) => seq + 1,
            Err(StoreError::NoDeployment(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        loop {
            let lines = self.shared.logs.read(id, next, CATCH_UP_BYTES).await?;
            let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let events: Vec<Event> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
            let Some(last) = events.last() else { return Ok(()) };
            next = last.seq + 1;
            let changed = self.shared.store.fold_events(id, &events).await?;
            self.publish(changed);
        }
    }

    /// Brings the database up to what the logs say, after a crash between the two.
    ///
    /// # Errors
    /// [`IngestError`] when either cannot be read.
    pub async fn recover(&self) -> Result<(), IngestError> {
        for deployment in self.shared.store.active_deployments(None).await? {
            self.catch_up(deployment.id).await?;
        }
        Ok(())
    }

    /// How far the server has what an agent holds; what it should work on and does not is lost.
    pub(super) async fn reconcile(
        &self,
        agent: &AgentName,
        held: &[HeldEvents],
        active: &[Deployment],
    ) -> Result<std::collections::BTreeMap<String, u64>, IngestError> {
        let mut acked = std::collections::BTreeMap::new();
        for held in held {
            acked.insert(held.deployment.to_string(), self.shared.logs.last_seq(held.deployment).await?);
            self.catch_up(held.deployment).await?;
        }
        for deployment in active {
            let id = deployment.id;
            if held.iter().any(|held| held.deployment == id) || self.dispatching().contains(&id) {
                continue;
            }
            self.catch_up(id).await?;
            let reason = format!("agent {agent} came back without this deployment: it lost it; deploy again");
            tracing::warn!(%agent, deployment = %id, "the agent lost a deployment");
            self.fail(id, ErrorCode::AgentAway, reason).await?;
        }
        Ok(acked)
    }

    /// Marks a deployment failed unless it has ended otherwise meanwhile.
    pub(crate) async fn fail(&self, id: DeploymentId, code: ErrorCode, reason: String) -> Result<(), StoreError> {
        let failure = Failure { stage: None, code, reason, previous_restored: None };
        match self.shared.store.set_state(id, DeploymentState::Failed, Some(failure)).await {
            Ok(changed) => self.publish(changed.into_iter().collect()),
            Err(error @ StoreError::Illegal { .. }) => tracing::debug!(error = chain(&error), "it ended meanwhile"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Tells who listens; ends the logs of what the pipeline has finished.
    pub(super) fn publish(&self, changed: Vec<Deployment>) {
        for deployment in changed {
            if !deployment.state.is_active() {
                self.shared.logs.finish(deployment.id);
            }
            // Nobody need be listening.
            let _ = self.shared.changes.send(deployment);
        }
    }
}

#[cfg(test)]
mod tests {
    use sdp_core::{EventKind, protocol::EventBatch};

    use super::*;
    use crate::{
        config::AgentsConfig,
        events::EventLogs,
        metrics::Metrics,
        store::{
            Store,
            tests::{eredar, queued},
        },
    };

    fn batch(id: DeploymentId, first: u64, states: &[DeploymentState]) -> CheckedBatch {
        let mut lines = Vec::new();
        for (seq, state) in (first..).zip(states) {
            let event = Event { seq, at: Timestamp::UNIX_EPOCH, kind: EventKind::state(*state) };
            lines.extend(serde_json::to_vec(&event).unwrap());
            lines.push(b'\n');
        }
        EventBatch::new(id, first, lines.into()).unwrap().checked().unwrap()
    }

    #[tokio::test]
    async fn what_the_log_has_and_the_database_lacks_is_taken_over_before_it_is_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("sdp.db")).unwrap();
        let logs = EventLogs::open(dir.path().join("logs")).unwrap();
        let hub = Hub::new(store.clone(), logs.clone(), AgentsConfig::default(), Metrics::default());
        let deployment = queued(eredar());
        store.insert_deployment(&deployment).await.unwrap();
        let (id, states) = (deployment.id, [DeploymentState::Source, DeploymentState::Build]);
        // As a connection leaves it that failed between the two.
        logs.append(batch(id, 1, &states[..1])).await.unwrap();
        let known = Known::from([(id, true)]);
        assert_eq!(hub.ingest(&known, batch(id, 1, &states)).await.unwrap(), 2);
        assert_eq!(store.deployment(id).await.unwrap().unwrap().state, DeploymentState::Build);
        // Also where what comes again is no change, or not the last.
        let line =
            br#"{"seq":3,"at":"2026-01-02T03:04:05Z","type":"log","stage":"build","stream":"stdout","line":"x"}"#;
        let output = EventBatch::new(id, 3, [line, &b"\n"[..]].concat().into()).unwrap().checked().unwrap();
        logs.append(output.clone()).await.unwrap();
        logs.append(batch(id, 4, &[DeploymentState::Start])).await.unwrap();
        assert_eq!(hub.ingest(&known, output).await.unwrap(), 4);
        assert_eq!(store.deployment(id).await.unwrap().unwrap().state, DeploymentState::Start);
    }
}
