//! Comparing what the database says runs with what the agents find running.
//!
//! A program that ended, a container that somebody removed: the deployment is marked failed, and
//! says so. Only what was missing at two looks in a row counts, and nothing of a key that a
//! deployment is changing, so that a swap under way is never taken for a loss.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};
use sdp_core::{
    AgentName, Deployment, DeploymentId, DeploymentState, ErrorCode, Instance, InstanceState,
    problem::chain,
    protocol::{ReplyBody, RequestBody},
};

use super::leftovers;
use crate::{AppState, store::StoreError};

/// How many agents are asked at once.
const AT_ONCE: usize = 16;

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What was missing, and why it counts as missing.
    missing: HashMap<DeploymentId, String>,
    leftovers: leftovers::Seen,
}

pub(super) async fn run(state: &AppState, seen: &mut Seen) -> Result<(), StoreError> {
    let connected = state.hub().agents().await?.into_iter().filter(|agent| agent.connected);
    let before = std::mem::take(&mut seen.missing);
    let looks = stream::iter(connected).map(async |agent| {
        let name = agent.name;
        let running = state.store().deployments_in(&[DeploymentState::Running], Some(&name)).await?;
        let found = tokio::join!(instances(state, &name), leftovers::checkouts(state, &name));
        Ok::<_, StoreError>((found, name, running))
    });
    let mut looks = std::pin::pin!(looks.buffer_unordered(AT_ONCE));
    while let Some(look) = looks.next().await {
        let ((Some(instances), checkouts), name, running) = look? else { continue };
        // After the agent's answer: what has begun meanwhile changes what it said.
        let active = state.store().active_deployments(Some(&name)).await?;
        for (id, reason) in lost(&running, &active, &instances) {
            if before.contains_key(&id) {
                tracing::warn!(agent = %name, deployment = %id, reason, "a deployment runs no more");
                state.hub().fail(id, ErrorCode::Unhealthy, reason).await?;
            } else {
                seen.missing.insert(id, reason);
            }
        }
        leftovers::look(state, &name, &instances, &checkouts, &mut seen.leftovers).await?;
    }
    Ok(())
}

async fn instances(state: &AppState, agent: &AgentName) -> Option<Vec<Instance>> {
    match state.hub().request(agent, RequestBody::Instances).await {
        Ok(ReplyBody::Instances { instances }) => Some(instances),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%agent, error = chain(&error), "what runs there is not known");
            None
        }
    }
}

/// The deployments that should run and do not, and why.
fn lost(running: &[Deployment], active: &[Deployment], instances: &[Instance]) -> Vec<(DeploymentId, String)> {
    let lost = running.iter().filter(|deployment| !active.iter().any(|other| other.key == deployment.key));
    let lost = lost.filter_map(|deployment| {
        // An instance that was left as it was bears the id of the deployment which made it.
        let of_it = |instance: &&Instance| {
            instance.key == deployment.key && !instance.parked && Some(&instance.commit) == deployment.commit.as_ref()
        };
        let made = instances.iter().find(|instance| instance.deployment == deployment.id);
        let found = made.or_else(|| instances.iter().find(of_it));
        let reason = match found.map(|instance| &instance.state) {
            None => "its instance is gone: somebody or something else removed it".to_owned(),
            Some(InstanceState::Exited { exit_code }) => format!("its program ended with exit code {exit_code}"),
            Some(_) => return None,
        };
        Some((deployment.id, format!("{reason}; deploy again")))
    });
    lost.collect()
}
