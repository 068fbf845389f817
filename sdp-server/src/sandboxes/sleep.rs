//! Sleep: what runs in a sandbox is stopped and kept, and started again when it wakes.

use futures_util::future::join_all;
use sdp_core::{Deployment, DeploymentState, ErrorCode, protocol::RequestBody};

use super::teardown::clear_routes;
use crate::{ApiError, AppState, store::SandboxRecord};

/// Stops what runs in a sandbox that is asleep. First its routes go, so that nobody is sent to what is stopped.
///
/// # Errors
/// The first that could not be stopped; the others are.
pub(super) async fn stop(state: &AppState, record: &SandboxRecord) -> Result<(), ApiError> {
    let running = state.store().deployments_of(&record.sandbox, &[DeploymentState::Running]).await?;
    if running.is_empty() {
        return Ok(());
    }
    let cleared = clear_routes(state, &record.sandbox).await;
    // A gateway that cannot be asked keeps awake only what has routes on it.
    if !record.shape.routes.is_empty() {
        cleared?;
    }
    // Before anything is stopped: a crash in between must not make it forget what to wake.
    let mut slept = record.slept.clone();
    slept.extend(running.iter().map(|deployment| deployment.id).filter(|id| !record.slept.contains(id)));
    state.store().set_slept(&record.sandbox.name, slept).await?;
    let stopped = join_all(running.iter().map(async |deployment| {
        let stop = RequestBody::Stop { key: deployment.key.clone() };
        let stopped = state.hub().request(&deployment.agent, stop).await;
        done(state, deployment, DeploymentState::Stopped, stopped.map(drop).map_err(ApiError::from)).await
    }));
    stopped.await.into_iter().collect()
}

/// Starts what the sleep of a sandbox that is awake had stopped, but for what newer deployments replace.
///
/// # Errors
/// The first that could not be started yet; the others are.
pub(super) async fn start(state: &AppState, record: &SandboxRecord) -> Result<(), ApiError> {
    if record.slept.is_empty() {
        return Ok(());
    }
    let deployments = state.store().deployments_of(&record.sandbox, &DeploymentState::ALL).await?;
    let replaced = |slept: &Deployment| {
        let newer = deployments.iter().filter(|other| other.key == slept.key && other.id > slept.id);
        newer.into_iter().any(|newer| newer.state.is_active() || newer.state == DeploymentState::Running)
    };
    let sleeping = deployments.iter().filter(|deployment| {
        deployment.state == DeploymentState::Stopped && record.slept.contains(&deployment.id) && !replaced(deployment)
    });
    let started = join_all(sleeping.map(async |deployment| {
        let restart = RequestBody::Restart { key: deployment.key.clone() };
        let started = state.hub().request(&deployment.agent, restart).await;
        let started =
            done(state, deployment, DeploymentState::Running, started.map(drop).map_err(ApiError::from)).await;
        (deployment.id, started)
    }));
    let mut left = Vec::new();
    let mut failure = Ok(());
    for (id, started) in started.await {
        if let Err(error) = started {
            // What cannot start now will not later either: a person is told, and deploys it again.
            if error.0.retryable {
                left.push(id);
            }
            failure = failure.and(Err(error));
        }
    }
    let name = &record.sandbox.name;
    state.store().set_slept(name, left).await?;
    // Also to what was never stopped.
    state.routing().wake();
    if !record.shape.routes.is_empty() {
        state.store().set_routes_due(name, true).await?;
    }
    failure
}

/// Takes note that an instance was stopped or started. One that is gone is left to the reconciliation, which says so.
async fn done(
    state: &AppState,
    deployment: &Deployment,
    now: DeploymentState,
    asked: Result<(), ApiError>,
) -> Result<(), ApiError> {
    match asked {
        Err(error) if error.0.code == ErrorCode::NotFound && now == DeploymentState::Stopped => return Ok(()),
        asked => asked?,
    }
    match state.hub().set_state(deployment.id, now).await {
        // A newer deployment replaced it meanwhile.
        Err(error) if error.0.code == ErrorCode::Conflict => Ok(()),
        changed => changed.map(drop),
    }
}
