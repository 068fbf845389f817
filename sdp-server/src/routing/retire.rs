//! Telling agents when the routes have followed a deployment, so that what it replaced can be ended.

use std::collections::BTreeSet;

use sdp_core::{Deployment, DeploymentState, ErrorCode, SandboxName, problem::chain, protocol::RequestBody};

use super::facts::Facts;
use crate::{ApiError, AppState, hub::RequestError};

/// Tells of those of the `waiting` deployments that are of `sandboxes`, whose routes are in order. What cannot be
/// told now is told later.
pub(super) async fn replaced(
    state: &AppState,
    facts: &Facts,
    waiting: &[Deployment],
    sandboxes: &BTreeSet<&SandboxName>,
) -> Result<(), ApiError> {
    let store = state.store();
    for deployment in waiting {
        let id = deployment.id;
        let sandbox = deployment.key.sandbox.as_ref().filter(|sandbox| facts.sandboxes.contains_key(*sandbox));
        // All of it is gone with its sandbox; of one that failed, what it was to replace serves on.
        let Some(sandbox) =
            sandbox.filter(|_| !matches!(deployment.state, DeploymentState::Failed | DeploymentState::Cancelled))
        else {
            store.end_retirement(id).await?;
            continue;
        };
        // One that was superseded too: the later one may have left as it was what this one made.
        if deployment.state.is_active() || !sandboxes.contains(sandbox) {
            continue;
        }
        match state.hub().request(&deployment.agent, RequestBody::Retire { deployment: id }).await {
            Ok(_) => store.end_retirement(id).await?,
            // One of before there was this request does it by itself.
            Err(RequestError::Refused(problem)) if problem.code == ErrorCode::Unsupported => {
                store.end_retirement(id).await?;
            }
            Err(error) => tracing::debug!(deployment = %id, error = chain(&error), "what it replaced serves on"),
        }
    }
    Ok(())
}
