//! Tearing a sandbox down: its routes, then on each agent its instances and worktrees; each agent for itself, so that
//! one that is away holds nothing up but its own part. The sandbox goes when nothing of it is left.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, future::join_all, stream};
use sdp_core::{
    AgentName, Deployment, DeploymentState, ErrorCode, InstanceKey, Problem, RouteChanges, Sandbox,
    protocol::{ReplyBody, RequestBody},
};

use super::gateway_of;
use crate::{ApiError, AppState, hub::RequestError, store::SandboxRecord};

/// How many instances an agent is asked to remove at once.
const AT_ONCE: usize = 4;

/// Tears down what can be reached.
///
/// # Errors
/// What is left and why; the rest is gone.
pub(super) async fn run(state: &AppState, record: &SandboxRecord) -> Result<(), ApiError> {
    let sandbox = &record.sandbox;
    let cleared = clear_routes(state, sandbox).await;
    let mut on_agents: BTreeMap<AgentName, Vec<Deployment>> = BTreeMap::new();
    for deployment in state.store().deployments_of(sandbox, &DeploymentState::ALL).await? {
        on_agents.entry(deployment.agent.clone()).or_default().push(deployment);
    }
    on_agents.retain(|agent, _| !record.torn_down.contains(agent));
    let enrolled: BTreeSet<_> = state.hub().agents().await?.into_iter().map(|agent| agent.name).collect();
    let removals = on_agents.iter().map(|(agent, deployments)| {
        let enrolled = enrolled.contains(agent);
        remove_from(state, sandbox, agent, deployments, enrolled)
    });
    let removed = join_all(removals).await;
    let left: Vec<_> = removed.into_iter().chain([cleared]).filter_map(Result::err).collect();
    match left.split_first() {
        None => {
            state.store().end_delete(&sandbox.name).await?;
            tracing::info!(sandbox = %sandbox.name, "sandbox deleted");
            Ok(())
        }
        Some((first, others)) => {
            let mut problem = first.0.clone();
            for other in others {
                problem.detail = format!("{}; {}", problem.detail, other.0.detail);
            }
            Err(ApiError(problem))
        }
    }
}

/// Gives the gateway's services that the sandbox holds back to their defaults.
pub(super) async fn clear_routes(state: &AppState, sandbox: &Sandbox) -> Result<(), ApiError> {
    let Some(gateway) = gateway_of(state, sandbox).await? else { return Ok(()) };
    if !state.hub().agents().await?.iter().any(|agent| agent.name == gateway) {
        return Ok(());
    }
    let name = &sandbox.name;
    let table = match state.hub().request(&gateway, RequestBody::Routes).await {
        Ok(ReplyBody::Routes { table }) => table,
        // A gateway that was never deployed has no routes.
        Err(error) if Problem::from(&error).code == ErrorCode::NotFound => return Ok(()),
        Ok(_) => return Err(RequestError::Unexpected { agent: gateway }.into()),
        Err(error) => return Err(error.into()),
    };
    let has_routes = table.routes.iter().any(|route| route.owner.as_ref() == Some(name));
    if has_routes || table.requests.contains_key(name) {
        let clear = [name.clone()].into();
        let changes = RouteChanges { clear, by: Some(name.clone()), ..RouteChanges::default() };
        state.hub().request(&gateway, RequestBody::ApplyRoutes { changes }).await?;
    }
    Ok(())
}

/// Removes what an agent has of the sandbox. One that is enrolled no more is never asked again.
async fn remove_from(
    state: &AppState,
    sandbox: &Sandbox,
    agent: &AgentName,
    deployments: &[Deployment],
    enrolled: bool,
) -> Result<(), ApiError> {
    if enrolled {
        let keys: BTreeSet<_> = deployments.iter().map(|deployment| deployment.key.clone()).collect();
        let removals = stream::iter(keys.into_iter().map(|key| remove(state, agent, key)));
        let removed: Vec<_> = removals.buffer_unordered(AT_ONCE).collect().await;
        removed.into_iter().collect::<Result<(), ApiError>>()?;
    } else {
        tracing::warn!(sandbox = %sandbox.name, %agent, "this agent is enrolled no more: what it still runs stays there");
    }
    for deployment in deployments {
        let state_now = state.store().deployment(deployment.id).await?.map(|deployment| deployment.state);
        if state_now == Some(DeploymentState::Running)
            && let Err(error) = state.hub().set_state(deployment.id, DeploymentState::Stopped).await
            // It ended meanwhile.
            && error.0.code != ErrorCode::Conflict
        {
            return Err(error);
        }
    }
    Ok(state.store().add_torn_down(&sandbox.name, agent).await?)
}

/// Removes one instance and its worktree.
pub(crate) async fn remove(state: &AppState, agent: &AgentName, key: InstanceKey) -> Result<(), ApiError> {
    match state.hub().request(agent, RequestBody::Remove { key }).await {
        Ok(ReplyBody::Done) => Ok(()),
        Ok(_) => Err(RequestError::Unexpected { agent: agent.clone() }.into()),
        Err(error) => Err(error.into()),
    }
}
