//! What events say about a deployment. No I/O and no clock.

use jiff::Timestamp;
use sdp_core::{Deployment, DeploymentState, Event, EventKind, Failure, StageRecord, StageStatus};

/// Takes one event over into `deployment`. True when it became running by it.
pub(super) fn fold(deployment: &mut Deployment, event: &Event) -> bool {
    match &event.kind {
        EventKind::State { state, failure } => {
            let from = deployment.state;
            if from == *state {
                return false;
            }
            if !enter(deployment, *state, failure.clone(), event.at) {
                tracing::warn!(id = %deployment.id, seq = event.seq, %from, to = %state, "illegal change of state ignored");
                return false;
            }
            return *state == DeploymentState::Running;
        }
        EventKind::Stage { stage, status } => {
            let record = StageRecord { stage: *stage, status: *status, started_at: event.at, ended_at: None };
            let at = match deployment.stages.binary_search_by_key(stage, |record| record.stage) {
                Ok(at) => at,
                Err(at) => {
                    deployment.stages.insert(at, record);
                    at
                }
            };
            let record = &mut deployment.stages[at];
            record.status = *status;
            if *status == StageStatus::Started {
                (record.started_at, record.ended_at) = (event.at, None);
            } else {
                record.ended_at = Some(event.at);
            }
        }
        EventKind::Source { commit, .. } => deployment.commit = Some(commit.clone()),
        EventKind::Endpoint { host_port, url, .. } => {
            deployment.host_port = Some(*host_port);
            deployment.url = Some(url.clone());
        }
        _ => {}
    }
    false
}

/// Whether [`fold`] looks at events of this kind: most are log lines, and cost no write.
pub(super) fn matters(event: &Event) -> bool {
    matches!(
        event.kind,
        EventKind::State { .. } | EventKind::Stage { .. } | EventKind::Source { .. } | EventKind::Endpoint { .. }
    )
}

/// Changes the state, if that is legal.
pub(super) fn enter(
    deployment: &mut Deployment,
    state: DeploymentState,
    failure: Option<Failure>,
    at: Timestamp,
) -> bool {
    if !deployment.state.can_become(state) {
        return false;
    }
    if deployment.state.is_active() && !state.is_active() {
        deployment.finished_at = Some(at);
    }
    deployment.state = state;
    deployment.failure = failure;
    true
}
