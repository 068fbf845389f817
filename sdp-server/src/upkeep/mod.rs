//! What is done from time to time: expired sessions are forgotten, old logs removed, sandboxes torn down or put to
//! sleep, what should run is compared with what runs.

mod leftovers;
mod ports;
mod reconcile;
mod retention;
mod sandboxes;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use sdp_core::problem::chain;
use tokio_util::task::TaskTracker;

use crate::{AppState, api::KEPT};

/// How often expired sessions, and the credentials in them, are forgotten.
const SWEEP: Duration = Duration::from_secs(30);

/// Without waiting.
const NOW: Duration = Duration::ZERO;

/// How often old logs are looked for.
const RETENTION: Duration = Duration::from_secs(600);

/// Begins all of it; it ends when the server stops.
pub(crate) fn start(state: &AppState) -> TaskTracker {
    let tasks = TaskTracker::new();
    let swept = state.clone();
    tasks.spawn(every(state.clone(), NOW, SWEEP, async move || {
        swept.sessions().sweep(Instant::now());
        if let Err(error) = swept.store().forget_changes(swept.config().events.keep).await {
            tracing::error!(error = chain(&error), "old events could not be forgotten");
        }
        let end = Timestamp::now().saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
        if let Err(error) = swept.store().forget_once(end).await {
            tracing::error!(error = chain(&error), "old answers could not be forgotten");
        }
        if let Err(error) = swept.people().sweep().await {
            tracing::error!(error = chain(&error), "expired tokens could not be forgotten");
        }
    }));
    let kept = state.clone();
    tasks.spawn(every(state.clone(), NOW, RETENTION, async move || {
        if let Err(error) = retention::run(&kept).await {
            tracing::error!(error = chain(&*error), "old logs could not be removed");
        }
    }));
    let compared = state.clone();
    let mut seen = reconcile::Seen::default();
    let reconcile = state.config().agents.reconcile;
    // Not at once: after a start agents are only about to connect.
    tasks.spawn(every(state.clone(), reconcile, reconcile, async move || {
        if let Err(error) = reconcile::run(&compared, &mut seen).await {
            tracing::error!(error = chain(&error), "what runs could not be compared with the database");
        }
    }));
    let (kept_up, steps) = (state.clone(), tasks.clone());
    tasks.spawn(every(state.clone(), NOW, state.config().sandboxes.upkeep, async move || {
        if let Err(error) = sandboxes::run(&kept_up, &steps).await {
            tracing::error!(error = chain(&error), "sandboxes could not be looked after");
        }
    }));
    let held = state.clone();
    tasks.spawn(every(state.clone(), NOW, state.config().agents.reconcile, async move || {
        if let Err(error) = ports::run(&held).await {
            tracing::error!(error = chain(&error), "who holds which port could not be put in order");
        }
    }));
    tasks.spawn(crate::routing::run(state.clone()));
    tasks.spawn(crate::metrics::watch(state.clone()));
    tasks.spawn(crate::traces::run(state.clone()));
    tasks.spawn(crate::queue::run(state.clone()));
    tasks.close();
    tasks
}

async fn every(state: AppState, first: Duration, period: Duration, mut work: impl AsyncFnMut()) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first, period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while state.stopping().run_until_cancelled(ticks.tick()).await.is_some() {
        work().await;
    }
}
