//! The HTTP API: one file per resource, thin handlers.

mod agent_link;
mod agents;
mod audit;
mod deployments;
mod endpoint;
mod environments;
mod etag;
mod explain;
mod extract;
mod health;
mod idempotency;
mod lifecycle;
mod live;
mod logs;
mod repos;
mod rollback;
mod routes;
mod routing;
mod sandboxes;
mod session;
mod socket;
mod stream;
mod templates;
mod tokens;
mod users;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, Uri, header};
use sdp_core::{ErrorCode, Problem, protocol};

pub(crate) use self::idempotency::KEPT;
pub(crate) use self::routes::{Wanted, own_url, set as set_routes};
pub use self::{
    endpoint::Endpoint,
    extract::{Json, Path, Query, SecretJson},
};
use self::{
    endpoint::{Served, delete, get, patch, post, put},
    idempotency::Holds,
};
use crate::{ApiError, AppState, auth::Rule};

/// The largest body that is read: none of the API's comes near it.
const MAX_BODY_BYTES: usize = 256 * 1024;

pub(crate) fn router(state: AppState) -> Router {
    let served = served().into_iter().fold(Router::new(), |router, served| served.mount(router, &state));
    served
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(headers))
        .with_state(state)
}

/// Every endpoint there is, with its rule.
pub fn endpoints() -> Vec<Endpoint> {
    served().into_iter().map(|served| served.endpoint).collect()
}

/// Every endpoint: who may use it, and what answers it.
fn served() -> Vec<Served> {
    vec![
        get("/healthz", Rule::Anyone, health::alive),
        get("/readyz", Rule::Anyone, health::ready),
        // Sign-in and people.
        post("/api/login", Rule::Anyone, session::login),
        post("/api/logout", Rule::Session, session::logout),
        get("/api/me", Rule::Viewer, session::me),
        get("/api/tokens", Rule::Session, tokens::list),
        post("/api/tokens", Rule::Session, tokens::create).once(Holds::Secret),
        delete("/api/tokens/{id}", Rule::Session, tokens::revoke),
        get("/api/users", Rule::Admin, users::list),
        get("/api/users/{name}", Rule::Admin, users::one),
        put("/api/users/{name}", Rule::Admin, users::change),
        get("/api/audit", Rule::Viewer, audit::list),
        // Agents and what they can deploy.
        get("/api/agents", Rule::Viewer, agents::list),
        post("/api/agents", Rule::Admin, agents::enrol).once(Holds::Secret),
        get("/api/agents/{name}", Rule::Viewer, agents::one),
        post("/api/agents/{name}/rotate", Rule::Admin, agents::rotate).once(Holds::Secret),
        delete("/api/agents/{name}", Rule::Admin, agents::revoke),
        get("/api/repos", Rule::Viewer, repos::list),
        get("/api/repos/{repo}/branches", Rule::Viewer, repos::branches),
        // Where sandboxes live, and what they are made from.
        get("/api/environments", Rule::Viewer, environments::list),
        post("/api/environments", Rule::Admin, environments::create).once(Holds::Plain),
        get("/api/environments/{name}", Rule::Viewer, environments::one),
        put("/api/environments/{name}", Rule::Admin, environments::replace),
        delete("/api/environments/{name}", Rule::Admin, environments::delete),
        get("/api/templates", Rule::Viewer, templates::list),
        post("/api/templates", Rule::Developer, templates::create).once(Holds::Plain),
        get("/api/templates/{name}", Rule::Viewer, templates::one),
        put("/api/templates/{name}", Rule::Template, templates::replace),
        delete("/api/templates/{name}", Rule::Template, templates::delete),
        // Sandboxes and their routes.
        get("/api/sandboxes", Rule::Viewer, sandboxes::list),
        post("/api/sandboxes", Rule::Developer, sandboxes::create).once(Holds::Plain),
        get("/api/sandboxes/{name}", Rule::Viewer, sandboxes::one),
        patch("/api/sandboxes/{name}", Rule::Sandbox, sandboxes::change),
        delete("/api/sandboxes/{name}", Rule::Sandbox, sandboxes::delete),
        post("/api/sandboxes/{name}/deploy", Rule::Sandbox, lifecycle::deploy).once(Holds::Plain),
        post("/api/sandboxes/{name}/sleep", Rule::Sandbox, lifecycle::sleep),
        post("/api/sandboxes/{name}/wake", Rule::Sandbox, lifecycle::wake),
        post("/api/sandboxes/{name}/deployments", Rule::Sandbox, deployments::create_in_sandbox).once(Holds::Plain),
        get("/api/sandboxes/{name}/routes", Rule::Viewer, routes::table),
        put("/api/sandboxes/{name}/routes", Rule::Sandbox, routes::set_many),
        put("/api/sandboxes/{name}/routes/{service}", Rule::Sandbox, routes::set_one),
        get("/api/sandboxes/{name}/routes/{service}/explain", Rule::Viewer, explain::of_sandbox),
        get("/api/explain", Rule::Viewer, explain::request),
        // Deployments and their logs.
        get("/api/deployments", Rule::Viewer, deployments::list),
        post("/api/deployments", Rule::Developer, deployments::create).once(Holds::Plain),
        get("/api/deployments/{id}", Rule::Viewer, deployments::one),
        post("/api/deployments/{id}/cancel", Rule::Deployment, deployments::cancel),
        post("/api/deployments/{id}/stop", Rule::Deployment, deployments::stop),
        post("/api/deployments/{id}/restart", Rule::Deployment, deployments::restart),
        post("/api/deployments/{id}/retry", Rule::Deployment, deployments::retry).once(Holds::Plain),
        post("/api/deployments/{id}/rollback", Rule::Deployment, rollback::rollback).once(Holds::Plain),
        get("/api/deployments/{id}/log", Rule::Viewer, logs::log),
        get("/ws/deployments/{id}", Rule::Viewer, stream::follow),
        get("/ws/events", Rule::Viewer, live::follow),
        // What agents use: nothing of it is for people.
        get("/ws/agent", Rule::Agent, agent_link::socket),
        post("/ws/agent/check", Rule::Agent, agent_link::check).up_to(protocol::MAX_BODY_BYTES),
        post("/ws/agent/session", Rule::Agent, agent_link::open),
        get("/ws/agent/session/frames", Rule::Agent, agent_link::fetch),
        post("/ws/agent/session/frames", Rule::Agent, agent_link::bring).up_to(protocol::MAX_BODY_BYTES),
        post("/ws/agent/session/end", Rule::Agent, agent_link::end),
    ]
}

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
