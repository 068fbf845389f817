//! Deployments as they end, each once, for those who measure and trace them.

use std::collections::HashSet;

use sdp_core::Deployment;
use tokio::sync::broadcast::error::RecvError;

use crate::AppState;

/// Tells of each deployment that ends, of those that were seen under way, until the server stops.
pub(crate) async fn each(state: &AppState, mut told: impl FnMut(&Deployment)) {
    let mut changes = state.hub().changes();
    let mut under_way = HashSet::new();
    loop {
        match state.stopping().run_until_cancelled(changes.recv()).await {
            Some(Ok(deployment)) if deployment.state.is_active() => drop(under_way.insert(deployment.id)),
            Some(Ok(deployment)) => {
                if under_way.remove(&deployment.id) {
                    told(&deployment);
                }
            }
            // Then some are not told of.
            Some(Err(RecvError::Lagged(_))) => {}
            Some(Err(RecvError::Closed)) | None => return,
        }
    }
}
