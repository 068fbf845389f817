//! The routes that a sandbox is wanted to have: set when all of it was deployed, and again when it wakes.

use std::collections::BTreeMap;

use sdp_core::{DeploymentState, ErrorCode, RouteTarget, SandboxName};

use crate::{ApiError, AppState, api};

/// Sets the routes of a sandbox that are due, once no deployment into it is under way: all that can be, in one
/// write.
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
    let (mut targets, mut missing) = (BTreeMap::new(), Vec::new());
    for (service, target) in record.shape.routes {
        match &target {
            // The gateway's own default is what there is without doing anything.
            RouteTarget::Ocp => continue,
            RouteTarget::Sandbox if api::own_url(state, name, &service).await.is_err() => {
                missing.push(service.to_string());
                continue;
            }
            _ => targets.insert(service, target),
        };
    }
    let set =
        if targets.is_empty() { Ok(()) } else { api::set_routes(state, name.clone(), targets, false).await.map(drop) };
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
