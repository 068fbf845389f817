//! Deployments, as they end.

use std::{collections::HashSet, time::Duration};

use jiff::Timestamp;
use sdp_core::{Deployment, DeploymentId};
use tokio::sync::broadcast::error::RecvError;

use super::{EndLabels, Metrics, StageLabels};
use crate::AppState;

/// Measures deployments until the server stops.
pub(crate) async fn watch(state: AppState) {
    let mut changes = state.hub().changes();
    let mut under_way = HashSet::new();
    loop {
        match state.stopping().run_until_cancelled(changes.recv()).await {
            Some(Ok(deployment)) => changed(state.metrics(), &mut under_way, &deployment),
            // Then some are not counted.
            Some(Err(RecvError::Lagged(_))) => {}
            Some(Err(RecvError::Closed)) | None => return,
        }
    }
}

/// Each is measured once: when it ends, of those that were seen under way.
fn changed(metrics: &Metrics, under_way: &mut HashSet<DeploymentId>, deployment: &Deployment) {
    if deployment.state.is_active() {
        under_way.insert(deployment.id);
        return;
    }
    if !under_way.remove(&deployment.id) {
        return;
    }
    let labels = EndLabels { repo: deployment.key.repo.to_string(), state: deployment.state.as_str() };
    let end = deployment.finished_at.unwrap_or(deployment.created_at);
    let took = between(deployment.created_at, end);
    metrics.inner.deployments.get_or_create(&labels).observe(took.as_secs_f64());
    for record in &deployment.stages {
        let Some(ended) = record.ended_at else { continue };
        let labels = StageLabels { stage: record.stage.to_string(), status: record.status.to_string() };
        let took = between(record.started_at, ended);
        metrics.inner.stages.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

fn between(start: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(start)).unwrap_or_default()
}
