//! Routes of the gateway, read and set for a sandbox.

use std::collections::BTreeMap;

use axum::extract::State;
use sdp_core::{
    AgentName, ErrorCode, InstanceKey, Override, OverrideKind, RouteChanges, RouteTable, RouteTarget, Sandbox,
    SandboxName, ServiceName, ServiceUrl,
    api::{SetRoute, SetRoutes},
    protocol::{ReplyBody, RequestBody},
};
use serde::Deserialize;

use super::{
    Json, Path,
    sandboxes::{SandboxPath, find},
};
use crate::{ApiError, AppState, auth::SignedIn, hub::RequestError, sandboxes::gateway_of};

#[derive(Debug, Deserialize)]
pub(super) struct RoutePath {
    name: SandboxName,
    service: ServiceName,
}

pub(super) async fn table(
    State(state): State<AppState>,
    _: SignedIn,
    Path(path): Path<SandboxPath>,
) -> Result<Json<RouteTable>, ApiError> {
    let sandbox = find(&state, &path.name).await?;
    ask(&state, &sandbox, RequestBody::Routes).await
}

pub(super) async fn set_one(
    State(state): State<AppState>,
    _: SignedIn,
    Path(path): Path<RoutePath>,
    Json(body): Json<SetRoute>,
) -> Result<Json<RouteTable>, ApiError> {
    set(&state, path.name, BTreeMap::from([(path.service, body.target)]), body.takeover).await
}

pub(super) async fn set_many(
    State(state): State<AppState>,
    _: SignedIn,
    Path(path): Path<SandboxPath>,
    Json(body): Json<SetRoutes>,
) -> Result<Json<RouteTable>, ApiError> {
    if body.routes.is_empty() {
        return Err(ApiError::new(ErrorCode::InvalidInput, "name at least one service").field("routes"));
    }
    set(&state, path.name, body.routes, body.takeover).await
}

pub(crate) async fn set(
    state: &AppState,
    sandbox: SandboxName,
    targets: BTreeMap<ServiceName, RouteTarget>,
    takeover: bool,
) -> Result<Json<RouteTable>, ApiError> {
    let found = find(state, &sandbox).await?;
    let wanted = targets.clone();
    let mut services = BTreeMap::new();
    for (service, target) in targets {
        let wanted = match target {
            RouteTarget::Ocp => None,
            RouteTarget::Sandbox => {
                let url = own_url(state, &sandbox, &service).await?;
                Some(Override::new(url, OverrideKind::Sandbox, sandbox.clone()))
            }
            RouteTarget::Url(url) => Some(Override::new(url, OverrideKind::Custom, sandbox.clone())),
        };
        services.insert(service, wanted);
    }
    let changes = RouteChanges { services, by: Some(sandbox), takeover, ..RouteChanges::default() };
    let table = ask(state, &found, RequestBody::ApplyRoutes { changes }).await?;
    state.store().want_routes(&found.name, wanted).await?;
    Ok(table)
}

/// Where the sandbox's own deployment of a service answers.
pub(crate) async fn own_url(
    state: &AppState,
    sandbox: &SandboxName,
    service: &ServiceName,
) -> Result<ServiceUrl, ApiError> {
    let agents = state.hub().agents().await?;
    let infos = agents.iter().filter_map(|agent| agent.inventory.as_ref()).flat_map(|inventory| &inventory.repos);
    let mut repos: Vec<_> =
        infos.filter(|info| info.service.as_ref() == Some(service)).map(|info| &info.name).collect();
    repos.sort();
    repos.dedup();
    for repo in repos {
        let key = InstanceKey::in_sandbox(sandbox.clone(), repo.clone());
        if let Some(url) = state.store().running(&key).await?.and_then(|deployment| deployment.url) {
            return ServiceUrl::new(url).map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()));
        }
    }
    let sentence =
        format!("sandbox {sandbox} has no running deployment of service {service}; deploy its repo there first");
    Err(ApiError::new(ErrorCode::Conflict, sentence).field("target"))
}

/// The agent whose gateway it is; none when no agent ever had one.
pub(crate) async fn gateway(state: &AppState) -> Result<Option<AgentName>, ApiError> {
    if let Some(agent) = &state.config().gateway_agent {
        return Ok(Some(agent.clone()));
    }
    let agents = state.hub().agents().await?;
    let with_gateway = agents
        .into_iter()
        .filter(|agent| agent.inventory.as_ref().is_some_and(|inventory| inventory.gateway.is_some()));
    let mut names: Vec<_> = with_gateway.map(|agent| agent.name).collect();
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

async fn ask(state: &AppState, sandbox: &Sandbox, body: RequestBody) -> Result<Json<RouteTable>, ApiError> {
    let agent = gateway_of(state, sandbox).await?.ok_or_else(|| {
        ApiError::new(ErrorCode::NotFound, "no agent has a gateway: add [gateway] to the configuration of one")
    })?;
    match state.hub().request(&agent, body).await? {
        ReplyBody::Routes { table } => Ok(Json(table)),
        _ => Err(RequestError::Unexpected { agent }.into()),
    }
}
