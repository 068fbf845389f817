//! Host ports that a crash, or a write that was lost, left held or free in error.

use crate::{AppState, store::StoreError};

pub(super) async fn run(state: &AppState) -> Result<(), StoreError> {
    let changed = state.store().reconcile_ports().await?;
    if changed > 0 {
        tracing::warn!(ports = changed, "put in order who holds which port");
    }
    Ok(())
}
