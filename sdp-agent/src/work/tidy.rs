//! Putting in order what a deployment left that could not be undone when it ended, because the engine
//! was away.

use std::sync::Arc;

use sdp_core::{DeployError, DeployRequest, DeploymentId, InstanceKey, Replacement, problem::chain};

use super::{
    Inner,
    recovery::{PAUSE, never_made, served, unpark},
};

/// Looks whether a deployment that did not succeed left anything. If it did, or that cannot be known
/// now, it is put in order as soon as the engine allows. Called by whoever has the key's turn.
pub(super) async fn after(inner: &Arc<Inner>, request: &DeployRequest) {
    let (deployment, key) = (request.deployment, &request.key);
    match once(inner, deployment, key).await {
        Ok(()) => inner.journal.end(deployment),
        Err(error) => {
            tracing::warn!(%deployment, %key, error = chain(&error), "what it left is put in order later");
            inner.journal.untidy(request);
            inner.tasks.spawn(later(Arc::clone(inner), deployment, key.clone()));
        }
    }
}

/// Tries again until it is done, or the agent stops: then the next one does it.
async fn later(inner: Arc<Inner>, deployment: DeploymentId, key: InstanceKey) {
    let mut pause = PAUSE.0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE.1),
            () = inner.stopping.cancelled() => return,
        }
        // Asked before the turn is taken: nobody waits in vain for an engine that is away.
        if inner.parts.deployer.list().await.is_err() {
            continue;
        }
        let turn = Arc::clone(&inner.table().lane(&key).turn);
        let _turn = inner.turn(turn).await;
        if once(&inner, deployment, &key).await.is_ok() {
            tracing::info!(%deployment, %key, "put in order what it left");
            return inner.journal.end(deployment);
        }
    }
}

/// Removes what the deployment made, and has what it parked serve again.
pub(super) async fn once(inner: &Arc<Inner>, deployment: DeploymentId, key: &InstanceKey) -> Result<(), DeployError> {
    let deployer = &inner.parts.deployer;
    let mut of_key = deployer.list().await?;
    of_key.retain(|instance| instance.key == *key);
    if let Some(at) = of_key.iter().position(|instance| instance.deployment == deployment) {
        let made = of_key.remove(at);
        let previous = of_key.iter().find(|instance| instance.parked).map(served);
        // It is parked itself when a newer one was about to take its place.
        let replacement = match made.parked {
            true => Replacement { current: never_made(&made), previous: None, beside: false },
            false => Replacement { current: made.clone(), previous, beside: false },
        };
        deployer.revert(&replacement).await?;
        of_key = deployer.list().await?;
        of_key.retain(|instance| instance.key == *key);
    }
    unpark(inner, &of_key).await
}
