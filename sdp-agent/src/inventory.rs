//! What this agent tells about itself.

use std::sync::Arc;

use sdp_core::{
    Deployer, GatewayInfo, Gateways, InstanceKey, Inventory, PortRange, RepoInfo, RepoSource, problem::chain,
};

/// Takes inventory.
#[derive(Debug, Clone)]
pub(crate) struct Inventories {
    pub(crate) advertise: String,
    pub(crate) source: Arc<dyn RepoSource>,
    pub(crate) deployer: Arc<dyn Deployer>,
    pub(crate) gateways: Option<Gateways>,
    pub(crate) per_request: bool,
    pub(crate) port_range: PortRange,
    pub(crate) exec: bool,
}

impl Inventories {
    /// The inventory as it is now.
    pub(crate) async fn now(&self) -> Inventory {
        let gateway = match &self.gateways {
            Some(gateways) => Some(self.gateway(gateways).await),
            None => None,
        };
        Inventory {
            version: env!("CARGO_PKG_VERSION").into(),
            advertise: self.advertise.clone(),
            deployer: self.deployer.kind().into(),
            repos: self.source.repos().iter().map(RepoInfo::from).collect(),
            port_range: Some(self.port_range.clone()),
            gateway,
            exact_commits: true,
            serves_beside: self.deployer.serves_beside(),
            exec: Some(self.exec),
        }
    }

    async fn gateway(&self, gateways: &Gateways) -> GatewayInfo {
        let repo = gateways.repo();
        let checkout = self.source.checkout(&InstanceKey::quick(repo.clone())).await;
        let checkout = checkout.unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "the gateway's branch is not known");
            None
        });
        GatewayInfo {
            repo: repo.clone(),
            branch: checkout.map(|checkout| checkout.branch),
            per_request: self.per_request,
            own_gateways: gateways.allow_own(),
        }
    }
}
