//! What Prometheus reads.

use axum::extract::State;
use http::{HeaderName, header};

use crate::{ApiError, AppState, metrics::CONTENT_TYPE};

pub(super) async fn metrics(
    State(state): State<AppState>,
) -> Result<([(HeaderName, &'static str); 1], String), ApiError> {
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], state.metrics().text(&state).await?))
}
