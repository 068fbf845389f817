//! The HTTP API: one file per resource, thin handlers.

mod agent_link;
mod agents;
mod audit;
mod deployments;
mod endpoint;
mod endpoints;
mod environments;
mod etag;
mod exec;
mod explain;
mod extract;
mod health;
mod idempotency;
mod lifecycle;
mod live;
mod logs;
mod manifest;
mod metrics;
mod openapi;
mod output;
mod repos;
mod rollback;
mod routes;
mod routing;
mod sandboxes;
mod session;
mod socket;
mod stats;
mod stream;
mod templates;
mod tokens;
mod users;
mod webhooks;

use std::{sync::LazyLock, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use sdp_core::{ErrorCode, Problem};
use tower_http::cors::{AllowOrigin, CorsLayer};

pub use self::{
    endpoint::Endpoint,
    extract::{Json, Path, Query, SecretJson},
};
pub(crate) use self::{
    environments::find as find_environment,
    idempotency::KEPT,
    routes::{Wanted, own_url, set as set_routes},
};
use crate::{ApiError, AppState, dashboard};

/// How long a browser remembers what it may ask for.
const PREFLIGHT: Duration = Duration::from_secs(600);

/// The largest body that is read: none of the API's comes near it.
const MAX_BODY_BYTES: usize = 256 * 1024;

pub(crate) fn router(state: AppState) -> Router {
    let served = endpoints::served().into_iter().fold(Router::new(), |router, served| served.mount(router, &state));
    let served = served
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(headers))
        .layer(middleware::from_fn_with_state(state.clone(), crate::metrics::observe));
    // It answers OPTIONS, which otherwise is a method like any.
    let allowed_origins = &state.config().allowed_origins;
    let served = if allowed_origins.is_empty() { served } else { served.layer(cors(allowed_origins)) };
    served.with_state(state)
}

/// Lets the pages of other sites that are allowed use the API with a browser's session.
fn cors(allowed_origins: &[String]) -> CorsLayer {
    CorsLayer::new()
        // The configuration was checked for what is an origin, which is a header's value.
        .allow_origin(AllowOrigin::list(allowed_origins.iter().filter_map(|origin| origin.parse().ok())))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, header::IF_MATCH, idempotency::KEY])
        .expose_headers([header::ETAG, header::LOCATION, header::RETRY_AFTER, idempotency::REPLAYED])
        .max_age(PREFLIGHT)
}

/// Every endpoint there is, with its rule.
pub fn endpoints() -> Vec<Endpoint> {
    endpoints::served().into_iter().map(|served| served.endpoint).collect()
}

/// The OpenAPI document, as `/api/openapi.json` answers it.
pub fn document() -> Bytes {
    DOCUMENT.clone()
}

/// The OpenAPI document, which is the same for every server.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| openapi::document(&endpoints::served()));

/// How many items a page has at most.
const MAX_LIMIT: u32 = 500;

/// Refuses a page of a size that there is not.
fn check_limit(limit: Option<u32>, max: u32) -> Result<(), ApiError> {
    match limit {
        Some(limit) if !(1..=max).contains(&limit) => {
            Err(ApiError::new(ErrorCode::InvalidInput, format!("limit is 1 to {max}")).field("limit"))
        }
        _ => Ok(()),
    }
}

/// That something to be made has no name.
fn nameless(what: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidInput, format!("give the {what} a name")).field("name")
}

/// Refuses a body that names another thing than its path.
fn same_name<T: PartialEq + std::fmt::Display>(path: &T, body: Option<&T>) -> Result<(), ApiError> {
    match body {
        Some(body) if body != path => {
            let sentence = format!("the path names {path} and the body {body}: leave the name out of the body");
            Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("name"))
        }
        _ => Ok(()),
    }
}

/// The dashboard's, where no endpoint is.
async fn unknown_path(State(state): State<AppState>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let reads = matches!(method, Method::GET | Method::HEAD);
    let page = reads.then(|| dashboard::serve(uri.path(), &headers, state.config().public_url().path())).flatten();
    let nothing = || ApiError::new(ErrorCode::NotFound, format!("there is nothing at {}", uri.path())).into_response();
    page.unwrap_or_else(nothing)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let sentence = format!("{method} is not allowed on {}; the header `Allow` lists what is", uri.path());
    let mut problem = Problem::new(ErrorCode::BadRequest, sentence);
    problem.status = 405;
    ApiError(problem)
}

/// Runs `work` to its end also when the client hangs up: what was done must be written down.
async fn in_full<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let lost = |_| Err(ApiError::new(ErrorCode::Internal, "the request was not carried out to its end; look again"));
    tokio::spawn(work).await.unwrap_or_else(lost)
}

/// What every answer says to a browser.
async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
