//! Signing in and out.

use std::time::Instant;

use axum::{
    extract::State,
    response::{AppendHeaders, IntoResponse},
};
use http::{Extensions, StatusCode, header};
use sdp_core::{
    AgentName, AuditSubject, Credentials, ErrorCode,
    api::{LoginRequest, LoginResponse, Me, audit::AuditAction},
    protocol::{CredentialsFrame, ReplyBody, RequestBody},
};
use secrecy::ExposeSecret;

use super::{Json, SecretJson};
use crate::{
    ApiError, AppState,
    app::client_address,
    auth::{COOKIE, SignedIn},
    hub::RequestError,
    store::Deed,
};

pub(super) async fn login(
    State(state): State<AppState>,
    extensions: Extensions,
    SecretJson(body): SecretJson<LoginRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let LoginRequest { username, password } = body;
    let (address, now) = (client_address(&extensions), Instant::now());
    if !state.limiter().attempt(address, &username, now) {
        let sentence = "too many sign-in attempts from this address; wait a minute and try again";
        return Err(ApiError::new(ErrorCode::RateLimited, sentence));
    }
    let credentials = Credentials::new(username, password);
    if let Err(error) = verify(&state, &credentials).await {
        if error.0.code != ErrorCode::InvalidCredentials {
            state.limiter().undecided(address, credentials.username());
        }
        return Err(error);
    }
    state.limiter().succeeded(address, credentials.username());
    let (token, session) = state.sessions().start(credentials, now);
    let token = token.expose_secret().to_owned();
    let age = state.config().session.absolute.as_secs();
    let cookie = cookie(&state, &token, age);
    let user = session.user().clone();
    tracing::info!(%user, %address, "signed in");
    let deed = Deed::of_the_platform(AuditAction::SignIn, AuditSubject::user(&user));
    state.audit(vec![Deed { user: Some(user.clone()), address: Some(address), ..deed }]).await;
    let answer = LoginResponse { user, token, expires_at: session.expires_at };
    Ok((AppendHeaders([(header::SET_COOKIE, cookie)]), Json(answer)))
}

pub(super) async fn logout(State(state): State<AppState>, signed_in: SignedIn) -> impl IntoResponse {
    state.sessions().end(signed_in.token.expose_secret());
    let subject = AuditSubject::user(signed_in.session.user());
    state.audit(vec![signed_in.deed(AuditAction::SignOut, subject)]).await;
    (StatusCode::NO_CONTENT, AppendHeaders([(header::SET_COOKIE, cookie(&state, "", 0))]))
}

pub(super) async fn me(signed_in: SignedIn) -> Json<Me> {
    Json(Me { user: signed_in.session.user().clone() })
}

fn cookie(state: &AppState, token: &str, age: u64) -> String {
    let secure = if state.config().session.cookie_secure { "; Secure" } else { "" };
    format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}")
}

async fn verify(state: &AppState, credentials: &Credentials) -> Result<(), ApiError> {
    let agent = verifier(state).await?;
    let body = RequestBody::Verify { repo: None, credentials: CredentialsFrame(credentials.clone()) };
    match state.hub().request(&agent, body).await? {
        ReplyBody::Done => Ok(()),
        _ => Err(RequestError::Unexpected { agent }.into()),
    }
}

/// The agent that checks sign-ins.
async fn verifier(state: &AppState) -> Result<AgentName, ApiError> {
    if let Some(agent) = &state.config().auth_agent {
        return Ok(agent.clone());
    }
    let agents = state.hub().agents().await?;
    let has_gateway =
        |agent: &sdp_core::Agent| agent.inventory.as_ref().is_some_and(|inventory| inventory.gateway.is_some());
    let best = agents.iter().filter(|agent| agent.connected).max_by_key(|agent| has_gateway(agent));
    match (best, agents.iter().max_by_key(|agent| agent.last_seen)) {
        (Some(agent), _) => Ok(agent.name.clone()),
        (None, Some(agent)) => Err(state.hub().away(&agent.name).await.into()),
        (None, None) => {
            let sentence =
                "no agent is enrolled that could check the sign-in; enrol one with `sdp-server agent add NAME`";
            Err(ApiError::new(ErrorCode::AgentAway, sentence))
        }
    }
}
