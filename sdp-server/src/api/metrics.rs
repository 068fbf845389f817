//! What Prometheus reads.

use axum::extract::State;
use http::{HeaderName, header};
use sdp_core::ErrorCode;

use crate::{
    ApiError, AppState,
    metrics::{CONTENT_TYPE, Gauges},
};

pub(super) async fn metrics(
    State(state): State<AppState>,
) -> Result<([(HeaderName, &'static str); 1], String), ApiError> {
    let gauges = Gauges::look(&state).await?;
    let text = state.metrics().text(&gauges).map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}
