//! Sandboxes by their document: apply it, see what it would change, and get it.

use axum::{
    extract::{FromRequest, Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use sdp_core::{
    ErrorCode, Manifest,
    api::declared::{AppliedSandbox, SandboxChanges},
};

use super::{
    Json, Path, extract, in_full,
    sandboxes::{SandboxPath, detail, find_record},
};
use crate::{
    ApiError, AppState,
    auth::{self, SignedIn},
    sandboxes::{self, By},
};

const YAML: &str = "application/yaml";

/// A document as YAML or JSON.
#[derive(Debug)]
pub(super) struct Document(Manifest);

impl<S: Send + Sync> FromRequest<S> for Document {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_yaml(request.headers()) {
            return Json::from_request(request, state).await.map(|Json(manifest)| Self(manifest));
        }
        let bytes = extract::read(request, state).await?;
        let invalid =
            |reason: String| ApiError::new(ErrorCode::InvalidInput, format!("the document is not valid: {reason}"));
        let text = std::str::from_utf8(&bytes).map_err(|error| invalid(error.to_string()))?;
        Manifest::from_yaml(text).map(Self).map_err(|error| invalid(error.to_string()))
    }
}

fn is_yaml(headers: &HeaderMap) -> bool {
    let kinds = [YAML, "application/x-yaml", "text/yaml"];
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kinds.iter().any(|known| kind.eq_ignore_ascii_case(known))
}

/// Makes the sandbox as the document says: 201 when it was made, 202 when something has begun, 200 when nothing was to
/// be done or all is done.
pub(super) async fn apply(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<SandboxPath>,
    Document(manifest): Document,
) -> Result<(StatusCode, Json<AppliedSandbox>), ApiError> {
    in_full(async move {
        let name = path.name;
        let turn = state.turns().take(&name).await;
        let plan = sandboxes::plan(&state, &name, &manifest).await?;
        let is_new = plan.record.is_none();
        if let Some(record) = &plan.record {
            // It may have been made while the document was on its way.
            auth::admit_to(&signed_in, &record.sandbox)?;
        }
        let asker = signed_in.asker(None);
        let applied = sandboxes::apply(&state, &name, plan, asker, By::Person(&signed_in), turn).await?;
        let record = find_record(&state, &name).await?;
        let is_left = !applied.deployed.deployments.is_empty() || sandboxes::needs_a_step(&record);
        let status = match (is_new, is_left) {
            (true, _) => StatusCode::CREATED,
            (false, true) => StatusCode::ACCEPTED,
            (false, false) => StatusCode::OK,
        };
        let sandbox = detail(&state, record, Timestamp::now()).await?;
        let sdp_core::api::DeployedSandbox { deployments, refused } = applied.deployed;
        Ok((status, Json(AppliedSandbox { changes: applied.changes, deployments, refused, sandbox })))
    })
    .await
}

/// Says what applying the document would change.
pub(super) async fn diff(
    State(state): State<AppState>,
    Path(path): Path<SandboxPath>,
    Document(manifest): Document,
) -> Result<Json<SandboxChanges>, ApiError> {
    let plan = sandboxes::plan(&state, &path.name, &manifest).await?;
    Ok(Json(SandboxChanges { changes: plan.changes }))
}

/// The document that, applied, gives the same: YAML unless JSON is asked for.
pub(super) async fn export(
    State(state): State<AppState>,
    Path(path): Path<SandboxPath>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let record = find_record(&state, &path.name).await?;
    let manifest = sandboxes::spec(&record).manifest(path.name);
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("json") && !accept.contains("yaml") {
        return Ok(Json(manifest).into_response());
    }
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(YAML))];
    Ok((kind, manifest.to_yaml()).into_response())
}
