//! The HTTP API: one file per resource, thin handlers.

mod agent_link;
mod agents;
mod audit;
mod deployments;
mod environments;
mod explain;
mod extract;
mod health;
mod lifecycle;
mod logs;
mod manifest;
mod repos;
mod rollback;
mod routes;
mod routing;
mod sandboxes;
mod session;
mod stream;
mod templates;
mod webhooks;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use http::{HeaderValue, Method, Uri, header};
use sdp_core::{ErrorCode, Problem, protocol};

pub use self::extract::{Json, Path, Query, SecretJson};
pub(crate) use self::{
    environments::find as find_environment,
    routes::{Wanted, own_url, set as set_routes},
};
use crate::{ApiError, AppState};

/// The largest body that is read: none of the API's comes near it.
const MAX_BODY_BYTES: usize = 256 * 1024;

pub(crate) fn router(state: AppState) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .merge(agent_routes())
        .route("/ws/deployments/{id}", get(stream::follow))
        .route("/api/login", post(session::login))
        .route("/api/logout", post(session::logout))
        .route("/api/me", get(session::me))
        .route("/api/agents", get(agents::list))
        .route("/api/agents/{name}", get(agents::one))
        .route("/api/repos", get(repos::list))
        .route("/api/repos/{repo}/branches", get(repos::branches))
        .route("/api/sandboxes", get(sandboxes::list).post(sandboxes::create))
        .route("/api/sandboxes/{name}", get(sandboxes::one).patch(sandboxes::extend).delete(sandboxes::delete))
        .route("/api/sandboxes/{name}", put(manifest::apply))
        .route("/api/sandboxes/{name}/diff", post(manifest::diff))
        .route("/api/sandboxes/{name}/export", get(manifest::export))
        .route("/api/sandboxes/{name}/deploy", post(lifecycle::deploy))
        .route("/api/sandboxes/{name}/sleep", post(lifecycle::sleep))
        .route("/api/sandboxes/{name}/wake", post(lifecycle::wake))
        .route("/api/environments", get(environments::list).post(environments::create))
        .route(
            "/api/environments/{name}",
            get(environments::one).put(environments::replace).delete(environments::delete),
        )
        .route("/api/templates", get(templates::list).post(templates::create))
        .route("/api/templates/{name}", get(templates::one).put(templates::replace).delete(templates::delete))
        .route("/api/sandboxes/{name}/deployments", post(deployments::create_in_sandbox))
        .route("/api/sandboxes/{name}/routes", get(routes::table).put(routes::set_many))
        .route("/api/sandboxes/{name}/routes/{service}", put(routes::set_one))
        .route("/api/deployments", get(deployments::list).post(deployments::create))
        .route("/api/deployments/{id}", get(deployments::one))
        .route("/api/deployments/{id}/cancel", post(deployments::cancel))
        .route("/api/deployments/{id}/stop", post(deployments::stop))
        .route("/api/deployments/{id}/restart", post(deployments::restart))
        .route("/api/deployments/{id}/retry", post(deployments::retry))
        .route("/api/deployments/{id}/rollback", post(rollback::rollback))
        .route("/api/deployments/{id}/log", get(logs::log))
        .route("/api/sandboxes/{name}/routes/{service}/explain", get(explain::of_sandbox))
        .route("/api/explain", get(explain::request))
        .route("/api/audit", get(audit::list))
        .route(
            "/api/webhooks/bitbucket/{name}",
            post(webhooks::bitbucket).layer(DefaultBodyLimit::max(webhooks::MAX_BODY_BYTES)),
        )
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(headers))
        .with_state(state)
}

/// What agents use: nothing of it is for people.
fn agent_routes() -> Router<AppState> {
    Router::new()
        .route("/ws/agent", get(agent_link::socket))
        .route("/ws/agent/check", post(agent_link::check))
        .route("/ws/agent/session", post(agent_link::open))
        .route("/ws/agent/session/frames", get(agent_link::fetch).post(agent_link::bring))
        .route("/ws/agent/session/end", post(agent_link::end))
        .layer(DefaultBodyLimit::max(protocol::MAX_BODY_BYTES))
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

async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is nothing at {}", uri.path()))
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
