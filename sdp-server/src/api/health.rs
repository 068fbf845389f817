//! Liveness and readiness.

use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use super::Json;
use crate::{ApiError, AppState};

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Health {
    status: &'static str,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    agents_connected: Option<usize>,
}

pub(super) async fn alive() -> Json<Health> {
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION"), agents_connected: None })
}

/// Ready when the database answers.
pub(super) async fn ready(State(state): State<AppState>) -> Result<Json<Health>, ApiError> {
    state.store().check().await.map_err(|error| {
        let mut problem = sdp_core::Problem::from(&error);
        problem.status = 503;
        ApiError(problem)
    })?;
    let connected = state.hub().connected();
    Ok(Json(Health { status: "ready", version: env!("CARGO_PKG_VERSION"), agents_connected: Some(connected) }))
}
