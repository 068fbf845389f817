//! Deployments: start, list, look at, and what can be done with one.

use axum::extract::State;
use http::StatusCode;
use schemars::JsonSchema;
use sdp_core::{
    AuditSubject, Deployment, DeploymentId, DeploymentState, ErrorCode, Sandbox,
    api::{CreateDeployment, DeployAgain, DeploymentFilter, Page, audit::AuditAction},
    protocol::RequestBody,
};
use serde::Deserialize;

use super::{
    Json, MAX_LIMIT, Path, Query, check_limit,
    extract::Optional,
    in_full, rollback,
    sandboxes::{SandboxPath, find_live as find_sandbox, find_record},
};
use crate::{
    ApiError, AppState,
    auth::{self, SignedIn},
    hub::{Destination, Earlier},
    sandboxes::destination,
    store::Deed,
};

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct DeploymentPath {
    pub(super) id: DeploymentId,
}

pub(super) type Accepted = (StatusCode, Json<Deployment>);

pub(super) async fn create(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Json(body): Json<CreateDeployment>,
) -> Result<Accepted, ApiError> {
    deploy(state, signed_in, AuditAction::Deploy, Destination::default(), body).await
}

pub(super) async fn create_in_sandbox(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<SandboxPath>,
    Json(body): Json<CreateDeployment>,
) -> Result<Accepted, ApiError> {
    let sandbox = find_sandbox(&state, &path.name).await?;
    let destination = destination(&state, sandbox).await?;
    deploy(state, signed_in, AuditAction::Deploy, destination, body).await
}

async fn deploy(
    state: AppState,
    signed_in: SignedIn,
    action: AuditAction,
    destination: Destination,
    body: CreateDeployment,
) -> Result<Accepted, ApiError> {
    deploy_exactly(state, signed_in, action, destination, body, None).await
}

/// Deploys, or what an earlier deployment was, when one is given.
pub(super) async fn deploy_exactly(
    state: AppState,
    signed_in: SignedIn,
    action: AuditAction,
    destination: Destination,
    body: CreateDeployment,
    earlier: Option<Earlier>,
) -> Result<Accepted, ApiError> {
    in_full(async move {
        // A service that is being taken out of its sandbox is not put back into it meanwhile.
        let _turn = match &destination.sandbox {
            Some(sandbox) => {
                let turn = state.turns().take(&sandbox.name).await;
                check_still_there(&state, &signed_in, sandbox).await?;
                Some(turn)
            }
            None => None,
        };
        let subject = AuditSubject::instance(&destination.key(body.repo.clone()));
        let deed = signed_in.deed(action, subject);
        let deployment = state.hub().deploy_exactly(signed_in.asker(None), destination, body, earlier).await?;
        let detail = format!("branch {} on agent {}", deployment.branch, deployment.agent);
        state.audit(vec![deed.deployment(deployment.id).detail(detail)]).await;
        Ok((StatusCode::ACCEPTED, Json(deployment)))
    })
    .await
}

/// Refuses who waited for their turn until the sandbox was gone, or was another that has its name.
async fn check_still_there(state: &AppState, signed_in: &SignedIn, sandbox: &Sandbox) -> Result<(), ApiError> {
    let now = find_record(state, &sandbox.name).await?;
    now.admit()?;
    auth::admit_to(signed_in, &now.sandbox)?;
    if now.sandbox.created_at != sandbox.created_at {
        let sentence = format!("sandbox {} was deleted and made anew meanwhile: look, and ask again", sandbox.name);
        return Err(ApiError::new(ErrorCode::Conflict, sentence));
    }
    Ok(())
}

/// What is done to one deployment, for the audit.
pub(super) fn deed(signed_in: &SignedIn, action: AuditAction, deployment: &Deployment) -> Deed {
    signed_in.deed(action, AuditSubject::instance(&deployment.key)).deployment(deployment.id)
}

pub(super) async fn list(
    State(state): State<AppState>,
    Query(filter): Query<DeploymentFilter>,
) -> Result<Json<Page<Deployment>>, ApiError> {
    check_limit(filter.limit, MAX_LIMIT)?;
    Ok(Json(state.store().deployments(&filter).await?))
}

pub(super) async fn one(
    State(state): State<AppState>,
    Path(path): Path<DeploymentPath>,
) -> Result<Json<Deployment>, ApiError> {
    find(&state, path.id).await.map(Json)
}

/// A deployment whose log is still there.
pub(super) async fn find_with_log(state: &AppState, id: DeploymentId) -> Result<Deployment, ApiError> {
    let deployment = find(state, id).await?;
    // In this order: the log has its first events before the database has.
    if state.store().folded_seq(id).await? > 0 && state.logs().last_seq(id).await? == 0 {
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
    signed_in: SignedIn,
    Path(path): Path<DeploymentPath>,
) -> Result<Accepted, ApiError> {
    let deployment = find(&state, path.id).await?;
    if !deployment.state.is_active() {
        return Err(not_now(&deployment, "cancelled"));
    }
    in_full(async move {
        state.hub().request(&deployment.agent, RequestBody::Cancel { deployment: deployment.id }).await?;
        state.audit(vec![deed(&signed_in, AuditAction::Cancel, &deployment)]).await;
        Ok((StatusCode::ACCEPTED, Json(find(&state, path.id).await?)))
    })
    .await
}

pub(super) async fn stop(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<DeploymentPath>,
) -> Result<Json<Deployment>, ApiError> {
    let deployment = find(&state, path.id).await?;
    match deployment.state {
        DeploymentState::Stopped => return Ok(Json(deployment)),
        DeploymentState::Running => {}
        _ => return Err(not_now(&deployment, "stopped")),
    }
    in_full(async move {
        let deed = deed(&signed_in, AuditAction::Stop, &deployment);
        state.hub().request(&deployment.agent, RequestBody::Stop { key: deployment.key }).await?;
        state.audit(vec![deed]).await;
        state.hub().set_state(deployment.id, DeploymentState::Stopped).await.map(Json)
    })
    .await
}

pub(super) async fn restart(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<DeploymentPath>,
) -> Result<Json<Deployment>, ApiError> {
    let deployment = find(&state, path.id).await?;
    if !matches!(deployment.state, DeploymentState::Running | DeploymentState::Stopped) {
        return Err(not_now(&deployment, "restarted"));
    }
    in_full(async move {
        if let Some(sandbox) = &deployment.key.sandbox {
            state.store().use_sandbox(sandbox, true).await?;
        }
        let deed = deed(&signed_in, AuditAction::Restart, &deployment);
        state.hub().request(&deployment.agent, RequestBody::Restart { key: deployment.key }).await?;
        state.audit(vec![deed]).await;
        state.hub().set_state(deployment.id, DeploymentState::Running).await.map(Json)
    })
    .await
}

/// The same once more, as a new deployment of whoever asks.
pub(super) async fn retry(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<DeploymentPath>,
    Optional(DeployAgain { credentials }): Optional<DeployAgain>,
) -> Result<Accepted, ApiError> {
    let deployment = find(&state, path.id).await?;
    let earlier = rollback::repeated(&state, &deployment).await?;
    let Deployment { key, branch, env, agent, state: now, id, .. } = deployment;
    if now.is_active() {
        let sentence = format!("deployment {id} is {now}: it has not ended yet, so there is nothing to retry");
        return Err(ApiError::new(ErrorCode::Conflict, sentence));
    }
    let destination = match &key.sandbox {
        Some(sandbox) => destination(&state, find_sandbox(&state, sandbox).await?).await?,
        None => Destination::default(),
    };
    // A port that was picked is picked again: somebody else may have it by now.
    let host_port = state.store().chosen_port(id).await?;
    let body =
        CreateDeployment { host_port, env, agent: Some(agent), credentials, ..CreateDeployment::new(key.repo, branch) };
    deploy_exactly(state, signed_in, AuditAction::Retry, destination, body, earlier).await
}

fn not_now(deployment: &Deployment, done: &str) -> ApiError {
    let sentence = format!("deployment {} is {} and cannot be {done}", deployment.id, deployment.state);
    ApiError::new(ErrorCode::Conflict, sentence)
}
