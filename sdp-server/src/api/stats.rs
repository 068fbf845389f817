//! What runs, as its agent measures it now.

use std::{collections::BTreeSet, time::Duration};

use axum::extract::State;
use futures_util::future::join_all;
use sdp_core::{
    AgentName, Deployment, DeploymentState, ErrorCode, InstanceKey,
    api::vitals::{RunningStats, ServiceStats},
    protocol::{ReplyBody, RequestBody},
};

use super::{
    Json, Path,
    deployments::{self, DeploymentPath},
    sandboxes::{self, SandboxPath},
};
use crate::{ApiError, AppState, hub::RequestError};

/// How long an agent may measure. Who looks at a page would sooner see that it does not answer.
const LIMIT: Duration = Duration::from_secs(8);

/// Of each service that runs in a sandbox. One whose agent does not tell comes with the reason.
pub(super) async fn of_sandbox(
    State(state): State<AppState>,
    Path(path): Path<SandboxPath>,
) -> Result<Json<Vec<ServiceStats>>, ApiError> {
    let sandbox = sandboxes::find(&state, &path.name).await?;
    let mut running = state.store().deployments_of(&sandbox, &[DeploymentState::Running]).await?;
    let mut seen = BTreeSet::new();
    running.retain(|deployment| seen.insert(deployment.key.repo.clone()));
    running.sort_by(|a, b| a.key.repo.cmp(&b.key.repo));
    let measured = join_all(running.into_iter().map(async |Deployment { agent, key, .. }| {
        let repo = key.repo.clone();
        match measure(&state, &agent, key).await {
            Ok(running) => ServiceStats { repo, running: Some(running), problem: None },
            Err(error) => ServiceStats { repo, running: None, problem: Some((&error).into()) },
        }
    }));
    Ok(Json(measured.await))
}

pub(super) async fn of_deployment(
    State(state): State<AppState>,
    Path(path): Path<DeploymentPath>,
) -> Result<Json<RunningStats>, ApiError> {
    let Deployment { id, agent, key, state: now, .. } = deployments::find(&state, path.id).await?;
    if now != DeploymentState::Running {
        let sentence = format!("deployment {id} is {now}: nothing of it runs that could be measured");
        return Err(ApiError::new(ErrorCode::Conflict, sentence));
    }
    Ok(Json(measure(&state, &agent, key).await?))
}

async fn measure(state: &AppState, agent: &AgentName, key: InstanceKey) -> Result<RunningStats, RequestError> {
    match state.hub().request_within(agent, RequestBody::Stats { key }, LIMIT).await? {
        ReplyBody::Stats { instance, stats } => Ok(RunningStats::new(&instance, stats)),
        _ => Err(RequestError::Unexpected { agent: agent.clone() }),
    }
}
