//! Tokens for scripts. Only a session makes, lists and revokes them: one that was stolen cannot make itself last.

use axum::extract::State;
use http::StatusCode;
use schemars::JsonSchema;
use sdp_core::{
    ApiToken, AuditSubject, Role, TokenId,
    api::{
        audit::AuditAction,
        people::{CreateToken, NewToken},
    },
    protocol::TokenFrame,
};
use serde::Deserialize;

use super::{Json, Path, in_full};
use crate::{ApiError, AppState, auth::SignedIn};

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct TokenPath {
    id: TokenId,
}

/// Those of who asks.
pub(super) async fn list(State(state): State<AppState>, signed_in: SignedIn) -> Json<Vec<ApiToken>> {
    Json(state.people().tokens(signed_in.user()))
}

pub(super) async fn create(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Json(body): Json<CreateToken>,
) -> Result<(StatusCode, Json<NewToken>), ApiError> {
    in_full(async move {
        let (secret, token) = state.people().create_token(signed_in.user(), signed_in.role, body).await?;
        let scopes: Vec<_> = token.scopes.iter().map(|scope| scope.as_str()).collect();
        let detail = format!("{}: {}, until {}", token.name, scopes.join(", "), token.expires_at);
        let subject = AuditSubject::token(&token.user, token.id);
        state.audit(vec![signed_in.deed(AuditAction::TokenCreate, subject).detail(detail)]).await;
        Ok((StatusCode::CREATED, Json(NewToken { secret: TokenFrame(secret), token })))
    })
    .await
}

/// Revokes a token of who asks; an admin revokes anybody's.
pub(super) async fn revoke(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(TokenPath { id }): Path<TokenPath>,
) -> Result<StatusCode, ApiError> {
    let token = state.people().token(id);
    // Somebody else's is as good as none.
    let token = token.filter(|token| token.user == *signed_in.user() || signed_in.role == Role::Admin);
    let token = token.ok_or_else(|| ApiError::not_found("token", id).field("id"))?;
    in_full(async move {
        state.people().revoke_token(id).await?;
        let subject = AuditSubject::token(&token.user, id);
        state.audit(vec![signed_in.deed(AuditAction::TokenRevoke, subject).detail(token.name.as_str())]).await;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
