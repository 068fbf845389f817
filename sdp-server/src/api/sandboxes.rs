//! Sandboxes.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use jiff::Timestamp;
use schemars::JsonSchema;
use sdp_core::{
    AuditSubject, DeploymentState, Environment, ErrorCode, Sandbox, SandboxName, SandboxState, Shape,
    api::{ChangeSandbox, CreateSandbox, ListedSandbox, Page, SandboxDetail, SandboxFilter, audit::AuditAction},
};
use serde::Deserialize;

use super::{
    Json, MAX_LIMIT, Path, Query, check_limit, environments,
    etag::{IfMatch, Tagged},
    in_full, routing, templates,
};
use crate::{
    ApiError, AppState,
    auth::{SignedIn, Standing},
    sandboxes,
    store::SandboxRecord,
};

/// A sandbox expires soon when it does within this.
const SOON: Duration = Duration::from_secs(86_400);

/// How long a deletion is waited for: one that takes longer is answered before its end.
const PATIENCE: Duration = Duration::from_secs(20);

/// With how many users a sandbox can be shared.
const MAX_SHARED: usize = 100;

/// How exactly looks at a sandbox are recorded: a page that asks often is not to write as often.
const LOOKS: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct SandboxPath {
    pub(super) name: SandboxName,
}

pub(super) async fn list(
    State(state): State<AppState>,
    Query(filter): Query<SandboxFilter>,
) -> Result<Json<Page<ListedSandbox>>, ApiError> {
    check_limit(filter.limit, MAX_LIMIT)?;
    Ok(Json(state.store().sandboxes_page(&filter).await?))
}

pub(super) async fn create(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Json(body): Json<CreateSandbox>,
) -> Result<(StatusCode, Json<Sandbox>), ApiError> {
    let plan = plan(&state, &body).await?;
    let lifetime = body.expires_in.or(plan.lifetime).unwrap_or(state.config().sandbox_lifetime);
    let created_at = crate::store::now();
    let sandbox = Sandbox {
        name: body.name,
        environment: plan.environment.name,
        owner: signed_in.user().clone(),
        shared_with: BTreeSet::new(),
        created_at,
        expires_at: after(created_at, lifetime)?,
        state: SandboxState::Active,
    };
    let inserted = state.store().insert_sandbox(&sandbox, &plan.shape).await;
    inserted.map_err(|error| ApiError::from(error).field("name"))?;
    state.audit(vec![signed_in.deed(AuditAction::SandboxCreate, AuditSubject::sandbox(&sandbox.name))]).await;
    Ok((StatusCode::CREATED, Json(sandbox)))
}

/// What a new sandbox begins with.
struct Plan {
    environment: Environment,
    shape: Shape,
    lifetime: Option<Duration>,
}

async fn plan(state: &AppState, body: &CreateSandbox) -> Result<Plan, ApiError> {
    let (mut shape, environment, lifetime) = match (&body.template, &body.clone_of) {
        (Some(_), Some(_)) => {
            let sentence = "name a template or a sandbox to clone, not both";
            return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("clone_of"));
        }
        (Some(template), None) => {
            let template = templates::find(state, template).await.map_err(|error| error.field("template"))?;
            (template.shape, None, template.expires_in)
        }
        (None, Some(original)) => {
            let original = find_record(state, original).await.map_err(|error| error.field("clone_of"))?;
            (copy(original.shape), Some(original.sandbox.environment), None)
        }
        (None, None) => (Shape::default(), None, None),
    };
    for (repo, branch) in &body.branches {
        if !shape.services.switch(repo, branch.clone()) {
            let sentence = format!("the template or the sandbox to clone has no repo {repo}, so it has no branch");
            return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field(format!("branches.{repo}")));
        }
    }
    let environment = body.environment.clone().or(environment).unwrap_or_default();
    let environment = environments::find(state, &environment).await.map_err(|error| error.field("environment"))?;
    let lifetime = lifetime.or(environment.sandbox_lifetime);
    Ok(Plan { environment, shape, lifetime })
}

/// A shape for another sandbox: two cannot have the same host ports.
pub(super) fn copy(shape: Shape) -> Shape {
    Shape { services: shape.services.without_ports(), routes: shape.routes }
}

fn after(now: Timestamp, lifetime: Duration) -> Result<Timestamp, ApiError> {
    now.checked_add(lifetime).ok().filter(|_| !lifetime.is_zero()).ok_or_else(|| {
        ApiError::new(ErrorCode::InvalidInput, "expires_in must be some time, such as \"7d\"").field("expires_in")
    })
}

pub(super) async fn one(
    State(state): State<AppState>,
    Path(path): Path<SandboxPath>,
) -> Result<Tagged<SandboxDetail>, ApiError> {
    let mut record = find_record(&state, &path.name).await?;
    let now = Timestamp::now();
    if record.sandbox.state != SandboxState::Deleting
        && now.duration_since(record.used_at).unsigned_abs() >= LOOKS
        && let Some(used) = state.store().use_sandbox(&path.name, false).await?
    {
        record = used;
    }
    tagged(&state, record, now).await
}

async fn tagged(state: &AppState, record: SandboxRecord, now: Timestamp) -> Result<Tagged<SandboxDetail>, ApiError> {
    let version = record.version();
    Ok(Tagged::new(version, detail(state, record, now).await?))
}

/// A sandbox with the newest deployment of each of its repos.
pub(super) async fn detail(state: &AppState, record: SandboxRecord, now: Timestamp) -> Result<SandboxDetail, ApiError> {
    let SandboxRecord { sandbox, shape, problem, .. } = record;
    let mut seen = BTreeSet::new();
    let mut deployments = state.store().deployments_of(&sandbox, &DeploymentState::ALL).await?;
    deployments.retain(|deployment| seen.insert(deployment.key.repo.clone()));
    let expires_soon = after(now, SOON).is_ok_and(|soon| sandbox.expires_at <= soon);
    let routing = routing::of(state, &sandbox).await?;
    Ok(SandboxDetail { sandbox, expires_soon, shape, problem, deployments, routing })
}

/// The sandbox, or that there is none.
pub(super) async fn find(state: &AppState, name: &SandboxName) -> Result<Sandbox, ApiError> {
    Ok(find_record(state, name).await?.sandbox)
}

/// The sandbox, if something may still be done in it.
pub(super) async fn find_live(state: &AppState, name: &SandboxName) -> Result<Sandbox, ApiError> {
    let record = find_record(state, name).await?;
    record.admit()?;
    Ok(record.sandbox)
}

/// The sandbox with all that is kept of it, or that there is none.
pub(super) async fn find_record(state: &AppState, name: &SandboxName) -> Result<SandboxRecord, ApiError> {
    let record = state.store().sandbox_record(name).await?;
    record.ok_or_else(|| ApiError::not_found("sandbox", name).field("name"))
}

/// Moves a sandbox's end, or changes whom it is shared with.
pub(super) async fn change(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<SandboxPath>,
    IfMatch(expected): IfMatch,
    Json(body): Json<ChangeSandbox>,
) -> Result<Tagged<SandboxDetail>, ApiError> {
    let now = Timestamp::now();
    let expires_at = match (body.expires_in, body.expires_at) {
        (None, None) => None,
        (Some(lifetime), None) => Some(after(now, lifetime)?),
        (None, Some(end)) if end > now => Some(end),
        (None, Some(end)) => {
            let sentence = format!("{end} is over; give a time to come, or delete the sandbox");
            return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("expires_at"));
        }
        (Some(_), Some(_)) => {
            let sentence = "say either expires_in, such as \"7d\", or expires_at";
            return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("expires_in"));
        }
    };
    let shared_with = body.shared_with;
    if expires_at.is_none() && shared_with.is_none() {
        let sentence = "say what is to change: expires_in, such as \"7d\", or expires_at, or shared_with";
        return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("expires_in"));
    }
    if shared_with.is_some() && signed_in.standing == Standing::Shared {
        let sentence = "only its owner and admins say whom a sandbox is shared with";
        return Err(ApiError::new(ErrorCode::NotAllowed, sentence).field("shared_with"));
    }
    if shared_with.as_ref().is_some_and(|users| users.len() > MAX_SHARED) {
        let sentence = format!("a sandbox is shared with {MAX_SHARED} users at most");
        return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("shared_with"));
    }
    in_full(async move {
        let record = state.store().change_sandbox(&path.name, &expected, expires_at, shared_with.clone()).await?;
        let record = record.ok_or_else(|| ApiError::not_found("sandbox", &path.name).field("name"))?;
        let deed = |action| signed_in.deed(action, AuditSubject::sandbox(&path.name));
        let extended = expires_at.map(|end| deed(AuditAction::SandboxExtend).detail(format!("until {end}")));
        let shared = shared_with.map(|users| {
            let users: Vec<_> = users.into_iter().map(String::from).collect();
            let detail = if users.is_empty() { "with nobody".into() } else { format!("with {}", users.join(", ")) };
            deed(AuditAction::SandboxShare).detail(detail)
        });
        state.audit(extended.into_iter().chain(shared).collect()).await;
        tagged(&state, record, now).await
    })
    .await
}

/// Deletes a sandbox: 204 when nothing of it is left, 202 while some is.
pub(super) async fn delete(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<SandboxPath>,
    IfMatch(expected): IfMatch,
) -> Result<Response, ApiError> {
    let name = path.name;
    if state.store().begin_delete_if(&name, &expected).await?.is_none() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    tracing::info!(sandbox = %name, user = %signed_in.session.user(), "sandbox is being deleted");
    state.audit(vec![signed_in.deed(AuditAction::SandboxDelete, AuditSubject::sandbox(&name))]).await;
    // A task of its own: a client that hangs up stops nothing.
    let (torn_down, at) = (state.clone(), name.clone());
    let step = tokio::spawn(async move {
        let turn = torn_down.turns().take(&at).await;
        let stopping = torn_down.stopping().clone();
        stopping.run_until_cancelled(sandboxes::step(&torn_down, &at, turn)).await
    });
    // What went wrong is kept with the sandbox, and it is tried again.
    let _ = tokio::time::timeout(PATIENCE, step).await;
    match state.store().sandbox_record(&name).await? {
        Some(record) => {
            let detail = detail(&state, record, Timestamp::now()).await?;
            Ok((StatusCode::ACCEPTED, Json(detail)).into_response())
        }
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}
