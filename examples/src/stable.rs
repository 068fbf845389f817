//! A stand-in for the stable cluster: `main` of each service, deployed by the pipeline in-process,
//! with no control plane.

use std::{net::Ipv4Addr, ops::RangeInclusive, path::Path, sync::Arc};

use sdp_core::{
    Credentials, DeployRequest, InstanceKey, RepoSpec,
    deploy::{Pipeline, PortPool},
    testing::MemorySink,
};
use sdp_docker::{ProcessConfig, ProcessDeployer};
use sdp_git::{GitConfig, GitRepos, testing::GitHost};
use tokio_util::sync::CancellationToken;

use crate::{
    Failed,
    content::SERVICES,
    leftovers::{Leftovers, Runs},
};

/// The running stable services.
#[derive(Debug)]
pub struct StableCluster {
    urls: Vec<(&'static str, String)>,
    leftovers: Leftovers,
}

impl StableCluster {
    /// Builds and runs `main` of every service.
    ///
    /// # Errors
    /// The first failure's sentence.
    pub async fn start(
        git: &GitHost,
        dir: &Path,
        ports: RangeInclusive<u16>,
        username: &str,
        password: &str,
    ) -> Result<Self, Failed> {
        let dir = dir.join("stable");
        let repos: Vec<RepoSpec> = SERVICES
            .iter()
            .map(|name| {
                let spec = serde_json::json!({
                    "name": name, "path": dir.join(name), "remote": git.url(name), "recipe": "go",
                    "health": { "http": "/healthz", "timeout": "30s" },
                });
                serde_json::from_value(spec)
            })
            .collect::<Result<_, _>>()?;
        let source = Arc::new(GitRepos::new(GitConfig::new(repos, dir.join("worktrees")))?);
        let instances = dir.join("instances");
        let deployer = Arc::new(ProcessDeployer::new(ProcessConfig::new(&instances))?);
        let ports = Arc::new(PortPool::new(ports, Ipv4Addr::LOCALHOST.into()));
        let pipeline = Pipeline::new(source, deployer, ports, "127.0.0.1");
        let credentials = Credentials::new(username.parse()?, password.to_owned().into());

        let leftovers = Leftovers::new(vec![Runs::Processes(instances)]);
        let mut cluster = Self { urls: Vec::new(), leftovers };
        cluster.deploy(&pipeline, &credentials).await?;
        Ok(cluster)
    }

    async fn deploy(&mut self, pipeline: &Pipeline, credentials: &Credentials) -> Result<(), Failed> {
        for name in SERVICES {
            let request = DeployRequest::new(InstanceKey::quick(name.parse()?), "main".parse()?);
            let sink = MemorySink::default();
            let done = pipeline.run(&request, Some(credentials.clone()), &sink, &CancellationToken::new()).await;
            let Some(instance) = done.instance else {
                let reason = done.failure.map(|failure| failure.reason).unwrap_or_default();
                return Err(Failed(format!("the stable {name} did not start: {reason}\n{}", sink.lines().join("\n"))));
            };
            self.urls.push((name, format!("http://127.0.0.1:{}", instance.host_port)));
        }
        Ok(())
    }

    /// Where each service answers.
    pub fn urls(&self) -> &[(&'static str, String)] {
        &self.urls
    }

    /// Stops the services.
    ///
    /// # Errors
    /// When their journal cannot be changed.
    pub async fn shutdown(self) -> Result<(), Failed> {
        self.leftovers.remove().await
    }
}
