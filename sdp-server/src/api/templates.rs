//! Templates.

use axum::extract::State;
use http::StatusCode;
use schemars::JsonSchema;
use sdp_core::{
    AuditSubject, ErrorCode, Shape, Template, TemplateName, UserName,
    api::{SaveTemplate, audit::AuditAction},
};
use serde::Deserialize;

use super::{
    Json, Path,
    etag::{IfMatch, Tagged},
    sandboxes::{copy, find_record},
};
use crate::{ApiError, AppState, auth::SignedIn, store::Deed};

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct TemplatePath {
    name: TemplateName,
}

pub(super) async fn list(State(state): State<AppState>) -> Result<Json<Vec<Template>>, ApiError> {
    Ok(Json(state.store().templates().await?))
}

pub(super) async fn one(
    State(state): State<AppState>,
    Path(path): Path<TemplatePath>,
) -> Result<Tagged<Template>, ApiError> {
    find(&state, &path.name).await.map(Tagged::of).map_err(|error| error.field("name"))
}

/// The template, or that there is none.
pub(super) async fn find(state: &AppState, name: &TemplateName) -> Result<Template, ApiError> {
    state.store().template(name).await?.ok_or_else(|| ApiError::not_found("template", name))
}

pub(super) async fn create(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Json(body): Json<SaveTemplate>,
) -> Result<Tagged<Template>, ApiError> {
    let name = body.name.clone().ok_or_else(|| super::nameless("template"))?;
    let template = template(&state, name, signed_in.user(), body).await?;
    let deed = deed(&signed_in, AuditAction::TemplateCreate, &template.name);
    let inserted = state.store().insert_template(&template, deed).await;
    inserted.map_err(|error| ApiError::from(error).field("name"))?;
    Ok(Tagged::of(template).created())
}

pub(super) async fn replace(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<TemplatePath>,
    IfMatch(expected): IfMatch,
    Json(body): Json<SaveTemplate>,
) -> Result<Tagged<Template>, ApiError> {
    super::same_name(&path.name, body.name.as_ref())?;
    let owner = find(&state, &path.name).await.map_err(|error| error.field("name"))?.owner;
    let template = template(&state, path.name, &owner, body).await?;
    let deed = deed(&signed_in, AuditAction::TemplateReplace, &template.name);
    if state.store().replace_template(&template, &expected, deed).await? {
        return Ok(Tagged::of(template));
    }
    Err(ApiError::not_found("template", &template.name).field("name"))
}

pub(super) async fn delete(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<TemplatePath>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, ApiError> {
    let deed = deed(&signed_in, AuditAction::TemplateDelete, &path.name);
    if state.store().delete_template(&path.name, &expected, deed).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::not_found("template", &path.name).field("name"))
}

fn deed(signed_in: &SignedIn, action: AuditAction, name: &TemplateName) -> Deed {
    signed_in.deed(action, AuditSubject::template(name))
}

async fn template(
    state: &AppState,
    name: TemplateName,
    owner: &UserName,
    body: SaveTemplate,
) -> Result<Template, ApiError> {
    let by_hand = Shape { services: body.services, routes: body.routes };
    let shape = match body.from_sandbox {
        Some(_) if by_hand != Shape::default() => {
            let sentence = "take the shape from a sandbox, or give services and routes, not both";
            return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("from_sandbox"));
        }
        Some(sandbox) => copy(find_record(state, &sandbox).await.map_err(|error| error.field("from_sandbox"))?.shape),
        None => by_hand,
    };
    if shape.services.is_empty() {
        let sentence = "a template has at least one service";
        return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("services"));
    }
    if body.expires_in.is_some_and(|lifetime| lifetime.is_zero()) {
        let sentence = "expires_in must be some time, such as \"7d\"";
        return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("expires_in"));
    }
    Ok(Template { name, owner: owner.clone(), saved_at: crate::store::now(), shape, expires_in: body.expires_in })
}
