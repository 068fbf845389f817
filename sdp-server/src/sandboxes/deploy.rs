//! Deploying every service of a sandbox.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use sdp_core::{
    AgentName, ErrorCode, Sandbox, ServiceSpec, Services,
    api::{CreateDeployment, DeployedSandbox, RefusedService},
};

use super::destination;
use crate::{
    ApiError, AppState,
    hub::{Asker, Destination},
};

/// Deploys these services of a sandbox side by side.
///
/// # Errors
/// When nothing could be deployed, the first reason.
pub(crate) async fn deploy_all(
    state: &AppState,
    asker: &Asker,
    sandbox: Sandbox,
    services: &Services,
) -> Result<DeployedSandbox, ApiError> {
    if services.is_empty() {
        let sentence =
            format!("sandbox {} has no services yet: deploy a repo into it, or make it from a template", sandbox.name);
        return Err(ApiError::new(ErrorCode::Conflict, sentence));
    }
    let answer = deploy_each(state, asker, sandbox, services.iter()).await?;
    match answer.refused.first() {
        Some(first) if answer.deployments.is_empty() => Err(ApiError(first.problem.clone())),
        _ => Ok(answer),
    }
}

/// Deploys these services of a sandbox side by side, spread over the agents. One that cannot be deployed stops no
/// other.
///
/// # Errors
/// When the database fails.
pub(crate) async fn deploy_each(
    state: &AppState,
    asker: &Asker,
    sandbox: Sandbox,
    services: impl Iterator<Item = &ServiceSpec>,
) -> Result<DeployedSandbox, ApiError> {
    let destination = destination(state, sandbox).await?;
    let mut planned: BTreeMap<AgentName, u32> = BTreeMap::new();
    let mut plans = Vec::new();
    for service in services {
        let agent = state.hub().choose(&destination, &service.repo, None, &planned).await;
        if let Ok(agent) = &agent {
            *planned.entry(agent.clone()).or_default() += 1;
        }
        let body = CreateDeployment {
            host_port: service.host_port,
            env: service.env.clone(),
            ..CreateDeployment::new(service.repo.clone(), service.branch.clone())
        };
        plans.push((body, agent));
    }
    let begun = join_all(plans.into_iter().map(async |(body, agent)| {
        let repo = body.repo.clone();
        let begun = begin(state, asker, &destination, body, agent).await;
        begun.map_err(|error| RefusedService { repo, problem: error.0 })
    }));
    let mut answer = DeployedSandbox { deployments: Vec::new(), refused: Vec::new() };
    for begun in begun.await {
        match begun {
            Ok(deployment) => answer.deployments.push(deployment),
            Err(refused) => answer.refused.push(refused),
        }
    }
    Ok(answer)
}

async fn begin(
    state: &AppState,
    asker: &Asker,
    destination: &Destination,
    body: CreateDeployment,
    agent: Result<AgentName, ApiError>,
) -> Result<sdp_core::Deployment, ApiError> {
    let body = CreateDeployment { agent: Some(agent?), ..body };
    state.hub().deploy(asker.clone(), destination.clone(), body).await
}
