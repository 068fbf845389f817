//! Deployments, as they end.

use std::time::Duration;

use jiff::Timestamp;
use sdp_core::Deployment;

use super::{EndLabels, Metrics, StageLabels};
use crate::{AppState, ended};

/// Measures deployments until the server stops.
pub(crate) async fn watch(state: AppState) {
    ended::each(&state, |deployment| measure(state.metrics(), deployment)).await;
}

fn measure(metrics: &Metrics, deployment: &Deployment) {
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
