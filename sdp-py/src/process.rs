//! What belongs to one process and must not be used, or dropped, by a child that was forked from it: connections and tasks
//! whose runtime is not there.

use std::process;

/// Something of one process. A child forgets it.
#[derive(Debug)]
pub(crate) struct OfProcess<T> {
    owner: u32,
    value: Option<T>,
}

impl<T> OfProcess<T> {
    /// Something of this process.
    pub(crate) fn new(value: T) -> Self {
        Self { owner: process::id(), value: Some(value) }
    }

    /// It, in the process whose it is.
    pub(crate) fn get(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.owner == process::id())
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        // Dropping would touch what the parent shares with its child, and could wait for a thread that is not there.
        if self.owner != process::id() {
            std::mem::forget(self.value.take());
        }
    }
}
