//! Extractors whose refusals are problems that name the field at fault.

use std::time::Duration;

use axum::{
    body::{Bytes, HttpBody},
    extract::{
        FromRequest, FromRequestParts, RawPathParams, Request, WebSocketUpgrade,
        ws::rejection::WebSocketUpgradeRejection,
    },
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header, request::Parts};
use sdp_core::{ErrorCode, Problem};
use serde::{Serialize, de::DeserializeOwned};
use url::form_urlencoded;

use crate::ApiError;

/// How long a client has to send a body.
const BODY: Duration = Duration::from_secs(30);

/// A JSON body, read or written.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(
    /// The value.
    pub T,
);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = body(request, state).await?;
        json(&bytes).map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// A JSON body that may be left out, or be `null`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Optional<T>(pub(super) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for Optional<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !request.headers().contains_key(header::CONTENT_TYPE) && request.body().is_end_stream() {
            return Ok(Self(T::default()));
        }
        let bytes = body(request, state).await?;
        match bytes.trim_ascii() {
            b"" | b"null" => Ok(Self(T::default())),
            bytes => json(bytes).map(Self),
        }
    }
}

/// A JSON body that holds a secret: a refusal repeats nothing of it.
#[derive(Debug, Clone, Copy)]
pub struct SecretJson<T>(
    /// The value.
    pub T,
);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for SecretJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = body(request, state).await?;
        parse(&bytes).map(Self).map_err(|(field, error)| match error.classify() {
            serde_json::error::Category::Data => {
                at(ApiError::new(ErrorCode::InvalidInput, "a field is missing, unknown or not valid"), field)
            }
            _ => ApiError::new(ErrorCode::BadRequest, "the body is not JSON"),
        })
    }
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    parse(bytes).map_err(|(field, error)| {
        if field.starts_with("credentials") {
            let sentence = "git credentials are a `username` and a `password`";
            return at(ApiError::new(ErrorCode::InvalidInput, sentence), field);
        }
        let code = match error.classify() {
            serde_json::error::Category::Data => ErrorCode::InvalidInput,
            _ => ErrorCode::BadRequest,
        };
        at(ApiError::new(code, format!("the body is not valid: {error}")), field)
    })
}

async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    if !is_json(request.headers()) {
        let mut problem =
            Problem::new(ErrorCode::BadRequest, "send a JSON body, with `Content-Type: application/json`");
        problem.status = 415;
        return Err(ApiError(problem));
    }
    read(request, state).await
}

pub(super) async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(BODY, Bytes::from_request(request, state)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(ApiError::new(ErrorCode::TooLarge, "the body is larger than this address takes"))
        }
        Ok(Err(_)) => Err(ApiError::new(ErrorCode::BadRequest, "the body could not be read to its end")),
        Err(_) => {
            let mut problem = Problem::new(ErrorCode::BadRequest, "the body did not come in time");
            problem.status = 408;
            Err(ApiError(problem))
        }
    }
}

/// A body as it is.
#[derive(Debug)]
pub(super) struct Messages(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Messages {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        read(request, state).await.map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, (String, serde_json::Error)> {
    // A list would do for any type of several fields.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err((".".into(), serde::de::Error::custom("it must be an object, `{…}`")));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        (field, error.into_inner())
    })?;
    reader.end().map_err(|error| (".".into(), error))?;
    Ok(value)
}

/// Names the field, where there is one.
fn at(error: ApiError, field: String) -> ApiError {
    if field == "." { error } else { error.field(field) }
}

/// The path's parameters.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(
    /// The value.
    pub T,
);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::new(ErrorCode::BadRequest, "the path is not valid UTF-8"))?;
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        pairs.extend_pairs(&params);
        pairs_to(&pairs.finish(), "path").map(Self)
    }
}

/// The query's parameters.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(
    /// The value.
    pub T,
);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        pairs_to(parts.uri.query().unwrap_or_default(), "query").map(Self)
    }
}

fn pairs_to<T: DeserializeOwned>(pairs: &str, what: &str) -> Result<T, ApiError> {
    let reader = serde_urlencoded::Deserializer::new(form_urlencoded::parse(pairs.as_bytes()));
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let field = error.path().to_string();
        at(ApiError::new(ErrorCode::InvalidInput, format!("the {what} is not valid: {}", error.inner())), field)
    })
}

/// An upgrade, or the problem that it is none.
pub(super) fn upgrade(
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<WebSocketUpgrade, ApiError> {
    upgrade.map_err(|rejection| {
        let sentence = format!("this address speaks WebSocket: {}", rejection.body_text());
        let mut problem = Problem::new(ErrorCode::BadRequest, sentence);
        problem.status = rejection.status().as_u16();
        ApiError(problem)
    })
}
