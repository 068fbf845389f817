//! Which gateway a sandbox's routes are of.

use sdp_core::{
    Agent, AgentName, Deployment, ErrorCode, GatewayInfo, Sandbox, Stage, StageStatus,
    api::{DeploymentFilter, routing::OwnGateway},
};

use crate::{ApiError, AppState, sandboxes::environment};

/// A gateway, by the agent that has it.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    /// The agent.
    pub(crate) agent: AgentName,
    /// What that agent says of its gateways.
    pub(crate) info: Option<GatewayInfo>,
    /// The sandbox's own one; none for the shared one.
    pub(crate) own: Option<OwnGateway>,
}

/// The agent among these whose gateway is the shared one: the configured one, or the only one that has any. None when no
/// agent ever had one.
pub(super) fn shared(state: &AppState, agents: &[Agent]) -> Result<Option<AgentName>, ApiError> {
    if let Some(agent) = &state.config().gateway_agent {
        return Ok(Some(agent.clone()));
    }
    let with_gateway =
        agents.iter().filter(|agent| agent.inventory.as_ref().is_some_and(|inventory| inventory.gateway.is_some()));
    let mut names: Vec<_> = with_gateway.map(|agent| agent.name.clone()).collect();
    match names.len() {
        0 | 1 => Ok(names.pop()),
        _ => {
            let names: Vec<_> = names.iter().map(AgentName::as_str).collect();
            let sentence = format!(
                "several agents have a gateway ({}): say which with `gateway_agent` in the server's configuration",
                names.join(", ")
            );
            Err(ApiError::new(ErrorCode::Conflict, sentence))
        }
    }
}

/// The agent whose gateway a sandbox shares with others: its environment's, or the shared one.
pub(crate) async fn shared_of(state: &AppState, sandbox: Option<&Sandbox>) -> Result<Option<AgentName>, ApiError> {
    shared_among(state, &state.hub().agents().await?, sandbox).await
}

async fn shared_among(
    state: &AppState,
    agents: &[Agent],
    sandbox: Option<&Sandbox>,
) -> Result<Option<AgentName>, ApiError> {
    let environment = match sandbox {
        Some(sandbox) => Some(environment(state, sandbox).await?),
        None => None,
    };
    match environment.and_then(|environment| environment.gateway) {
        Some(agent) => Ok(Some(agent)),
        None => shared(state, agents),
    }
}

/// The gateway whose routes are the sandbox's: its own, if it brings one, or the shared one.
pub(crate) async fn gateway_of(state: &AppState, sandbox: Option<&Sandbox>) -> Result<Gateway, ApiError> {
    gateway_among(state, &state.hub().agents().await?, sandbox).await
}

/// As [`gateway_of`], where all agents are known already.
pub(crate) async fn gateway_among(
    state: &AppState,
    agents: &[Agent],
    sandbox: Option<&Sandbox>,
) -> Result<Gateway, ApiError> {
    let own = match sandbox {
        Some(sandbox) => own_among(state, agents, sandbox).await?,
        None => None,
    };
    let agent = match &own {
        Some(own) => own.agent.clone(),
        None => shared_among(state, agents, sandbox).await?.ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, "no agent has a gateway: add [gateway] to the configuration of one")
        })?,
    };
    let inventory = agents.iter().find(|known| known.name == agent).and_then(|known| known.inventory.as_ref());
    Ok(Gateway { agent, info: inventory.and_then(|inventory| inventory.gateway.clone()), own })
}

/// The gateway that a sandbox brings: its newest deployment of the gateway's repo that runs or ran.
/// One that ran and failed is still its own: its routes must not become everybody's all of a sudden.
pub(crate) async fn own_gateway(state: &AppState, sandbox: &Sandbox) -> Result<Option<OwnGateway>, ApiError> {
    own_among(state, &state.hub().agents().await?, sandbox).await
}

/// As [`own_gateway`], where all agents are known already.
pub(super) async fn own_among(
    state: &AppState,
    agents: &[Agent],
    sandbox: &Sandbox,
) -> Result<Option<OwnGateway>, ApiError> {
    for agent in agents {
        let gateway = agent.inventory.as_ref().and_then(|inventory| inventory.gateway.as_ref());
        let Some(gateway) = gateway.filter(|gateway| gateway.own_gateways) else { continue };
        let filter = DeploymentFilter {
            sandbox: Some(sandbox.name.clone()),
            repo: Some(gateway.repo.clone()),
            limit: Some(50),
            ..DeploymentFilter::default()
        };
        let page = state.store().deployments(&filter).await?;
        let mut of_agent = page.items.into_iter().filter(|deployment| deployment.agent == agent.name);
        let found = of_agent.find(|deployment| deployment.created_at >= sandbox.created_at && came_to_run(deployment));
        if let Some(Deployment { id, agent, state, url, .. }) = found {
            return Ok(Some(OwnGateway { agent, deployment: id, state, url }));
        }
    }
    Ok(None)
}

/// Whether a deployment runs, or did.
fn came_to_run(deployment: &Deployment) -> bool {
    let last = deployment.stages.iter().find(|record| record.stage == Stage::Routes);
    last.is_some_and(|record| matches!(record.status, StageStatus::Done | StageStatus::Skipped))
}
