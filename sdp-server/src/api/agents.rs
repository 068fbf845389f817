//! Agents, and their enrolment.

use axum::extract::State;
use http::StatusCode;
use schemars::JsonSchema;
use sdp_core::{
    Agent, AgentName, AuditSubject, Disk, Examination,
    api::{
        audit::AuditAction,
        people::{EnrolAgent, EnrolledAgent},
    },
    protocol::{ReplyBody, RequestBody, TokenFrame},
};
use serde::Deserialize;

use super::{Json, Path, in_full};
use crate::{
    ApiError, AppState,
    auth::{self, SignedIn},
    hub::RequestError,
};

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct AgentPath {
    name: AgentName,
}

pub(super) async fn list(State(state): State<AppState>) -> Result<Json<Vec<Agent>>, ApiError> {
    Ok(Json(state.hub().agents().await?))
}

pub(super) async fn one(State(state): State<AppState>, Path(path): Path<AgentPath>) -> Result<Json<Agent>, ApiError> {
    find(&state, &path.name).await.map(Json)
}

/// The agent, or that there is none.
async fn find(state: &AppState, name: &AgentName) -> Result<Agent, ApiError> {
    let agents = state.hub().agents().await?;
    let agent = agents.into_iter().find(|agent| agent.name == *name);
    agent.ok_or_else(|| ApiError::not_found("agent", name).field("name"))
}

/// The room on the disks that an agent uses.
pub(super) async fn disks(
    State(state): State<AppState>,
    Path(path): Path<AgentPath>,
) -> Result<Json<Vec<Disk>>, ApiError> {
    let Agent { name, .. } = find(&state, &path.name).await?;
    match state.hub().request(&name, RequestBody::Disks).await? {
        ReplyBody::Disks { disks } => Ok(Json(disks)),
        _ => Err(RequestError::Unexpected { agent: name }.into()),
    }
}

/// What works on an agent's machine and what does not.
pub(super) async fn doctor(
    State(state): State<AppState>,
    Path(path): Path<AgentPath>,
) -> Result<Json<Examination>, ApiError> {
    let Agent { name, .. } = find(&state, &path.name).await?;
    match state.hub().request(&name, RequestBody::Examine).await? {
        ReplyBody::Examined { examination } => Ok(Json(examination)),
        _ => Err(RequestError::Unexpected { agent: name }.into()),
    }
}

pub(super) async fn enrol(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Json(EnrolAgent { name }): Json<EnrolAgent>,
) -> Result<(StatusCode, Json<EnrolledAgent>), ApiError> {
    in_full(async move {
        let token = auth::enrol(state.store(), &name).await.map_err(|error| ApiError::from(error).field("name"))?;
        state.audit(vec![signed_in.deed(AuditAction::AgentEnrol, AuditSubject::agent(&name))]).await;
        Ok((StatusCode::CREATED, Json(EnrolledAgent { name, token: TokenFrame(token) })))
    })
    .await
}

/// Gives an agent another token. Its connection ends, and it is back when it has that token.
pub(super) async fn rotate(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(AgentPath { name }): Path<AgentPath>,
) -> Result<Json<EnrolledAgent>, ApiError> {
    in_full(async move {
        let token = auth::rotate(state.store(), &name).await?;
        let token = token.ok_or_else(|| ApiError::not_found("agent", &name).field("name"))?;
        state.hub().disconnect(&name);
        state.audit(vec![signed_in.deed(AuditAction::AgentRotate, AuditSubject::agent(&name))]).await;
        Ok(Json(EnrolledAgent { name, token: TokenFrame(token) }))
    })
    .await
}

/// Revokes an agent's token and ends its connection.
pub(super) async fn revoke(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(AgentPath { name }): Path<AgentPath>,
) -> Result<StatusCode, ApiError> {
    in_full(async move {
        if !state.store().remove_agent(&name).await? {
            return Err(ApiError::not_found("agent", &name).field("name"));
        }
        state.hub().disconnect(&name);
        state.audit(vec![signed_in.deed(AuditAction::AgentRevoke, AuditSubject::agent(&name))]).await;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
