//! Environments.

use axum::extract::State;
use http::StatusCode;
use schemars::JsonSchema;
use sdp_core::{
    AgentName, AuditSubject, Environment, EnvironmentName, ErrorCode,
    api::{SaveEnvironment, audit::AuditAction},
};
use serde::Deserialize;

use super::{
    Json, Path,
    etag::{IfMatch, Tagged},
};
use crate::{ApiError, AppState, auth::SignedIn, store::Deed};

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct EnvironmentPath {
    name: EnvironmentName,
}

pub(super) async fn list(State(state): State<AppState>) -> Result<Json<Vec<Environment>>, ApiError> {
    Ok(Json(state.store().environments().await?))
}

pub(super) async fn one(
    State(state): State<AppState>,
    Path(path): Path<EnvironmentPath>,
) -> Result<Tagged<Environment>, ApiError> {
    find(&state, &path.name).await.map(Tagged::of).map_err(|error| error.field("name"))
}

/// The environment, or that there is none.
pub(crate) async fn find(state: &AppState, name: &EnvironmentName) -> Result<Environment, ApiError> {
    state.store().environment(name).await?.ok_or_else(|| ApiError::not_found("environment", name))
}

pub(super) async fn create(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Json(body): Json<SaveEnvironment>,
) -> Result<Tagged<Environment>, ApiError> {
    let name = body.name.clone().ok_or_else(|| super::nameless("environment"))?;
    let environment = checked(&state, name, body).await?;
    let deed = deed(&signed_in, AuditAction::EnvironmentCreate, &environment.name);
    let inserted = state.store().insert_environment(&environment, deed).await;
    inserted.map_err(|error| ApiError::from(error).field("name"))?;
    Ok(Tagged::of(environment).created())
}

pub(super) async fn replace(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<EnvironmentPath>,
    IfMatch(expected): IfMatch,
    Json(body): Json<SaveEnvironment>,
) -> Result<Tagged<Environment>, ApiError> {
    super::same_name(&path.name, body.name.as_ref())?;
    let environment = checked(&state, path.name, body).await?;
    let deed = deed(&signed_in, AuditAction::EnvironmentReplace, &environment.name);
    if state.store().replace_environment(&environment, &expected, deed).await? {
        return Ok(Tagged::of(environment));
    }
    Err(ApiError::not_found("environment", &environment.name).field("name"))
}

pub(super) async fn delete(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<EnvironmentPath>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, ApiError> {
    let deed = deed(&signed_in, AuditAction::EnvironmentDelete, &path.name);
    if state.store().delete_environment(&path.name, &expected, deed).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::not_found("environment", &path.name).field("name"))
}

fn deed(signed_in: &SignedIn, action: AuditAction, name: &EnvironmentName) -> Deed {
    signed_in.deed(action, AuditSubject::environment(name))
}

/// The environment that is to be kept: its agents are enrolled, and nothing in it takes no time.
async fn checked(state: &AppState, name: EnvironmentName, body: SaveEnvironment) -> Result<Environment, ApiError> {
    let enrolled = state.hub().agents().await?;
    let known = |agent: &AgentName| enrolled.iter().any(|enrolled| enrolled.name == *agent);
    let named = body.agents.iter().map(|agent| ("agents", agent)).chain(body.gateway.iter().map(|it| ("gateway", it)));
    for (field, agent) in named {
        if !known(agent) {
            let sentence = format!("no agent {agent} is enrolled; GET /api/agents lists those that are");
            return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field(field));
        }
    }
    for (field, duration) in [("sandbox_lifetime", body.sandbox_lifetime), ("idle_after", body.idle_after)] {
        if duration.is_some_and(|duration| duration.is_zero()) {
            let sentence = format!("{field} must be some time, such as \"7d\"");
            return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field(field));
        }
    }
    Ok(Environment {
        name,
        gateway: body.gateway,
        agents: body.agents,
        env: body.env,
        ports: body.ports,
        sandbox_lifetime: body.sandbox_lifetime,
        idle_after: body.idle_after,
    })
}
