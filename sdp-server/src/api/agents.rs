//! Agents.

use axum::extract::State;
use sdp_core::{Agent, AgentName};
use serde::Deserialize;

use super::{Json, Path};
use crate::{ApiError, AppState, auth::SignedIn};

#[derive(Debug, Deserialize)]
pub(super) struct AgentPath {
    name: AgentName,
}

pub(super) async fn list(State(state): State<AppState>, _: SignedIn) -> Result<Json<Vec<Agent>>, ApiError> {
    Ok(Json(state.hub().agents().await?))
}

pub(super) async fn one(
    State(state): State<AppState>,
    _: SignedIn,
    Path(path): Path<AgentPath>,
) -> Result<Json<Agent>, ApiError> {
    let agents = state.hub().agents().await?;
    let agent = agents.into_iter().find(|agent| agent.name == path.name);
    agent.map(Json).ok_or_else(|| ApiError::not_found("agent", path.name).field("name"))
}
