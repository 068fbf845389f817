//! What a playground runs outside of its process, removed also when it ends by a panic.

use std::{path::PathBuf, sync::Arc};

use sdp_core::Deployer;
use sdp_docker::{DockerConfig, DockerDeployer, ProcessConfig, ProcessDeployer, SwarmConfig, SwarmDeployer};

use crate::Failed;

/// How one agent's deployments are found again.
#[derive(Debug, Clone)]
pub enum Runs {
    /// As containers of an engine that are marked with this name.
    Containers(DockerConfig),
    /// As services of a swarm that are marked with this name.
    Services(SwarmConfig),
    /// As processes with their journal in this directory.
    Processes(PathBuf),
}

impl Runs {
    /// A deployer that lists and removes them.
    ///
    /// # Errors
    /// When the engine does not answer, or the directory cannot be used.
    pub async fn deployer(&self) -> Result<Arc<dyn Deployer>, Failed> {
        Ok(match self {
            Self::Containers(docker) => Arc::new(DockerDeployer::connect(docker.clone()).await?),
            Self::Services(swarm) => Arc::new(SwarmDeployer::connect(swarm.clone()).await?),
            Self::Processes(dir) => Arc::new(ProcessDeployer::new(ProcessConfig::new(dir))?),
        })
    }

    async fn remove(&self) -> Result<(), Failed> {
        let deployer = self.deployer().await?;
        for instance in deployer.list().await? {
            deployer.remove(&instance.key).await?;
        }
        Ok(deployer.prune().await?)
    }
}

/// Removes everything when it is dropped.
#[derive(Debug, Default)]
pub struct Leftovers(Vec<Runs>);

impl Leftovers {
    /// Of these.
    pub fn new(runs: Vec<Runs>) -> Self {
        Self(runs)
    }

    /// Removes everything now.
    ///
    /// # Errors
    /// The first that could not be removed; the others are all the same.
    pub async fn remove(mut self) -> Result<(), Failed> {
        remove_all(&std::mem::take(&mut self.0)).await
    }
}

async fn remove_all(runs: &[Runs]) -> Result<(), Failed> {
    let mut removed = Ok(());
    for runs in runs {
        removed = removed.and(runs.remove().await);
    }
    removed
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        let runs = std::mem::take(&mut self.0);
        if runs.is_empty() {
            return;
        }
        // A runtime of its own: the one that is here may be going down.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            // Nobody is left to be told.
            runtime.map(|runtime| runtime.block_on(remove_all(&runs)).ok()).ok();
        });
        removing.join().ok();
    }
}
