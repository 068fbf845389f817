//! One at a time for each sandbox, say: whoever changes what runs in it takes a turn.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The turns of everything that has such a key. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Turns<K> {
    locks: Arc<Mutex<HashMap<K, Arc<AsyncMutex<()>>>>>,
}

/// Proof that its holder has the turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held, not looked at")] OwnedMutexGuard<()>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self { locks: Arc::default() }
    }
}

impl<K: Clone + Eq + Hash> Turns<K> {
    /// Waits for the turn.
    pub(crate) async fn take(&self, key: &K) -> Turn {
        Turn(self.lock(key).lock_owned().await)
    }

    /// The turn, unless somebody has it.
    pub(crate) fn try_take(&self, key: &K) -> Option<Turn> {
        self.lock(key).try_lock_owned().ok().map(Turn)
    }

    fn lock(&self, key: &K) -> Arc<AsyncMutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // One that nobody has or waits for is as good as a new one. Looked for only where there is no room: each look
        // is at all of them.
        if locks.len() == locks.capacity() {
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        Arc::clone(locks.entry(key.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_turn_and_others_have_theirs() {
        let turns = Turns::default();
        let (pay, ship) = ("pay", "ship");
        let turn = turns.try_take(&pay);
        assert!(turn.is_some() && turns.try_take(&pay).is_none());
        assert!(turns.try_take(&ship).is_some());
        drop(turn);
        assert!(turns.try_take(&pay).is_some());
        let many: Vec<_> = (0..1000).map(|number| number.to_string()).collect();
        for key in &many {
            assert!(turns.try_take(&key.as_str()).is_some());
        }
        assert!(turns.locks.lock().unwrap().len() < 10, "what nobody uses is forgotten");
    }
}
