//! Deployments: start, list, look at, and what can be done with one.

use axum::extract::State;
use http::StatusCode;
use sdp_core::{
    Deployment, DeploymentId, DeploymentState, ErrorCode,
    api::{CreateDeployment, DeploymentFilter, Page},
    protocol::RequestBody,
};
use serde::Deserialize;

use super::{
    Json, Path, Query, rollback,
    sandboxes::{SandboxPath, find as find_sandbox},
};
use crate::{ApiError, AppState, auth::SignedIn, hub::Destination, sandboxes::destination};

const MAX_LIMIT: u32 = 500;

#[derive(Debug, Deserialize)]
pub(super) struct DeploymentPath {
    pub(super) id: DeploymentId,
}

pub(super) type Accepted = (StatusCode, Json<Deployment>);

pub(super) async fn create(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Json(body): Json<CreateDeployment>,
) -> Result<Accepted, ApiError> {
    let deployment = state.hub().deploy(signed_in.session.credentials, Destination::default(), body).await?;
    Ok((StatusCode::ACCEPTED, Json(deployment)))
}

pub(super) async fn create_in_sandbox(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<SandboxPath>,
    Json(body): Json<CreateDeployment>,
) -> Result<Accepted, ApiError> {
    let sandbox = find_sandbox(&state, &path.name).await?;
    let destination = destination(&state, sandbox).await?;
    let deployment = state.hub().deploy(signed_in.session.credentials, destination, body).await?;
    Ok((StatusCode::ACCEPTED, Json(deployment)))
}

pub(super) async fn list(
    State(state): State<AppState>,
    _: SignedIn,
    Query(filter): Query<DeploymentFilter>,
) -> Result<Json<Page<Deployment>>, ApiError> {
    if filter.limit.is_some_and(|limit| !(1..=MAX_LIMIT).contains(&limit)) {
        return Err(ApiError::new(ErrorCode::InvalidInput, format!("limit is 1 to {MAX_LIMIT}")).field("limit"));
    }
    Ok(Json(state.store().deployments(&filter).await?))
}

pub(super) async fn one(
    State(state): State<AppState>,
    _: SignedIn,
    Path(path): Path<DeploymentPath>,
) -> Result<Json<Deployment>, ApiError> {
    find(&state, path.id).await.map(Json)
}

/// A deployment whose log is still there.
pub(super) async fn find_with_log(state: &AppState, id: DeploymentId) -> Result<Deployment, ApiError> {
    let deployment = find(state, id).await?;
    if state.logs().last_seq(id).await? == 0 && state.store().folded_seq(id).await? > 0 {
        let sentence = format!(
            "the log of deployment {id} was removed: it was older, or the logs larger, than `[logs]` of the server's configuration allows"
        );
        return Err(ApiError::new(ErrorCode::NotFound, sentence));
    }
    Ok(deployment)
}

/// The deployment, or that there is none.
pub(super) async fn find(state: &AppState, id: DeploymentId) -> Result<Deployment, ApiError> {
    state.store().deployment(id).await?.ok_or_else(|| ApiError::not_found("deployment", id).field("id"))
}

pub(super) async fn cancel(
    State(state): State<AppState>,
    _: SignedIn,
    Path(path): Path<DeploymentPath>,
) -> Result<Accepted, ApiError> {
    let deployment = find(&state, path.id).await?;
    if !deployment.state.is_active() {
        return Err(not_now(&deployment, "cancelled"));
    }
    state.hub().request(&deployment.agent, RequestBody::Cancel { deployment: deployment.id }).await?;
    Ok((StatusCode::ACCEPTED, Json(find(&state, path.id).await?)))
}

pub(super) async fn stop(
    State(state): State<AppState>,
    _: SignedIn,
    Path(path): Path<DeploymentPath>,
) -> Result<Json<Deployment>, ApiError> {
    let deployment = find(&state, path.id).await?;
    match deployment.state {
        DeploymentState::Stopped => return Ok(Json(deployment)),
        DeploymentState::Running => {}
        _ => return Err(not_now(&deployment, "stopped")),
    }
    state.hub().request(&deployment.agent, RequestBody::Stop { key: deployment.key }).await?;
    state.hub().set_state(deployment.id, DeploymentState::Stopped).await.map(Json)
}

pub(super) async fn restart(
    State(state): State<AppState>,
    _: SignedIn,
    Path(path): Path<DeploymentPath>,
) -> Result<Json<Deployment>, ApiError> {
    let deployment = find(&state, path.id).await?;
    if !matches!(deployment.state, DeploymentState::Running | DeploymentState::Stopped) {
        return Err(not_now(&deployment, "restarted"));
    }
    if let Some(sandbox) = &deployment.key.sandbox {
        state.store().use_sandbox(sandbox, true).await?;
    }
    state.hub().request(&deployment.agent, RequestBody::Restart { key: deployment.key }).await?;
    state.hub().set_state(deployment.id, DeploymentState::Running).await.map(Json)
}

/// The same once more, as a new deployment of whoever asks.
pub(super) async fn retry(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<DeploymentPath>,
) -> Result<Accepted, ApiError> {
    let deployment = find(&state, path.id).await?;
    let earlier = rollback::repeated(&state, &deployment).await?;
    let Deployment { key, branch, host_port, env, agent, state: now, id, .. } = deployment;
    if now.is_active() {
        let sentence = format!("deployment {id} is {now}: it has not ended yet, so there is nothing to retry");
        return Err(ApiError::new(ErrorCode::Conflict, sentence));
    }
    let destination = match &key.sandbox {
        Some(sandbox) => destination(&state, find_sandbox(&state, sandbox).await?).await?,
        None => Destination::default(),
    };
    let body = CreateDeployment { repo: key.repo, branch, host_port, env, agent: Some(agent) };
    let credentials = signed_in.session.credentials;
    let deployment = state.hub().deploy_exactly(credentials, destination, body, earlier).await?;
    Ok((StatusCode::ACCEPTED, Json(deployment)))
}

fn not_now(deployment: &Deployment, done: &str) -> ApiError {
    let sentence = format!("deployment {} is {} and cannot be {done}", deployment.id, deployment.state);
    ApiError::new(ErrorCode::Conflict, sentence)
}
