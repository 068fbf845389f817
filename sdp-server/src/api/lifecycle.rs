//! What is done to all of a sandbox: deploy, sleep, wake.

use axum::extract::State;
use http::StatusCode;
use jiff::Timestamp;
use sdp_core::{
    AuditSubject, Deployment, SandboxName,
    api::{DeployAgain, DeployedSandbox, SandboxDetail, audit::AuditAction},
};

use super::{
    Json, Path,
    extract::Optional,
    in_full,
    sandboxes::{SandboxPath, detail, find_record},
};
use crate::{
    ApiError, AppState,
    auth::{self, SignedIn},
    sandboxes,
};

/// Deploys every service of a sandbox. When all have ended, its wanted routes are set.
pub(super) async fn deploy(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<SandboxPath>,
    Optional(DeployAgain { credentials }): Optional<DeployAgain>,
) -> Result<(StatusCode, Json<DeployedSandbox>), ApiError> {
    in_full(async move {
        let _turn = state.turns().take(&path.name).await;
        let record = find_record(&state, &path.name).await?;
        record.admit()?;
        auth::admit_to(&signed_in, &record.sandbox)?;
        let asker = signed_in.asker(credentials);
        let deployed = sandboxes::deploy_all(&state, &asker, record.sandbox, &record.shape.services).await?;
        let deed = |deployment: &Deployment| {
            let subject = AuditSubject::instance(&deployment.key);
            let detail = format!("branch {} on agent {}", deployment.branch, deployment.agent);
            signed_in.deed(AuditAction::Deploy, subject).deployment(deployment.id).detail(detail)
        };
        state.audit(deployed.deployments.iter().map(deed).collect()).await;
        if !record.shape.routes.is_empty() {
            state.store().set_routes_due(&path.name, true).await?;
        }
        Ok((StatusCode::ACCEPTED, Json(deployed)))
    })
    .await
}

pub(super) async fn sleep(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<SandboxPath>,
) -> Result<Json<SandboxDetail>, ApiError> {
    if state.store().put_to_sleep(&path.name, None).await?.is_some() {
        state.audit(vec![signed_in.deed(AuditAction::SandboxSleep, AuditSubject::sandbox(&path.name))]).await;
    }
    settled(&state, &path.name).await
}

pub(super) async fn wake(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<SandboxPath>,
) -> Result<Json<SandboxDetail>, ApiError> {
    if state.store().use_sandbox(&path.name, true).await?.is_some() {
        state.audit(vec![signed_in.deed(AuditAction::SandboxWake, AuditSubject::sandbox(&path.name))]).await;
    }
    settled(&state, &path.name).await
}

/// Brings the sandbox to where it is to be. What cannot be done now is told, and tried again.
async fn settled(state: &AppState, name: &SandboxName) -> Result<Json<SandboxDetail>, ApiError> {
    find_record(state, name).await?;
    let (stepping, at) = (state.clone(), name.clone());
    // A task of its own: a client that hangs up leaves nothing half done.
    let step = tokio::spawn(async move {
        let turn = stepping.turns().take(&at).await;
        sandboxes::step(&stepping, &at, turn).await
    });
    match step.await {
        Ok(done) => done.map(drop)?,
        Err(ended) => tracing::error!(sandbox = %name, error = %ended, "a step ended early"),
    }
    let record = find_record(state, name).await?;
    detail(state, record, Timestamp::now()).await.map(Json)
}
