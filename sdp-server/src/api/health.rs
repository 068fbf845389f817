//! Liveness and readiness.

use axum::extract::State;
use sdp_core::api::health::Health;

use super::Json;
use crate::{ApiError, AppState};

fn health(status: &str, agents_connected: Option<usize>) -> Json<Health> {
    Json(Health { status: status.into(), version: env!("CARGO_PKG_VERSION").into(), agents_connected })
}

pub(super) async fn alive() -> Json<Health> {
    health("ok", None)
}

/// Ready when the database answers.
pub(super) async fn ready(State(state): State<AppState>) -> Result<Json<Health>, ApiError> {
    state.store().check().await.map_err(|error| {
        let mut problem = sdp_core::Problem::from(&error);
        problem.status = 503;
        ApiError(problem)
    })?;
    Ok(health("ready", Some(state.hub().connected())))
}
