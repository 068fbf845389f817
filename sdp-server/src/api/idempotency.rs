//! `Idempotency-Key`: a creating request that is sent again, because its answer was lost, is answered again instead of
//! being carried out again.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts};
use sdp_core::{ErrorCode, Problem, problem::chain};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{MAX_BODY_BYTES, extract};
use crate::{
    ApiError, AppState,
    auth::SignedIn,
    store::{Answer, Once, RequestId},
};

/// How long an answer is kept.
pub(crate) const KEPT: Duration = Duration::from_secs(86_400);

/// The header.
pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Says that an answer is an earlier one.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The longest key.
const MAX_KEY: usize = 255;

/// Whether answers of an endpoint hold a secret, of which nothing is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// They do.
    Secret,
    /// They do not.
    Plain,
}

/// Carries a request with a key out once. Runs behind the guard.
pub(super) async fn once(State((state, holds)): State<(AppState, Holds)>, request: Request, next: Next) -> Response {
    if !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    run(state, holds, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn run(state: AppState, holds: Holds, request: Request, next: Next) -> Result<Response, ApiError> {
    let key = key(request.headers())?;
    let (parts, body) = request.into_parts();
    let user = parts.extensions.get::<SignedIn>().map(|signed_in| signed_in.user().clone());
    let user = user.ok_or_else(|| ApiError::new(ErrorCode::NotSignedIn, "sign in first"))?;
    let bytes = extract::read(Request::from_parts(parts.clone(), body), &()).await?;
    let request = Request::from_parts(parts.clone(), Body::from(bytes.clone()));
    // What is no JSON is refused before anything is done.
    let Some(hash) = hash(&parts, &bytes) else { return Ok(next.run(request).await) };
    let id = RequestId { user, route: format!("{} {}", parts.method, parts.uri.path()), key, request: hash };
    match state.store().begin_once(&id).await? {
        Once::New => {}
        Once::UnderWay => {
            let sentence = "the first request with this Idempotency-Key is still under way: ask again in a moment";
            let mut problem = Problem::new(ErrorCode::Conflict, sentence).field("Idempotency-Key");
            problem.retryable = true;
            return Err(problem.retry_after(Duration::from_secs(1)).into());
        }
        Once::Different => {
            let sentence = "this Idempotency-Key was used for another request: give every request its own";
            return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("Idempotency-Key"));
        }
        Once::Answered(answer) => return replay(answer),
    }
    // A task of its own: when the client hangs up, what was begun is finished, and its answer kept.
    let worked = tokio::spawn(async move {
        let response = tokio::spawn(next.run(request)).await;
        let lost = |_| ApiError::new(ErrorCode::Internal, "the request was not carried out to its end; look again");
        let (response, answer) = record(response.unwrap_or_else(|error| lost(error).into_response()), holds).await;
        if let Err(error) = state.store().end_once(&id, answer).await {
            tracing::error!(error = chain(&error), "an answer could not be kept for its Idempotency-Key");
        }
        response
    });
    worked.await.map_err(|_| ApiError::new(ErrorCode::Internal, "the server is stopping"))
}

fn key(headers: &HeaderMap) -> Result<String, ApiError> {
    let text = headers.get(KEY).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || text.len() > MAX_KEY || !is_visible || headers.get_all(KEY).iter().count() > 1 {
        let sentence = format!("an Idempotency-Key is 1 to {MAX_KEY} visible characters, such as a UUID");
        return Err(ApiError::new(ErrorCode::BadRequest, sentence).field("Idempotency-Key"));
    }
    Ok(text.to_owned())
}

/// The SHA-256 of what is asked; none of what is refused anyhow. A password does not count: its hash would tell it to
/// who guesses.
fn hash(parts: &Parts, body: &Bytes) -> Option<[u8; 32]> {
    let mut value = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).ok()? };
    match value.get_mut("credentials") {
        None | Some(Value::Null) => {}
        Some(Value::Object(credentials)) if credentials.get("password").is_some_and(Value::is_string) => {
            credentials.retain(|name, _| name == "username");
        }
        Some(_) => return None,
    }
    let target = parts.uri.path_and_query().map(|target| target.as_str()).unwrap_or_default();
    let hash = Sha256::new().chain_update(parts.method.as_str()).chain_update("\0").chain_update(target);
    let hash = hash.chain_update("\0").chain_update(serde_json::to_vec(&value).ok()?);
    Some(hash.finalize().into())
}

/// What is kept of an answer: nothing where the same request may succeed later.
async fn record(response: Response, holds: Holds) -> (Response, Option<Answer>) {
    let status = response.status();
    if status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) {
        return (response, None);
    }
    let (parts, body) = response.into_parts();
    // The API's own answers end, and none comes near that.
    let Ok(bytes) = to_bytes(body, 64 * MAX_BODY_BYTES).await else {
        let sentence = "the answer is too large to be kept for its Idempotency-Key; look at what was done";
        return (ApiError::new(ErrorCode::Internal, sentence).into_response(), None);
    };
    let kept = [header::CONTENT_TYPE, header::ETAG].into_iter().filter_map(|name| {
        let value = parts.headers.get(&name)?.to_str().ok()?;
        Some((name.to_string(), value.to_owned()))
    });
    let headers: BTreeMap<_, _> = kept.collect();
    let is_secret = holds == Holds::Secret && status.is_success();
    let body = (!is_secret).then(|| bytes.to_vec());
    (Response::from_parts(parts, Body::from(bytes)), Some(Answer { status: status.as_u16(), headers, body }))
}

fn replay(answer: Answer) -> Result<Response, ApiError> {
    let Some(body) = answer.body else {
        let sentence = "that was done, and its answer held a secret, which is shown once: if it was lost, revoke it and \
                        ask with another Idempotency-Key";
        return Err(ApiError::new(ErrorCode::Conflict, sentence).field("Idempotency-Key"));
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
            headers.insert(name, value);
        }
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}
