//! A network for each sandbox, in which its instances find each other by name.

use std::time::Duration;

use bollard::{
    models::{Ipam, IpamConfig, Network, NetworkCreateRequest},
    query_parameters::ListNetworksOptions,
};
use sdp_core::{DeployError, InstanceKey, NetworkMode, RepoSpec, SandboxName};
use tokio::time::Instant;

use super::{
    engine::{self, Engine},
    labels,
};
use crate::network_pool::{NetworkPool, Subnet};

/// How often another subnet is tried when one is refused.
const TRIES: usize = 10;

/// How long the network that somebody else is making may take to be shown, and the pause between two
/// looks.
const IN_THE_MAKING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(50));

/// The network of a sandbox.
pub(crate) fn name(sandbox: &SandboxName) -> String {
    format!("sdp-{sandbox}")
}

/// The sandbox whose network an instance joins; none when it joins another.
pub(crate) fn sandbox<'a>(key: &'a InstanceKey, repo: &RepoSpec) -> Option<&'a SandboxName> {
    key.sandbox.as_ref().filter(|_| repo.network == NetworkMode::Bridge)
}

/// What an instance is called in its sandbox's network.
pub(crate) fn aliases(repo: &RepoSpec) -> Vec<String> {
    let service = repo.service.as_ref().map(ToString::to_string).filter(|service| *service != repo.name.as_str());
    std::iter::once(repo.name.to_string()).chain(service).collect()
}

impl Engine {
    /// Makes a sandbox's network unless there is one. One that another agent on this engine made
    /// for the same sandbox is shared.
    pub(crate) async fn ensure_network(
        &self,
        owner: &str,
        sandbox: &SandboxName,
        pool: &NetworkPool,
    ) -> Result<(), DeployError> {
        let name = name(sandbox);
        let (mut refused, mut last) = (Vec::new(), None);
        for _ in 0..TRIES {
            let patience = if last.is_some() { IN_THE_MAKING.0 } else { Duration::ZERO };
            let all = self.networks_with(&name, patience).await?;
            let same = of_name(&all, &name);
            if !same.is_empty() {
                return self.accept_network(&same, &name, sandbox).await;
            }
            let mut taken = taken(&all).await;
            taken.append(&mut refused.clone());
            let Some(subnet) = pool.free(&name, &taken).next() else {
                return Err(DeployError::NoFreeNetwork { pool: pool.to_string(), networks: pool.networks() });
            };
            let config = IpamConfig { subnet: Some(subnet.to_string()), ..Default::default() };
            let request = NetworkCreateRequest {
                name: name.clone(),
                driver: Some("bridge".into()),
                ipam: Some(Ipam { config: Some(vec![config]), ..Default::default() }),
                labels: Some(labels::of_network(owner, sandbox)),
                ..Default::default()
            };
            // Whoever is quicker has the subnet that both try first, and refused is who looks again.
            // A look also finds what a try that was cut off has made.
            match self.patiently(|| self.docker.create_network(request.clone())).await {
                Err(error) if engine::is_conflict(&error) => {
                    refused.push(subnet);
                    last = Some(error);
                }
                made => drop(made.map_err(engine::failed("make a sandbox's network"))?),
            }
        }
        let source = last.map_or_else(|| "it is removed as soon as it is made".into(), Into::into);
        Err(DeployError::Engine { action: format!("make the network {name}"), source })
    }

    /// Uses a network that there is. Older engines let two have one name, and then start nothing in
    /// either: those that are not in use go, or all but the first.
    async fn accept_network(&self, same: &[Network], name: &str, sandbox: &SandboxName) -> Result<(), DeployError> {
        if !same.iter().all(|network| is_of(network, sandbox)) {
            let holder = "a Docker network that is not SDP's".to_owned();
            return Err(DeployError::NameTaken { name: name.to_owned(), holder });
        }
        if same.len() > 1 {
            let used = self.used_networks().await?;
            let is_used = |network: &Network| network.id.as_ref().is_some_and(|id| used.contains(id));
            let kept = same.iter().position(is_used).unwrap_or(0);
            for (at, network) in same.iter().enumerate() {
                if at != kept {
                    self.remove_network(network).await?;
                }
            }
        }
        Ok(())
    }

    /// The names and ids of the networks that containers belong to, running or not.
    async fn used_networks(&self) -> Result<Vec<String>, DeployError> {
        Ok(self.containers().await?.into_iter().flat_map(|found| found.networks).collect())
    }

    /// Whether a sandbox has a network, and only one.
    pub(crate) async fn has_one_network(&self, sandbox: &SandboxName) -> Result<bool, DeployError> {
        Ok(of_name(&self.networks().await?, &name(sandbox)).len() == 1)
    }

    /// Removes networks that no container belongs to, running or not: those of `owner`, and that of
    /// `sandbox` whoever made it.
    pub(crate) async fn prune_networks(&self, owner: &str, sandbox: Option<&SandboxName>) -> Result<(), DeployError> {
        let mut networks = self.networks().await?;
        networks.retain(|network| {
            let of_sandbox = sandbox.is_some_and(|sandbox| is_of(network, sandbox));
            of_sandbox || labels::is_network_of(network.labels.as_ref(), owner)
        });
        if networks.is_empty() {
            return Ok(());
        }
        let used = self.used_networks().await?;
        networks.retain(|network| network.name.as_ref().is_some_and(|name| !used.contains(name)));
        for network in &networks {
            self.remove_network(network).await?;
        }
        Ok(())
    }

    /// Every network, as soon as one of this name is among them or the patience has ended.
    async fn networks_with(&self, name: &str, patience: Duration) -> Result<Vec<Network>, DeployError> {
        let deadline = Instant::now() + patience;
        loop {
            let all = self.networks().await?;
            if Instant::now() >= deadline || !of_name(&all, name).is_empty() {
                return Ok(all);
            }
            tokio::time::sleep(IN_THE_MAKING.1).await;
        }
    }

    async fn networks(&self) -> Result<Vec<Network>, DeployError> {
        let listed = self.patiently(|| self.docker.list_networks(None::<ListNetworksOptions>)).await;
        listed.map_err(engine::failed("list networks"))
    }

    async fn remove_network(&self, network: &Network) -> Result<(), DeployError> {
        let id = network.id.as_deref().unwrap_or_default();
        match self.patiently(|| self.docker.remove_network(id)).await {
            // Somebody has joined it just now.
            Err(error) if engine::is_conflict(&error) => Ok(()),
            removed => engine::unless_gone(removed).map_err(engine::failed("remove a network")),
        }
    }
}

/// Those with this name, in an order that everybody sees.
fn of_name(all: &[Network], name: &str) -> Vec<Network> {
    let mut same: Vec<_> = all.iter().filter(|network| network.name.as_deref() == Some(name)).cloned().collect();
    same.sort_by(|a, b| a.id.cmp(&b.id));
    same
}

fn is_of(network: &Network, sandbox: &SandboxName) -> bool {
    labels::network_sandbox(network.labels.as_ref()).is_some_and(|name| *name == sandbox.as_str())
}

/// The subnets of the engine's networks, and what the machine reaches directly.
async fn taken(all: &[Network]) -> Vec<Subnet> {
    // Where it cannot be read, the engine's own check is left.
    let routes = tokio::fs::read_to_string("/proc/thread-self/net/route").await.unwrap_or_default();
    let configs = all.iter().filter_map(|network| network.ipam.as_ref()?.config.as_ref()).flatten();
    let of_engine = configs.filter_map(|config| config.subnet.as_ref()?.parse().ok());
    of_engine.chain(Subnet::of_links(&routes)).collect()
}
