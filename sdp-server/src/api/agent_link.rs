//! Agents' connections: the WebSocket, the plain HTTP that stands in for it, and a hello on trial.

use axum::{
    extract::{State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use schemars::JsonSchema;
use sdp_core::{
    ErrorCode,
    protocol::{SessionKey, TokenFrame},
};
use serde::Deserialize;

use super::{
    Json, Query,
    extract::{Messages, upgrade},
};
use crate::{ApiError, AppState, auth, hub};

pub(super) async fn socket(
    State(state): State<AppState>,
    request: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    Ok(hub::accept(state.hub().clone(), upgrade(request)?))
}

pub(super) async fn check(State(state): State<AppState>, Messages(hello): Messages) -> Result<Response, ApiError> {
    Ok(Json(state.hub().check_hello(hello).await?).into_response())
}

pub(super) async fn open(State(state): State<AppState>) -> impl IntoResponse {
    (StatusCode::CREATED, Json(SessionKey { key: TokenFrame(state.hub().open_session()) }))
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Number {
    number: u64,
}

pub(super) async fn bring(
    State(state): State<AppState>,
    headers: HeaderMap,
    Query(query): Query<Number>,
    Messages(body): Messages,
) -> Result<StatusCode, ApiError> {
    session(&state, &headers)?.take(query.number, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct After {
    after: u64,
}

pub(super) async fn fetch(
    State(state): State<AppState>,
    headers: HeaderMap,
    Query(query): Query<After>,
) -> Result<Response, ApiError> {
    match session(&state, &headers)?.give(query.after).await? {
        Some(body) => Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response()),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

pub(super) async fn end(State(state): State<AppState>, headers: HeaderMap) -> Result<StatusCode, ApiError> {
    session(&state, &headers)?.end();
    Ok(StatusCode::NO_CONTENT)
}

fn session(state: &AppState, headers: &HeaderMap) -> Result<std::sync::Arc<hub::PolledSession>, ApiError> {
    let sentence = "name the session: its key goes into the header `Authorization: Bearer`";
    let key = auth::bearer(headers).ok_or_else(|| ApiError::new(ErrorCode::NotSignedIn, sentence))?;
    Ok(state.hub().session(key)?)
}
