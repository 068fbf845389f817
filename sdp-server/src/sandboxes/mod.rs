//! What is done to a whole sandbox: deploying all of it, making it as its document says, putting it to sleep
//! and waking it, setting its wanted routes, tearing it down.
//!
//! The database says what a sandbox is to be, and [`step`] brings it there as far as agents can be reached. What is
//! left is done by a later step: after an agent is back, after a restart of the server.

mod apply;
mod deploy;
mod removal;
mod routes;
mod sleep;
mod teardown;

use sdp_core::{Environment, Sandbox, SandboxName, SandboxState, problem::chain};

pub(crate) use self::{
    apply::{By, apply, plan, spec},
    deploy::{deploy_all, deploy_each},
    teardown::remove,
};
use crate::{
    ApiError, AppState,
    hub::Destination,
    store::{SandboxRecord, StoreError},
    turns::Turn,
};

/// The environment that a sandbox lives in.
pub(crate) async fn environment(state: &AppState, sandbox: &Sandbox) -> Result<Environment, StoreError> {
    let name = &sandbox.environment;
    Ok(state.store().environment(name).await?.unwrap_or_else(|| Environment::new(name.clone())))
}

/// Where deployments into a sandbox go.
pub(crate) async fn destination(state: &AppState, sandbox: Sandbox) -> Result<Destination, StoreError> {
    let environment = environment(state, &sandbox).await?;
    Ok(Destination { sandbox: Some(sandbox), environment: Some(environment) })
}

/// Whether a sandbox may not be as the database says it is to be.
pub(crate) fn needs_a_step(record: &SandboxRecord) -> bool {
    match record.sandbox.state {
        SandboxState::Active => record.routes_due || !record.slept.is_empty() || !record.removing.is_empty(),
        SandboxState::Asleep | SandboxState::Deleting => true,
    }
}

/// Brings a sandbox closer to what the database says it is to be, and keeps what stands in the way. Gives the
/// sandbox as it is then; none when it is gone.
///
/// # Errors
/// What stands in the way.
pub(crate) async fn step(state: &AppState, name: &SandboxName, _turn: Turn) -> Result<Option<SandboxRecord>, ApiError> {
    let Some(record) = state.store().sandbox_record(name).await? else { return Ok(None) };
    let done = match record.sandbox.state {
        SandboxState::Deleting => teardown::run(state, &record).await,
        SandboxState::Asleep => sleep::stop(state, &record).await.and(removal::run(state, &record).await),
        SandboxState::Active => {
            let removed = removal::run(state, &record).await;
            match sleep::start(state, &record).await {
                Ok(()) => routes::set_due(state, name).await.and(removed),
                failed => failed,
            }
        }
    };
    if let Err(error) = &done {
        let problem = Some(error.0.detail.clone());
        // Told once, however often it is tried.
        if problem != record.problem {
            let (state, problem) = (record.sandbox.state, chain(error));
            tracing::warn!(sandbox = %name, %state, problem, "something is left to do for this sandbox");
        }
        state.store().set_problem(name, problem).await?;
    } else if record.problem.is_some() && needs_a_step(&record) {
        state.store().set_problem(name, None).await?;
    }
    done?;
    Ok(state.store().sandbox_record(name).await?)
}
