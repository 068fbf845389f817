//! Webhooks of other systems. They sign what they send; nobody signs in.

use axum::extract::State;
use http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use sdp_core::IntegrationName;
use serde::Deserialize;

use super::{Json, Path, extract::Messages};
use crate::{
    ApiError, AppState,
    bitbucket::{self, Taken},
};

/// The largest body that is read: a push may tell of many commits.
pub(super) const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct WebhookPath {
    name: IntegrationName,
}

/// Takes a delivery of Bitbucket's: 202 when it is in the queue or nothing is to be done for it.
pub(super) async fn bitbucket(
    State(state): State<AppState>,
    Path(path): Path<WebhookPath>,
    headers: HeaderMap,
    Messages(body): Messages,
) -> Result<(StatusCode, Json<Taken>), ApiError> {
    let found = state.integrations().bitbucket(&path.name);
    let bitbucket = found.ok_or_else(|| ApiError::not_found("[[bitbucket]] called", &path.name).field("name"))?;
    let taken = bitbucket::receive(state.store(), bitbucket, &headers, &body).await?;
    Ok((StatusCode::ACCEPTED, Json(taken)))
}
