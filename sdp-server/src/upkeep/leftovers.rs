//! What agents have of sandboxes that the database does not know: instances and worktrees that a crash, a lost
//! request or a restored backup left behind. They are removed after two looks in a row, and nothing of a key that a
//! deployment is changing.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sdp_core::{
    AgentName, Deployment, DeploymentId, Instance, InstanceKey, SandboxName,
    problem::chain,
    protocol::{ReplyBody, RequestBody},
};

use crate::{AppState, sandboxes, store::StoreError};

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Keys of unknown sandboxes, by agent.
    unknown: BTreeMap<AgentName, BTreeSet<InstanceKey>>,
    /// Instances without a row that were told of, so that each is told of once.
    told: HashSet<DeploymentId>,
}

/// Looks at what one agent has, given its instances; removes what was unknown at the last look too.
pub(super) async fn look(
    state: &AppState,
    agent: &AgentName,
    instances: &[Instance],
    seen: &mut Seen,
) -> Result<(), StoreError> {
    let checkouts = checkouts(state, agent).await;
    // After the agent's answers: what has begun meanwhile is known by now.
    let known: BTreeSet<_> = state.store().sandboxes().await?.into_iter().map(|sandbox| sandbox.name).collect();
    let active = state.store().active_deployments(Some(agent)).await?;
    let keys = instances.iter().map(|instance| &instance.key).chain(&checkouts);
    let now = unknown(keys, &known, &active);
    let before = seen.unknown.remove(agent).unwrap_or_default();
    for key in now.intersection(&before) {
        match sandboxes::remove(state, agent, key.clone()).await {
            Ok(()) => tracing::warn!(%agent, %key, "removed what was left of a sandbox that is no more"),
            Err(error) => {
                tracing::warn!(%agent, %key, error = chain(&error), "what is left of a sandbox could not be removed")
            }
        }
    }
    for instance in instances.iter().filter(|instance| !now.contains(&instance.key)) {
        let id = instance.deployment;
        if !seen.told.contains(&id) && state.store().deployment(id).await?.is_none() {
            tracing::warn!(
                %agent, key = %instance.key, name = instance.name, deployment = %id,
                "an instance runs whose deployment the database does not know; deploy again, or remove it by hand"
            );
            seen.told.insert(id);
        }
    }
    seen.unknown.insert(agent.clone(), now);
    Ok(())
}

/// The sandboxes' keys that no sandbox and no deployment under way accounts for.
fn unknown<'a>(
    keys: impl Iterator<Item = &'a InstanceKey>,
    known: &BTreeSet<SandboxName>,
    active: &[Deployment],
) -> BTreeSet<InstanceKey> {
    let unknown = keys.filter(|key| key.sandbox.as_ref().is_some_and(|sandbox| !known.contains(sandbox)));
    unknown.filter(|key| !active.iter().any(|deployment| deployment.key == **key)).cloned().collect()
}

/// An older agent does not know the question: it has none, as far as can be told.
async fn checkouts(state: &AppState, agent: &AgentName) -> Vec<InstanceKey> {
    match state.hub().request(agent, RequestBody::Checkouts).await {
        Ok(ReplyBody::Checkouts { keys }) => keys,
        Ok(_) => Vec::new(),
        Err(error) => {
            tracing::debug!(%agent, error = chain(&error), "what is checked out there is not known");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_of_sandboxes_that_nobody_knows_are_unknown() {
        let key = |sandbox: &str| InstanceKey::in_sandbox(sandbox.parse().unwrap(), "eredar".parse().unwrap());
        let keys = [key("pay"), key("gone"), InstanceKey::quick("eredar".parse().unwrap())];
        let known = ["pay".parse().unwrap()].into();
        assert_eq!(unknown(keys.iter(), &known, &[]), [key("gone")].into());
    }
}
