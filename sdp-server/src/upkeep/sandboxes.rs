//! Sandboxes that expire, that nobody uses, and for which something is left to do.

use std::time::Duration;

use jiff::Timestamp;
use sdp_core::{AuditSubject, Deployment, DeploymentState, SandboxState, api::audit::AuditAction};
use tokio_util::task::TaskTracker;

use crate::{
    AppState, sandboxes,
    store::{Deed, SandboxRecord, StoreError},
};

/// Looks at every sandbox once. Each is worked on in a task of its own, so that none waits for another's agents.
pub(super) async fn run(state: &AppState, tasks: &TaskTracker) -> Result<(), StoreError> {
    let expired = state.store().begin_delete_expired(Timestamp::now()).await?;
    for name in &expired {
        tracing::info!(sandbox = %name, "sandbox has expired and is being deleted");
    }
    let deed = |name| Deed::of_the_platform(AuditAction::SandboxExpire, AuditSubject::sandbox(name));
    state.audit(expired.iter().map(deed).collect()).await;
    for record in state.store().sandbox_records().await? {
        let name = record.sandbox.name.clone();
        let fell_asleep = put_to_sleep(state, &record).await?;
        if !fell_asleep && !sandboxes::needs_a_step(&record) {
            continue;
        }
        // Somebody who has the turn does what is to be done.
        let Some(turn) = state.turns().try_take(&name) else { continue };
        let state = state.clone();
        tasks.spawn(async move {
            let stopping = state.stopping().clone();
            // What stands in the way is kept with the sandbox.
            let _ = stopping.run_until_cancelled(sandboxes::step(&state, &name, turn)).await;
        });
    }
    Ok(())
}

/// Puts a sandbox to sleep that nobody has used for as long as its environment or the server says.
async fn put_to_sleep(state: &AppState, record: &SandboxRecord) -> Result<bool, StoreError> {
    let sandbox = &record.sandbox;
    if sandbox.state != SandboxState::Active {
        return Ok(false);
    }
    let idle_after = sandboxes::environment(state, sandbox).await?.idle_after.or(state.config().sandboxes.idle_after);
    let Some(idle_after) = idle_after.filter(|idle_after| is_over(record.used_at, *idle_after)) else {
        return Ok(false);
    };
    let deployments = state.store().deployments_of(sandbox, &DeploymentState::ALL).await?;
    let under_way = |deployment: &Deployment| {
        deployment.state.is_active() || deployment.finished_at.is_some_and(|end| !is_over(end, idle_after))
    };
    let runs = |deployment: &Deployment| deployment.state == DeploymentState::Running;
    if deployments.iter().any(under_way) || !deployments.iter().any(runs) {
        return Ok(false);
    }
    let asleep = state.store().put_to_sleep(&sandbox.name, Some(record.used_at)).await?.is_some();
    if asleep {
        tracing::info!(sandbox = %sandbox.name, last_used = %record.used_at, "nobody uses this sandbox: it goes to sleep");
        let deed = Deed::of_the_platform(AuditAction::SandboxSleep, AuditSubject::sandbox(&sandbox.name));
        state.audit(vec![deed.detail(format!("nobody used it since {}", record.used_at))]).await;
    }
    Ok(asleep)
}

/// Whether `since` is longer ago than `duration`.
fn is_over(since: Timestamp, duration: Duration) -> bool {
    since.checked_add(duration).is_ok_and(|end| end <= Timestamp::now())
}
