//! Sandboxes.

use std::collections::BTreeSet;

use axum::extract::State;
use http::StatusCode;
use jiff::Timestamp;
use sdp_core::{
    AgentName, AuditSubject, Deployment, DeploymentState, EnvironmentName, ErrorCode, InstanceKey, RouteChanges,
    Sandbox, SandboxName,
    api::{CreateSandbox, DeploymentFilter, SandboxDetail, audit::AuditAction},
    protocol::{ReplyBody, RequestBody},
};
use serde::Deserialize;

use super::{Json, Path, routes, routing};
use crate::{ApiError, AppState, auth::SignedIn, hub::RequestError};

/// The only environment there is so far.
const ENVIRONMENT: &str = "default";

#[derive(Debug, Deserialize)]
pub(super) struct SandboxPath {
    pub(super) name: SandboxName,
}

pub(super) async fn list(State(state): State<AppState>, _: SignedIn) -> Result<Json<Vec<Sandbox>>, ApiError> {
    Ok(Json(state.store().sandboxes().await?))
}

pub(super) async fn create(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Json(body): Json<CreateSandbox>,
) -> Result<(StatusCode, Json<Sandbox>), ApiError> {
    let default =
        EnvironmentName::new(ENVIRONMENT).map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    let environment = body.environment.unwrap_or_else(|| default.clone());
    if environment != default {
        return Err(ApiError::not_found("environment", &environment).field("environment"));
    }
    let lifetime = body.expires_in.unwrap_or(state.config().sandbox_lifetime);
    let created_at = Timestamp::now();
    let expires_at = created_at.checked_add(lifetime).ok().filter(|_| !lifetime.is_zero()).ok_or_else(|| {
        ApiError::new(ErrorCode::InvalidInput, "expires_in must be some time, such as \"7d\"").field("expires_in")
    })?;
    let owner = signed_in.session.user().clone();
    let sandbox = Sandbox { name: body.name, environment, owner, created_at, expires_at };
    state.store().insert_sandbox(&sandbox).await.map_err(|error| ApiError::from(error).field("name"))?;
    state.audit(vec![signed_in.deed(AuditAction::SandboxCreate, AuditSubject::sandbox(&sandbox.name))]).await;
    Ok((StatusCode::CREATED, Json(sandbox)))
}

pub(super) async fn one(
    State(state): State<AppState>,
    _: SignedIn,
    Path(path): Path<SandboxPath>,
) -> Result<Json<SandboxDetail>, ApiError> {
    let sandbox = find(&state, &path.name).await?;
    let mut seen = BTreeSet::new();
    let mut deployments = deployments_of(&state, &sandbox).await?;
    deployments.retain(|deployment| seen.insert(deployment.key.repo.clone()));
    let routing = routing::of(&state, &sandbox).await?;
    Ok(Json(SandboxDetail { sandbox, deployments, routing }))
}

/// The sandbox, or that there is none.
pub(super) async fn find(state: &AppState, name: &SandboxName) -> Result<Sandbox, ApiError> {
    let sandbox = state.store().sandbox(name).await?;
    sandbox.ok_or_else(|| ApiError::not_found("sandbox", name).field("name"))
}

/// Every deployment of this sandbox, newest first, and none of an earlier one of its name.
async fn deployments_of(state: &AppState, sandbox: &Sandbox) -> Result<Vec<Deployment>, ApiError> {
    let mut filter = DeploymentFilter { sandbox: Some(sandbox.name.clone()), limit: Some(500), ..Default::default() };
    let mut found = Vec::new();
    loop {
        let page = state.store().deployments(&filter).await?;
        let before = page.items.last().map(|last| last.id);
        found.extend(page.items.into_iter().filter(|deployment| deployment.created_at >= sandbox.created_at));
        if page.next.is_none() {
            return Ok(found);
        }
        filter.before = before;
    }
}

pub(super) async fn delete(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<SandboxPath>,
) -> Result<StatusCode, ApiError> {
    let sandbox = find(&state, &path.name).await?;
    if sandbox.owner != *signed_in.session.user() {
        let sentence = format!("sandbox {} belongs to {}, who alone may delete it", sandbox.name, sandbox.owner);
        return Err(ApiError::new(ErrorCode::NotAllowed, sentence));
    }
    let deployments = deployments_of(&state, &sandbox).await?;
    let instances: BTreeSet<(AgentName, InstanceKey)> =
        deployments.iter().map(|deployment| (deployment.agent.clone(), deployment.key.clone())).collect();
    // First whether everybody needed is there: a sandbox half taken down helps nobody.
    let agents = state.hub().agents().await?;
    let connected = |name: &AgentName| agents.iter().any(|agent| agent.name == *name && agent.connected);
    let gateway = routes::gateway(&state).await?;
    let enrolled =
        instances.iter().map(|(agent, _)| agent).filter(|name| agents.iter().any(|agent| agent.name == **name));
    if let Some(away) = enrolled.chain(&gateway).find(|name| !connected(name)) {
        return Err(state.hub().away(away).await.into());
    }
    if let Some(gateway) = &gateway {
        reset_routes(&state, gateway, &sandbox.name).await?;
    }
    for (agent, key) in instances.into_iter().filter(|(agent, _)| connected(agent)) {
        state.hub().request(&agent, RequestBody::Remove { key }).await?;
    }
    for deployment in deployments.iter().filter(|deployment| deployment.state == DeploymentState::Running) {
        state.hub().set_state(deployment.id, DeploymentState::Stopped).await?;
    }
    state.store().delete_sandbox(&sandbox.name).await?;
    state.routing().wake();
    state.audit(vec![signed_in.deed(AuditAction::SandboxDelete, AuditSubject::sandbox(&sandbox.name))]).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn reset_routes(state: &AppState, gateway: &AgentName, sandbox: &SandboxName) -> Result<(), ApiError> {
    let ReplyBody::Routes { table } = state.hub().request(gateway, RequestBody::Routes { sandbox: None }).await? else {
        return Err(RequestError::Unexpected { agent: gateway.clone() }.into());
    };
    let owned = table.routes.into_iter().filter(|route| route.owner.as_ref() == Some(sandbox));
    let services: std::collections::BTreeMap<_, _> = owned.map(|route| (route.service, None)).collect();
    if !services.is_empty() {
        let changes = RouteChanges { services, by: Some(sandbox.clone()), ..RouteChanges::default() };
        state.hub().request(gateway, RequestBody::ApplyRoutes { changes, sandbox: None }).await?;
    }
    Ok(())
}
