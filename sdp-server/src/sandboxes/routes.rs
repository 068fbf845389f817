//! The routes that a sandbox is wanted to have: set when all of it was deployed, and again when it wakes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sdp_core::{DeploymentState, ErrorCode, RouteTarget, SandboxName, ServiceName};

use crate::{
    ApiError, AppState, api,
    routing::{Gateway, gateway_of},
    store::{Claim, SandboxRecord},
};

/// Sets the routes of a sandbox that are due, once no deployment into it is under way: all that can be, in one
/// write, with the reasons and ends that they had before.
///
/// # Errors
/// Why some could not be set. It is tried again only where that can help.
pub(super) async fn set_due(state: &AppState, name: &SandboxName) -> Result<(), ApiError> {
    let store = state.store();
    let Some(record) = store.sandbox_record(name).await?.filter(|record| record.routes_due) else { return Ok(()) };
    let active: Vec<_> = DeploymentState::ALL.into_iter().filter(|state| state.is_active()).collect();
    if !store.deployments_of(&record.sandbox, &active).await?.is_empty() {
        return Ok(());
    }
    let (routes, missing) = wanted(state, &record).await?;
    let set = set(state, &record, routes).await;
    if !set.as_ref().is_err_and(|error| error.0.retryable) {
        store.set_routes_due(name, false).await?;
    }
    set?;
    if missing.is_empty() {
        return Ok(());
    }
    let sentence = format!(
        "not routed to the sandbox, because no deployment of it runs there: {}; deploy it, then set the route",
        missing.join(", ")
    );
    Err(ApiError::new(ErrorCode::Conflict, sentence))
}

type Routes = BTreeMap<ServiceName, (RouteTarget, Claim)>;

/// What is to be set, and the services that no deployment of the sandbox serves.
async fn wanted(state: &AppState, record: &SandboxRecord) -> Result<(Routes, Vec<String>), ApiError> {
    let name = &record.sandbox.name;
    let (claims, agents) = (state.store().claims(name).await?, state.hub().agents().await?);
    let (mut routes, mut missing) = (BTreeMap::new(), Vec::new());
    for (service, target) in &record.shape.routes {
        let claim = claims.get(service).cloned().unwrap_or_default();
        let is_over = claim.expires_at.is_some_and(|end| end <= Timestamp::now());
        match target {
            // The gateway's own default is what there is without doing anything.
            RouteTarget::Ocp => {}
            _ if is_over => {}
            RouteTarget::Sandbox if api::own_url(state, &agents, name, service).await.is_err() => {
                missing.push(service.to_string());
            }
            _ => drop(routes.insert(service.clone(), (target.clone(), claim))),
        }
    }
    Ok((routes, missing))
}

/// Sets what no other sandbox holds.
async fn set(state: &AppState, record: &SandboxRecord, mut routes: Routes) -> Result<(), ApiError> {
    let name = &record.sandbox.name;
    let set = async |routes| {
        let wanted = api::Wanted { routes, takeover: false };
        api::set_routes(state, None, name, wanted).await.map(drop)
    };
    if routes.is_empty() {
        return Ok(());
    }
    let refused = match set(routes.clone()).await {
        Err(refused) if refused.0.code == ErrorCode::RouteClaimed => refused,
        set => return set,
    };
    let Gateway { agent, .. } = gateway_of(state, Some(&record.sandbox)).await?;
    let table = state.routing().table(state.hub(), &agent, None).await?;
    let now = Timestamp::now();
    for route in table.routes {
        let is_held = route.expires_at.is_none_or(|end| end > now);
        if is_held && route.owner.is_some_and(|owner| owner != *name) {
            routes.remove(&route.service);
        }
    }
    if !routes.is_empty() {
        set(routes).await?;
    }
    Err(refused)
}
