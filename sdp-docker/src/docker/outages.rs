//! Which instances the engine may have taken down with itself before they were final.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::engine::Engine;

/// The engine's outages up to the time that each instance not yet final was started, by its id.
/// Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outages {
    before: Arc<Mutex<HashMap<String, u64>>>,
}

impl Outages {
    /// An instance was started, and is not final.
    pub(crate) fn started(&self, id: &str, engine: &Engine) {
        self.before().insert(id.to_owned(), engine.outages());
    }

    /// An instance is final, or gone.
    pub(crate) fn forget(&self, id: &str) {
        self.before().remove(id);
    }

    /// Whether an instance is final: one that is not must be seen dead when it crashes.
    pub(crate) fn is_final(&self, id: &str) -> bool {
        !self.before().contains_key(id)
    }

    /// Whether the engine was away since an instance was started.
    pub(crate) fn since_start(&self, id: &str, engine: &Engine) -> bool {
        self.before().get(id).is_some_and(|before| *before != engine.outages())
    }

    /// The same, and true once for each time.
    pub(crate) fn took_down(&self, id: &str, engine: &Engine) -> bool {
        let now = engine.outages();
        self.before().get_mut(id).is_some_and(|before| std::mem::replace(before, now) != now)
    }

    fn before(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
