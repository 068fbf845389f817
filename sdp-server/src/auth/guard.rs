//! The one place where it is decided whether a request may reach its handler.

use std::time::Instant;

use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, header, request::Parts};
use sdp_core::{DeploymentId, ErrorCode, Role, Sandbox, SandboxName, TemplateName, UserName};
use secrecy::SecretString;
use serde::Deserialize;
use url::form_urlencoded;

use super::{
    API_TOKEN, Rule, SECRET_PREFIXES, SignedIn, client_address,
    extract::{Standing, bearer, cookie},
    origin::{Origin, origin},
};
use crate::{ApiError, AppState, api::Path};

/// Holds the requests of one endpoint to its rule. Who is signed in is then among the request's extensions.
pub(crate) async fn guard(State((state, rule)): State<(AppState, Rule)>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match admit(&mut parts, &state, rule).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(error) => error.into_response(),
    }
}

async fn admit(parts: &mut Parts, state: &AppState, rule: Rule) -> Result<(), ApiError> {
    refuse_secrets(parts.uri.query().unwrap_or_default())?;
    let Some(role) = rule.role() else {
        return if rule == Rule::Anyone { check_origin(parts, state, false) } else { Ok(()) };
    };
    let mut signed_in = authenticate(parts, state)?;
    if rule == Rule::Session && signed_in.token.is_some() {
        let sentence = "a token may not do that: sign in with POST /api/login and use the session";
        return Err(ApiError::new(ErrorCode::NotAllowed, sentence));
    }
    if signed_in.role < role {
        return Err(too_little(&signed_in, role));
    }
    signed_in.standing = standing(parts, state, rule, &signed_in).await?;
    parts.extensions.insert(signed_in);
    Ok(())
}

/// A secret in an address ends in browsers' histories and in the logs of every proxy on the way.
fn refuse_secrets(query: &str) -> Result<(), ApiError> {
    const NAMES: [&str; 6] = ["token", "access_token", "bearer", "api_key", "authorization", "password"];
    let found = form_urlencoded::parse(query.as_bytes()).any(|(name, value)| {
        NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
            || SECRET_PREFIXES.iter().any(|prefix| value.starts_with(prefix))
    });
    if !found {
        return Ok(());
    }
    let sentence = "a secret does not belong into an address, which proxies and browsers write down: send it in the \
                    header `Authorization: Bearer`, and revoke this one";
    Err(ApiError::new(ErrorCode::BadRequest, sentence))
}

fn authenticate(parts: &Parts, state: &AppState) -> Result<SignedIn, ApiError> {
    let headers = &parts.headers;
    let address = client_address(&parts.extensions, headers, &state.config().trusted_proxies);
    let secret = match (headers.get(header::AUTHORIZATION), cookie(headers)) {
        (Some(_), _) => bearer(headers).ok_or_else(|| {
            let sentence =
                "the header `Authorization` must be `Bearer` and a token, of POST /api/login or of POST /api/tokens";
            ApiError::new(ErrorCode::NotSignedIn, sentence)
        })?,
        (None, Some(secret)) => {
            check_origin(parts, state, true)?;
            secret
        }
        (None, None) => return Err(ApiError::new(ErrorCode::NotSignedIn, "sign in with POST /api/login first")),
    };
    let unknown = |sentence: &str| ApiError::new(ErrorCode::NotSignedIn, sentence);
    let (session, token, ended) = if secret.starts_with(API_TOKEN) {
        let sentence = "the token is unknown, has expired or was revoked; make another with POST /api/tokens";
        let (token, ended) = state.people().find_token(secret).ok_or_else(|| unknown(sentence))?;
        (super::Session::of_token(&token), Some(token), ended)
    } else {
        let sentence = "the session is unknown or has expired; sign in again";
        let (session, ended) = state.sessions().find(secret, Instant::now()).ok_or_else(|| unknown(sentence))?;
        (session, None, ended)
    };
    let user_role = state.people().role(session.user()).ok_or_else(|| super::locked_out(session.user()))?;
    let role = token.as_ref().map_or(user_role, |token| token.role().min(user_role));
    let secret = SecretString::from(secret);
    Ok(SignedIn { session, role, token, secret, address, standing: Standing::None, ended })
}

/// Browsers send a cookie along on behalf of any page: what changes something, and every WebSocket, must come from a
/// page of this site or of an allowed one. `proven` asks for proof of that, which every browser gives.
fn check_origin(parts: &Parts, state: &AppState, proven: bool) -> Result<(), ApiError> {
    let is_read = matches!(parts.method, Method::GET | Method::HEAD) && !parts.headers.contains_key(header::UPGRADE);
    if is_read {
        return Ok(());
    }
    match origin(&parts.headers, &state.config().allowed_origins) {
        Origin::Here => Ok(()),
        Origin::Unknown if !proven || is_bearer(&parts.headers) => Ok(()),
        Origin::Unknown => {
            let sentence = "with a cookie, a request that changes something must say where it comes from (`Origin` or \
                            `Sec-Fetch-Site`), as browsers do; programs send `Authorization: Bearer`";
            Err(ApiError::new(ErrorCode::NotAllowed, sentence))
        }
        Origin::Elsewhere => {
            let sentence = "this page's origin may not use the API with your session; add it to `allowed_origins`";
            Err(ApiError::new(ErrorCode::NotAllowed, sentence))
        }
    }
}

fn is_bearer(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION)
}

fn too_little(signed_in: &SignedIn, needed: Role) -> ApiError {
    let (user, role) = (signed_in.session.user(), signed_in.role);
    let sentence = match &signed_in.token {
        Some(token) => format!(
            "this needs the role {needed}, and the token {:?} of {user} has {role}: make one with another scope, if {user} has that role",
            token.name.as_str()
        ),
        None => format!(
            "this needs the role {needed}, and {user} has {role}: an admin can give it with PUT /api/users/{user}"
        ),
    };
    ApiError::new(ErrorCode::NotAllowed, sentence)
}

#[derive(Debug, Deserialize)]
struct SandboxPath {
    name: SandboxName,
}

#[derive(Debug, Deserialize)]
struct DeploymentPath {
    id: DeploymentId,
}

#[derive(Debug, Deserialize)]
struct TemplatePath {
    name: TemplateName,
}

/// What the signed-in person is to the thing that the path names.
async fn standing(parts: &mut Parts, state: &AppState, rule: Rule, signed_in: &SignedIn) -> Result<Standing, ApiError> {
    let store = state.store();
    let (owner, sandbox, what) = match rule {
        Rule::Sandbox | Rule::NewSandbox => {
            let Path(SandboxPath { name }) = Path::from_request_parts(parts, state).await?;
            let sandbox = store.sandbox(&name).await?;
            if sandbox.is_none() && rule == Rule::NewSandbox {
                return Ok(Standing::Owner);
            }
            let sandbox = sandbox.ok_or_else(|| ApiError::not_found("sandbox", &name).field("name"))?;
            (sandbox.owner.clone(), Some(sandbox), format!("sandbox {name}"))
        }
        Rule::Deployment => {
            let Path(DeploymentPath { id }) = Path::from_request_parts(parts, state).await?;
            let deployment = store.deployment(id).await?;
            let deployment = deployment.ok_or_else(|| ApiError::not_found("deployment", id).field("id"))?;
            let sandbox = match &deployment.key.sandbox {
                Some(name) => store.sandbox(name).await?,
                None => None,
            };
            match sandbox {
                // What is done to it would be done to the sandbox that has the name now.
                Some(sandbox) if sandbox.created_at > deployment.created_at => {
                    let sentence =
                        format!("deployment {id} is of an earlier sandbox {}, which was deleted", sandbox.name);
                    return Err(ApiError::new(ErrorCode::Conflict, sentence).field("id"));
                }
                Some(sandbox) => (sandbox.owner.clone(), Some(sandbox), format!("the sandbox of deployment {id}")),
                None => (deployment.user, None, format!("deployment {id}")),
            }
        }
        Rule::Template => {
            let Path(TemplatePath { name }) = Path::from_request_parts(parts, state).await?;
            let template = store.template(&name).await?;
            let template = template.ok_or_else(|| ApiError::not_found("template", &name).field("name"))?;
            (template.owner, None, format!("template {name}"))
        }
        _ => return Ok(Standing::None),
    };
    stands(signed_in, &what, &owner, sandbox.as_ref())
}

/// Refuses who may not change a sandbox, for what cannot be decided before the sandbox is known.
pub(crate) fn admit_to(signed_in: &SignedIn, sandbox: &Sandbox) -> Result<(), ApiError> {
    stands(signed_in, &format!("sandbox {}", sandbox.name), &sandbox.owner, Some(sandbox)).map(drop)
}

fn stands(signed_in: &SignedIn, what: &str, owner: &UserName, sandbox: Option<&Sandbox>) -> Result<Standing, ApiError> {
    let user = signed_in.session.user();
    let shares = |sandbox: &Sandbox| sandbox.shared_with.iter().any(|with| with.is(user));
    match () {
        () if owner == user => Ok(Standing::Owner),
        () if signed_in.role == Role::Admin => Ok(Standing::Admin),
        () if sandbox.is_some_and(shares) => Ok(Standing::Shared),
        () => Err(not_yours(what, owner, sandbox)),
    }
}

fn not_yours(what: &str, owner: &UserName, sandbox: Option<&Sandbox>) -> ApiError {
    let cure = match sandbox {
        Some(sandbox) => format!("they can share it with `shared_with` of PATCH /api/sandboxes/{}", sandbox.name),
        None => "they or an admin can do that".into(),
    };
    let sentence = format!("{what} belongs to {owner}; {cure}");
    let ApiError(problem) = ApiError::new(ErrorCode::NotAllowed, sentence);
    ApiError(problem.holder(owner.as_str()))
}
