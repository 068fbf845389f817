//! What names a build: everything that decides what it makes.

use std::fmt;

use sdp_core::DeployJob;
use sha2::{Digest, Sha256};

use super::runner::base_env;

/// Changes with the layout of the store, so that no version takes another's folders for its own.
const LAYOUT: &str = "2";

/// The agent's own variables that change what a build makes.
const DECISIVE: [&str; 1] = ["GOFLAGS"];

/// Names a tree built by a recipe with a toolchain and an environment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BuildKey(String);

impl BuildKey {
    pub(super) fn new(job: &DeployJob, argv: &[String], toolchain: &str) -> Self {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        part(LAYOUT);
        part(&job.checkout.tree);
        part(&format!("{:?}", job.repo.recipe));
        part(toolchain);
        part(&argv.len().to_string());
        argv.iter().for_each(|arg| part(arg));
        let own = base_env();
        for name in DECISIVE {
            part(own.get(name).map_or("", String::as_str));
        }
        for (name, value) in &job.env {
            part(name.as_str());
            part(value);
        }
        Self(hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for BuildKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
