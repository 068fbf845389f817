//! Signing in and out.

use std::{net::IpAddr, time::Instant};

use axum::{
    extract::State,
    response::{AppendHeaders, IntoResponse},
};
use http::{Extensions, HeaderMap, StatusCode, header};
use sdp_core::{
    AgentName, AuditSubject, Credentials, ErrorCode, Problem, UserName,
    api::{
        LoginRequest, LoginResponse,
        audit::AuditAction,
        people::{LogoutQuery, Me},
    },
    protocol::{CredentialsFrame, ReplyBody, RequestBody, TokenFrame},
};
use secrecy::ExposeSecret;

use super::{Json, Query, SecretJson};
use crate::{
    ApiError, AppState,
    auth::{self, COOKIE, SignedIn, client_address},
    hub::RequestError,
    store::Deed,
};

pub(super) async fn login(
    State(state): State<AppState>,
    headers: HeaderMap,
    extensions: Extensions,
    SecretJson(body): SecretJson<LoginRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let LoginRequest { username, password } = body;
    let address = client_address(&extensions, &headers, &state.config().trusted_proxies);
    let now = Instant::now();
    if let Err(wait) = state.limiter().attempt(address, &username, now) {
        let sentence = "too many sign-in attempts for this user or from this address; wait and try again";
        return Err(ApiError(Problem::new(ErrorCode::RateLimited, sentence).retry_after(wait)));
    }
    let credentials = Credentials::new(username, password);
    if let Err(error) = verify(&state, &credentials).await {
        if error.0.code == ErrorCode::InvalidCredentials {
            failed(&state, credentials.username(), address).await;
        } else {
            state.limiter().undecided(address, credentials.username());
        }
        return Err(error);
    }
    state.limiter().succeeded(address, credentials.username());
    state.people().role(credentials.username()).ok_or_else(|| auth::locked_out(credentials.username()))?;
    let user = state.people().signed_in(credentials.username()).await?;
    let role = state.people().role(&user).ok_or_else(|| auth::locked_out(&user))?;
    // A browser's earlier session is over. The new one has a token that nobody knew before.
    if let Some(earlier) = auth::cookie(&headers) {
        state.sessions().end(earlier);
    }
    let (token, session) = state.sessions().start(user.clone(), credentials, now);
    let age = state.config().session.absolute.as_secs();
    let cookie = cookie(&state, token.expose_secret(), age);
    tracing::info!(%user, %address, "signed in");
    let deed = Deed::of_the_platform(AuditAction::SignIn, AuditSubject::user(&user));
    state.audit(vec![Deed { user: Some(user.clone()), address: Some(address), ..deed }]).await;
    let answer = LoginResponse { user, role, token: TokenFrame(token), expires_at: session.expires_at };
    Ok((AppendHeaders([(header::SET_COOKIE, cookie)]), Json(answer)))
}

/// Writes a failed sign-in down. A name that nobody has signed in with may be a password in the wrong field.
async fn failed(state: &AppState, user: &UserName, address: IpAddr) {
    let known = state.people().is_known(user);
    let subject = if known { AuditSubject::user(user) } else { AuditSubject::unknown_user() };
    let deed = Deed::of_the_platform(AuditAction::SignInFailed, subject);
    state.audit(vec![Deed { address: Some(address), ..deed }]).await;
}

pub(super) async fn logout(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Query(query): Query<LogoutQuery>,
) -> impl IntoResponse {
    let deed = signed_in.deed(AuditAction::SignOut, AuditSubject::user(signed_in.user()));
    let deed = if query.everywhere {
        let ended = state.sessions().end_all(signed_in.user());
        deed.detail(format!("everywhere: {ended} session(s)"))
    } else {
        state.sessions().end(signed_in.secret.expose_secret());
        deed
    };
    state.audit(vec![deed]).await;
    (StatusCode::NO_CONTENT, AppendHeaders([(header::SET_COOKIE, cookie(&state, "", 0))]))
}

pub(super) async fn me(signed_in: SignedIn) -> Json<Me> {
    let SignedIn { session, role, token, .. } = signed_in;
    Json(Me { user: session.user().clone(), role, expires_at: session.expires_at, token })
}

fn cookie(state: &AppState, token: &str, age: u64) -> String {
    let secure = if state.config().session.cookie_secure || state.config().tls.is_some() { "; Secure" } else { "" };
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
