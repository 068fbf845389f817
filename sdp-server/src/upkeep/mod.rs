//! What is done from time to time: expired sessions are forgotten, old logs removed, what should run
//! is compared with what runs.

mod ports;
mod reconcile;
mod retention;

use std::time::{Duration, Instant};

use sdp_core::problem::chain;
use tokio_util::task::TaskTracker;

use crate::AppState;

/// How often expired sessions, and the credentials in them, are forgotten.
const SWEEP: Duration = Duration::from_secs(30);

/// How often old logs are looked for.
const RETENTION: Duration = Duration::from_secs(600);

/// Begins all of it; it ends when the server stops.
pub(crate) fn start(state: &AppState) -> TaskTracker {
    let tasks = TaskTracker::new();
    let swept = state.clone();
    tasks.spawn(every(state.clone(), SWEEP, async move || swept.sessions().sweep(Instant::now())));
    let kept = state.clone();
    tasks.spawn(every(state.clone(), RETENTION, async move || {
        if let Err(error) = retention::run(&kept).await {
            tracing::error!(error = chain(&*error), "old logs could not be removed");
        }
    }));
    let compared = state.clone();
    let mut missing = reconcile::Missing::new();
    tasks.spawn(every(state.clone(), state.config().agents.reconcile, async move || {
        if let Err(error) = reconcile::run(&compared, &mut missing).await {
            tracing::error!(error = chain(&error), "what runs could not be compared with the database");
        }
    }));
    let held = state.clone();
    tasks.spawn(every(state.clone(), state.config().agents.reconcile, async move || {
        if let Err(error) = ports::run(&held).await {
            tracing::error!(error = chain(&error), "who holds which port could not be put in order");
        }
    }));
    tasks.spawn(crate::routing::run(state.clone()));
    tasks.close();
    tasks
}

async fn every(state: AppState, period: Duration, mut work: impl AsyncFnMut()) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while state.stopping().run_until_cancelled(ticks.tick()).await.is_some() {
        work().await;
    }
}
