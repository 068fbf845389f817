//! How requests reach a sandbox, as its page shows it.

use sdp_core::{
    InstanceKey, Sandbox,
    api::routing::{RequestKey, SandboxRouting},
};

use crate::{
    ApiError, AppState,
    routing::{gateway_of, own_gateway},
};

/// The sandbox's key, what it lost, and its own gateway.
pub(super) async fn of(state: &AppState, sandbox: &Sandbox) -> Result<SandboxRouting, ApiError> {
    // Without a gateway, or with several and no word which is meant, the key is shown all the same.
    let shared = gateway_of(state, None).await.ok();
    let info = shared.as_ref().and_then(|gateway| gateway.info.as_ref());
    let url = match info {
        Some(info) => {
            let running = state.store().running(&InstanceKey::quick(info.repo.clone())).await?;
            running.and_then(|deployment| deployment.url)
        }
        None => None,
    };
    let per_request = info.is_some_and(|info| info.per_request);
    let key = state.store().sandbox_key(&sandbox.name).await?;
    Ok(SandboxRouting {
        request_key: key.map(|key| RequestKey::new(key, per_request, url.as_deref())),
        taken: state.store().lost_routes(&sandbox.name).await?,
        gateway: own_gateway(state, sandbox).await?,
    })
}
