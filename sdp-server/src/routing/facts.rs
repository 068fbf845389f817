//! What there is to route to: sandboxes, their keys, and what of theirs runs where.

use std::collections::{BTreeMap, BTreeSet};

use sdp_core::{
    Agent, AgentName, Deployment, DeploymentState, EnvironmentName, RepoName, RequestRoutes, Sandbox, SandboxKey,
    SandboxName, SandboxState, ServiceName, ServiceUrl,
};

use super::gateway;
use crate::{AppState, store::StoreError};

/// One look at the database.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) sandboxes: BTreeMap<SandboxName, Sandbox>,
    pub(super) keys: BTreeMap<SandboxName, SandboxKey>,
    /// The claims that end only with their sandbox.
    pub(super) open: BTreeSet<(SandboxName, ServiceName)>,
    /// The sandboxes' deployments that are on their way, run or are stopped, oldest first.
    pub(super) deployments: Vec<Deployment>,
    /// The service of each repo, by the agent that declares it.
    pub(super) services: BTreeMap<(AgentName, RepoName), ServiceName>,
    /// The agent whose gateway everybody shares, if it is known.
    pub(super) shared: Option<AgentName>,
    /// The agents whose gateways are those of environments.
    pub(super) gateways: BTreeMap<EnvironmentName, AgentName>,
}

impl Facts {
    pub(super) async fn read(state: &AppState, agents: &[Agent]) -> Result<Self, StoreError> {
        let store = state.store();
        let live: Vec<_> = DeploymentState::ALL.into_iter().filter(|state| !state.is_final()).collect();
        // Sandboxes after deployments: one that is made in between has none of them.
        let deployments = store.deployments_in(&live, None).await?;
        let sandboxes: BTreeMap<_, _> =
            store.sandboxes().await?.into_iter().map(|sandbox| (sandbox.name.clone(), sandbox)).collect();
        let keys = store.sandbox_keys().await?;
        let mut services = BTreeMap::new();
        for agent in agents {
            for repo in agent.inventory.iter().flat_map(|inventory| &inventory.repos) {
                let of_repo = |service: &ServiceName| ((agent.name.clone(), repo.name.clone()), service.clone());
                services.extend(repo.service.as_ref().map(of_repo));
            }
        }
        let open = store.open_claims().await?;
        // Which of several gateways is meant, nobody has said: then there is none that everybody shares.
        let shared = gateway::shared(state, agents).ok().flatten();
        let environments = store.environments().await?.into_iter();
        let gateways = environments.filter_map(|environment| Some((environment.name, environment.gateway?))).collect();
        let mut facts = Self { sandboxes, keys, open, deployments, services, shared, gateways };
        let Self { sandboxes, deployments, .. } = &mut facts;
        deployments.retain(|deployment| {
            let sandbox = deployment.key.sandbox.as_ref().and_then(|name| sandboxes.get(name));
            sandbox.is_some_and(|sandbox| sandbox.created_at <= deployment.created_at)
        });
        Ok(facts)
    }

    /// The agents that have a gateway which sandboxes share.
    pub(super) fn shared_gateways(&self) -> BTreeSet<&AgentName> {
        self.shared.iter().chain(self.gateways.values()).collect()
    }

    /// The agent whose gateway a sandbox shares with others, if it is known.
    pub(super) fn shared_by(&self, sandbox: &Sandbox) -> Option<&AgentName> {
        self.gateways.get(&sandbox.environment).or(self.shared.as_ref())
    }

    /// These facts for one of the gateways that sandboxes share: only the sandboxes that do.
    pub(super) fn at(&self, agent: &AgentName) -> Self {
        let mut facts = self.clone();
        facts.sandboxes.retain(|_, sandbox| self.shared_by(sandbox) == Some(agent));
        facts.open.retain(|(sandbox, _)| facts.sandboxes.contains_key(sandbox));
        facts
    }

    /// The sandbox's deployments of a service.
    fn of<'a>(&'a self, sandbox: &'a SandboxName, service: &'a ServiceName) -> impl Iterator<Item = &'a Deployment> {
        self.deployments.iter().filter(move |deployment| {
            let key = (deployment.agent.clone(), deployment.key.repo.clone());
            deployment.key.sandbox.as_ref() == Some(sandbox) && self.services.get(&key) == Some(service)
        })
    }

    /// Where the sandbox's own deployment of a service answers; the newest where several repos serve it. Nowhere in a
    /// sandbox that goes to sleep or is torn down: what of it still runs is about to be stopped.
    pub(super) fn running(&self, sandbox: &SandboxName, service: &ServiceName) -> Option<ServiceUrl> {
        let stays = self.sandboxes.get(sandbox).is_some_and(|sandbox| sandbox.state == SandboxState::Active);
        if !stays {
            return None;
        }
        let running = self.of(sandbox, service).filter(|deployment| deployment.state == DeploymentState::Running);
        running.filter_map(|deployment| deployment.url.as_ref()?.parse().ok()).last()
    }

    /// Whether the sandbox's service runs, is stopped and can run again, or is on its way.
    pub(super) fn lives(&self, sandbox: &SandboxName, service: &ServiceName) -> bool {
        self.of(sandbox, service).next().is_some()
    }

    /// What each sandbox's own requests should see of `services`.
    pub(super) fn requests(&self, services: &[&ServiceName]) -> BTreeMap<SandboxName, RequestRoutes> {
        let of_sandbox = |(sandbox, key): (&SandboxName, &SandboxKey)| {
            let found = services.iter().filter_map(|service| {
                let url = self.running(sandbox, service)?;
                Some(((*service).clone(), url))
            });
            let services: BTreeMap<_, _> = found.collect();
            (!services.is_empty()).then(|| (sandbox.clone(), RequestRoutes { key: key.clone(), services }))
        };
        self.keys.iter().filter(|(sandbox, _)| self.sandboxes.contains_key(*sandbox)).filter_map(of_sandbox).collect()
    }
}
