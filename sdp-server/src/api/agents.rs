//! Agents, and their enrolment.

use axum::extract::State;
use http::StatusCode;
use schemars::JsonSchema;
use sdp_core::{
    Agent, AgentName, AuditSubject,
    api::{
        audit::AuditAction,
        people::{EnrolAgent, EnrolledAgent},
    },
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{Json, Path, in_full};
use crate::{
    ApiError, AppState,
    auth::{self, SignedIn},
};

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct AgentPath {
    name: AgentName,
}

pub(super) async fn list(State(state): State<AppState>) -> Result<Json<Vec<Agent>>, ApiError> {
    Ok(Json(state.hub().agents().await?))
}

pub(super) async fn one(State(state): State<AppState>, Path(path): Path<AgentPath>) -> Result<Json<Agent>, ApiError> {
    let agents = state.hub().agents().await?;
    let agent = agents.into_iter().find(|agent| agent.name == path.name);
    agent.map(Json).ok_or_else(|| ApiError::not_found("agent", path.name).field("name"))
}

pub(super) async fn enrol(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Json(EnrolAgent { name }): Json<EnrolAgent>,
) -> Result<(StatusCode, Json<EnrolledAgent>), ApiError> {
    in_full(async move {
        let token = auth::enrol(state.store(), &name).await.map_err(|error| ApiError::from(error).field("name"))?;
        state.audit(vec![signed_in.deed(AuditAction::AgentEnrol, AuditSubject::agent(&name))]).await;
        Ok((StatusCode::CREATED, Json(enrolled(name, &token))))
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
        Ok(Json(enrolled(name, &token)))
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

fn enrolled(name: AgentName, token: &SecretString) -> EnrolledAgent {
    EnrolledAgent { name, token: token.expose_secret().to_owned() }
}
