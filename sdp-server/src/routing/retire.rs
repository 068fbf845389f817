//! Telling agents when the routes have followed a deployment, so that what it replaced can be ended.

use std::collections::BTreeSet;

use sdp_core::{DeploymentId, DeploymentState, ErrorCode, SandboxName, problem::chain, protocol::RequestBody};

use super::facts::Facts;
use crate::{ApiError, AppState, hub::RequestError};

/// Tells of those of the `waiting` deployments that are of `sandboxes`, whose routes are in order. What cannot be
/// told now is told later.
pub(super) async fn replaced(
    state: &AppState,
    facts: &Facts,
    waiting: Vec<DeploymentId>,
    sandboxes: &BTreeSet<&SandboxName>,
) -> Result<(), ApiError> {
    let store = state.store();
    for id in waiting {
        let Some(deployment) = facts.deployments.iter().find(|deployment| deployment.id == id) else {
            // Then what it was to replace serves on, or another has replaced both.
            let ended = store.deployment(id).await?.is_none_or(|it| it.state.is_final());
            if ended {
                store.end_retirement(id).await?;
            }
            continue;
        };
        let is_ready = deployment.key.sandbox.as_ref().is_some_and(|sandbox| sandboxes.contains(sandbox));
        if !is_ready || deployment.state != DeploymentState::Running {
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
