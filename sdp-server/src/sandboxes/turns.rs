//! One at a time for each sandbox: whoever changes what runs in it takes a turn.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use sdp_core::SandboxName;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The turns of every sandbox. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns {
    locks: Arc<Mutex<HashMap<SandboxName, Arc<AsyncMutex<()>>>>>,
}

/// Proof that its holder alone changes what runs in a sandbox, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held, not looked at")] OwnedMutexGuard<()>);

impl Turns {
    /// Waits for a sandbox's turn.
    pub(crate) async fn take(&self, sandbox: &SandboxName) -> Turn {
        Turn(self.lock(sandbox).lock_owned().await)
    }

    /// A sandbox's turn, unless somebody has it.
    pub(crate) fn try_take(&self, sandbox: &SandboxName) -> Option<Turn> {
        self.lock(sandbox).try_lock_owned().ok().map(Turn)
    }

    fn lock(&self, sandbox: &SandboxName) -> Arc<AsyncMutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // One that nobody has or waits for is as good as a new one.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(sandbox.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_has_one_turn_and_others_have_theirs() {
        let turns = Turns::default();
        let (pay, ship) = ("pay".parse().unwrap(), "ship".parse().unwrap());
        let turn = turns.try_take(&pay);
        assert!(turn.is_some() && turns.try_take(&pay).is_none());
        assert!(turns.try_take(&ship).is_some());
        drop(turn);
        assert!(turns.try_take(&pay).is_some());
        assert_eq!(turns.locks.lock().unwrap().len(), 1, "what nobody uses is forgotten");
    }
}
