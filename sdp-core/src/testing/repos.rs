//! The double of its trait.

/// To come.
#[derive(Debug, Default)]
pub struct MemoryRepos;
