//! Ending what served before a deployment, once nobody is sent there any more.
//!
//! The control plane points the routes at the new instance as soon as it knows of it, and then asks for the
//! previous one to retire. While it or the gateway is away, requests still go to the previous one, which serves
//! on as long, or until this agent starts anew. A control plane that never asks has the routes moved soon after
//! it knows.

use std::sync::Arc;

use sdp_core::{DeploymentId, Replacement, problem::chain};

use super::{Inner, recovery::PAUSE};
use crate::outbox::Outbox;

/// Waits until nobody is sent there and requests under way have had their time. When the agent stops
/// first, the next one ends what is left.
pub(super) async fn later(inner: Arc<Inner>, replacement: Replacement, on_request: bool) {
    inner.set_retiring(replacement.current.deployment, true);
    end(&inner, &replacement, on_request).await;
    inner.set_retiring(replacement.current.deployment, false);
}

async fn end(inner: &Arc<Inner>, replacement: &Replacement, on_request: bool) {
    let (key, deployment) = (&replacement.current.key, replacement.current.deployment);
    let drained = async {
        if on_request {
            deserted(inner, deployment).await;
        } else {
            known(&inner.parts.outbox, deployment).await;
        }
        tokio::time::sleep(inner.parts.drain).await;
    };
    if inner.stopping.run_until_cancelled(drained).await.is_none() {
        return;
    }
    let mut pause = PAUSE.0;
    loop {
        let retired = {
            let turn = Arc::clone(&inner.table().lane(key).turn);
            let _turn = inner.turn(turn).await;
            inner.parts.pipeline.retire(replacement).await
        };
        match retired {
            Ok(()) => return tracing::info!(%key, "the previous instance is no longer needed and gone"),
            Err(error) => tracing::warn!(%key, error = chain(&error), "the previous instance cannot be ended yet"),
        }
        if inner.stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Waits until nobody is sent any more to what a deployment replaced.
async fn deserted(inner: &Inner, deployment: DeploymentId) {
    let mut changes = inner.deserted.subscribe();
    while inner.table().known.get(&deployment).is_some_and(|known| !known.deserted) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until the control plane has every event of a deployment that has ended.
async fn known(outbox: &Outbox, deployment: DeploymentId) {
    let mut changes = outbox.changes();
    while outbox.progress(deployment).is_some_and(|progress| progress.acked < progress.last) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}
