//! How many deployments may build at once.

use std::{num::NonZeroUsize, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A limit on builds. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct BuildSlots {
    limit: NonZeroUsize,
    free: Arc<Semaphore>,
}

/// The right to build, until it is dropped.
pub(super) type BuildSlot = OwnedSemaphorePermit;

impl BuildSlots {
    pub(super) fn new(limit: NonZeroUsize) -> Self {
        Self { limit, free: Arc::new(Semaphore::new(limit.get().min(Semaphore::MAX_PERMITS))) }
    }

    /// How many there are.
    pub(super) fn limit(&self) -> NonZeroUsize {
        self.limit
    }

    /// A slot, if one is free.
    pub(super) fn try_take(&self) -> Option<BuildSlot> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Waits for a slot; who came first gets the first.
    pub(super) async fn take(&self) -> BuildSlot {
        Arc::clone(&self.free).acquire_owned().await.expect("it is never closed")
    }
}
