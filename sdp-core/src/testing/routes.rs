//! A gateway in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    model::{
        names::{BranchName, ServiceName},
        route::{Override, OverrideKind, Route, RouteChanges, RouteDefaults, RouteOrigin, RouteTable},
    },
    routes::{RouteError, RouteStore},
};

/// A [`RouteStore`] whose gateway is a map. Clones share it; nothing survives the process.
///
/// ```
/// use sdp_core::testing::MemoryRoutes;
/// let routes = MemoryRoutes::new("main", [("eredar", "http://eredar.ocp.example")]);
/// routes.edit_by_hand("eredar", "http://127.0.0.1:9");
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryRoutes {
    gateway: Arc<Mutex<Gateway>>,
}

#[derive(Debug, Default)]
struct Gateway {
    branch: Option<BranchName>,
    committed: BTreeMap<ServiceName, String>,
    file: BTreeMap<ServiceName, String>,
    overrides: BTreeMap<ServiceName, Override>,
    reloads: u64,
    fail_reload: bool,
    hangs: bool,
}

impl MemoryRoutes {
    /// A gateway on `branch`, whose committed configuration has these services and URLs.
    ///
    /// # Panics
    /// When a name is not valid: this is a double.
    pub fn new<'a>(branch: &str, services: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let routes = Self::default();
        routes.switch(branch, services);
        routes
    }

    /// What a fresh checkout does: the file is the branch's committed one, without overrides.
    ///
    /// # Panics
    /// When a name is not valid: this is a double.
    pub fn switch<'a>(&self, branch: &str, services: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let mut gateway = self.gateway();
        gateway.branch = Some(branch.parse().expect("a valid branch name"));
        gateway.committed = services
            .into_iter()
            .map(|(service, url)| (service.parse().expect("a valid service name"), url.to_owned()))
            .collect();
        gateway.file = gateway.committed.clone();
    }

    /// What a person with an editor does.
    ///
    /// # Panics
    /// When the name is not valid: this is a double.
    pub fn edit_by_hand(&self, service: &str, value: &str) {
        self.gateway().file.insert(service.parse().expect("a valid service name"), value.to_owned());
    }

    /// The values in the file now, by service.
    pub fn file(&self) -> BTreeMap<String, String> {
        self.gateway().file.iter().map(|(service, value)| (service.to_string(), value.clone())).collect()
    }

    /// How often the gateway was reloaded.
    pub fn reloads(&self) -> u64 {
        self.gateway().reloads
    }

    /// Whether reloads fail from now on.
    pub fn fail_reload(&self, fail: bool) {
        self.gateway().fail_reload = fail;
    }

    /// Whether changes do not come to an end from now on.
    pub fn hang(&self, hang: bool) {
        self.gateway().hangs = hang;
    }

    fn gateway(&self) -> MutexGuard<'_, Gateway> {
        self.gateway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway {
    /// The file that these overrides make of the committed one.
    fn patched(&self, overrides: &BTreeMap<ServiceName, Override>) -> BTreeMap<ServiceName, String> {
        let value = |(service, default): (&ServiceName, &String)| {
            let url = overrides.get(service).map(|over| over.url.to_string());
            (service.clone(), url.unwrap_or_else(|| default.clone()))
        };
        self.committed.iter().map(value).collect()
    }

    fn table(&self) -> RouteTable {
        let expected = self.patched(&self.overrides);
        let routes = self.file.iter().map(|(service, value)| {
            let recorded = self.overrides.get(service);
            let origin = match recorded {
                _ if expected.get(service) != Some(value) => RouteOrigin::Drifted,
                None => RouteOrigin::Ocp,
                Some(Override { kind: OverrideKind::Sandbox, .. }) => RouteOrigin::Sandbox,
                Some(Override { kind: OverrideKind::Custom, .. }) => RouteOrigin::Custom,
            };
            Route {
                service: service.clone(),
                value: value.clone(),
                expression: false,
                origin,
                default: self.committed.get(service).cloned().unwrap_or_default(),
                owner: recorded.map(|over| over.owner.clone()),
                effective: None,
            }
        });
        let lacking = self.overrides.keys().filter(|service| !self.committed.contains_key(*service));
        let warnings = lacking.map(|service| format!("this branch has no `{service}`; its override is kept aside"));
        RouteTable { branch: self.branch.clone(), routes: routes.collect(), warnings: warnings.collect() }
    }

    fn check(&self, changes: &RouteChanges) -> Result<(), RouteError> {
        for (service, change) in &changes.services {
            if !self.committed.contains_key(service) && (change.is_some() || !self.overrides.contains_key(service)) {
                let known = self.committed.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(RouteError::UnknownService { service: service.clone(), known });
            }
            if let Some(held) = self.overrides.get(service)
                && !changes.takeover
                && changes.by.as_ref() != Some(&held.owner)
            {
                return Err(RouteError::Claimed { service: service.clone(), holder: held.owner.clone() });
            }
        }
        Ok(())
    }
}

#[async_trait]
impl RouteStore for MemoryRoutes {
    async fn table(&self) -> Result<RouteTable, RouteError> {
        Ok(self.gateway().table())
    }

    async fn snapshot(&self, branch: &BranchName) -> Result<RouteDefaults, RouteError> {
        let mut gateway = self.gateway();
        gateway.branch = Some(branch.clone());
        Ok(RouteDefaults { services: gateway.committed.clone() })
    }

    async fn apply(&self, changes: &RouteChanges) -> Result<RouteTable, RouteError> {
        while self.gateway().hangs {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut gateway = self.gateway();
        gateway.check(changes)?;
        let mut overrides = gateway.overrides.clone();
        for (service, change) in &changes.services {
            match change {
                Some(over) => overrides.insert(service.clone(), over.clone()),
                None => overrides.remove(service),
            };
        }
        if gateway.fail_reload {
            return Err(RouteError::Reload { reason: "this double was told to fail".into(), source: None });
        }
        gateway.file = gateway.patched(&overrides);
        gateway.overrides = overrides;
        gateway.reloads += 1;
        Ok(gateway.table())
    }

    async fn reload(&self) -> Result<(), RouteError> {
        let mut gateway = self.gateway();
        if gateway.fail_reload {
            return Err(RouteError::Reload { reason: "this double was told to fail".into(), source: None });
        }
        gateway.reloads += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::conformance::routes::{GatewayFixture, suite};

    struct Fixture(MemoryRoutes);

    #[async_trait]
    impl GatewayFixture for Fixture {
        fn store(&self) -> Box<dyn RouteStore> {
            Box::new(self.0.clone())
        }

        async fn switch(&self, branch: &str, services: &[(&str, &str)]) {
            self.0.switch(branch, services.iter().copied());
        }

        async fn edit_by_hand(&self, service: &str, value: &str) {
            self.0.edit_by_hand(service, value);
        }

        async fn is_as_committed(&self) -> bool {
            let gateway = self.0.gateway();
            gateway.file == gateway.committed
        }
    }

    #[tokio::test]
    async fn the_double_keeps_the_contract() {
        suite(&Fixture(MemoryRoutes::default())).await;
    }

    #[tokio::test]
    async fn a_reload_that_fails_leaves_everything_as_it_was() {
        let routes = MemoryRoutes::new("main", [("eredar", "http://ocp.example")]);
        routes.fail_reload(true);
        let over = Override {
            url: "http://127.0.0.1:9".parse().unwrap(),
            kind: OverrideKind::Custom,
            owner: "pay".parse().unwrap(),
        };
        let changes = RouteChanges { services: [("eredar".parse().unwrap(), Some(over))].into(), ..Default::default() };
        assert!(matches!(routes.apply(&changes).await, Err(RouteError::Reload { .. })));
        assert_eq!(routes.file()["eredar"], "http://ocp.example");
    }
}
