//! Services that were taken out of a sandbox: what their agents have of them goes, as soon as they can be reached.

use futures_util::{StreamExt, stream};
use sdp_core::{DeploymentState, ErrorCode, InstanceKey, SandboxName};

use super::teardown::remove;
use crate::{
    ApiError, AppState,
    store::{Removal, SandboxRecord},
};

/// How many instances are removed at once.
const AT_ONCE: usize = 4;

/// Removes what can be reached.
///
/// # Errors
/// The first that could not be removed; the others are.
pub(super) async fn run(state: &AppState, record: &SandboxRecord) -> Result<(), ApiError> {
    let name = &record.sandbox.name;
    let removals = stream::iter(record.removing.clone().into_iter().map(|removal| one(state, name, removal)));
    let removed: Vec<_> = removals.buffer_unordered(AT_ONCE).collect().await;
    removed.into_iter().collect()
}

async fn one(state: &AppState, name: &SandboxName, removal: Removal) -> Result<(), ApiError> {
    // As it is now: it may have been deployed again.
    let record = state.store().sandbox_record(name).await?;
    let Some(record) = record.filter(|record| record.removing.contains(&removal)) else { return Ok(()) };
    let key = InstanceKey::in_sandbox(name.clone(), removal.repo.clone());
    if state.hub().agents().await?.iter().any(|agent| agent.name == removal.agent) {
        remove(state, &removal.agent, key.clone()).await?;
    } else {
        tracing::warn!(sandbox = %name, agent = %removal.agent, "this agent is enrolled no more: what it still runs stays there");
    }
    for deployment in state.store().deployments_of(&record.sandbox, &[DeploymentState::Running]).await? {
        if deployment.key == key
            && deployment.agent == removal.agent
            && let Err(error) = state.hub().set_state(deployment.id, DeploymentState::Stopped).await
            // It ended meanwhile.
            && error.0.code != ErrorCode::Conflict
        {
            return Err(error);
        }
    }
    Ok(state.store().set_taken_out(name, removal).await?)
}
