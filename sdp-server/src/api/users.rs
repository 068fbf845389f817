//! People and what they may do, for admins.

use axum::extract::State;
use schemars::JsonSchema;
use sdp_core::{
    AuditSubject, ErrorCode, User, UserName,
    api::{audit::AuditAction, people::ChangeUser},
};
use serde::Deserialize;

use super::{Json, Path, in_full};
use crate::{ApiError, AppState, auth::SignedIn};

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct UserPath {
    name: UserName,
}

pub(super) async fn list(State(state): State<AppState>) -> Json<Vec<User>> {
    Json(state.people().users())
}

pub(super) async fn one(
    State(state): State<AppState>,
    Path(UserPath { name }): Path<UserPath>,
) -> Result<Json<User>, ApiError> {
    state.people().user(&name).map(Json).ok_or_else(|| unknown(&name))
}

/// Gives a role, locks out, lets in again. Who is locked out is signed out everywhere.
pub(super) async fn change(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(UserPath { name }): Path<UserPath>,
    Json(body): Json<ChangeUser>,
) -> Result<Json<User>, ApiError> {
    let ChangeUser { role, disabled } = body;
    if role.is_none() && disabled.is_none() {
        let sentence = "say which `role` the user has, or whether they are `disabled`";
        return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("role"));
    }
    if name == *signed_in.user() {
        let sentence = "nobody changes what they may do themselves: ask another admin";
        return Err(ApiError::new(ErrorCode::Conflict, sentence).field("name"));
    }
    in_full(async move {
        let user = state.people().change(&name, role, disabled).await?.ok_or_else(|| unknown(&name))?;
        if user.disabled {
            state.sessions().end_all(&name);
        }
        let locked = if user.disabled { ", locked out" } else { "" };
        let deed = signed_in.deed(AuditAction::UserChange, AuditSubject::user(&name));
        state.audit(vec![deed.detail(format!("{}{locked}", user.role))]).await;
        Ok(Json(user))
    })
    .await
}

fn unknown(name: &UserName) -> ApiError {
    let sentence = format!("{name} has never signed in here; GET /api/users lists who has");
    ApiError::new(ErrorCode::NotFound, sentence).field("name")
}
