//! A gateway in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    claims::Claims,
    clock::Clock,
    model::{
        names::{BranchName, ServiceName},
        route::{Override, OverrideKind, Route, RouteChanges, RouteDefaults, RouteOrigin, RouteTable},
    },
    routes::{RouteError, RouteStore},
    testing::ManualClock,
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
    claims: Claims,
    clock: ManualClock,
    /// Whether requests are to be routed by their key.
    per_request: bool,
    /// Whether the file was written for that.
    wrapped: bool,
    not_routable: BTreeMap<ServiceName, String>,
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
        gateway.wrapped = false;
        gateway.not_routable.clear();
    }

    /// Whether the gateway routes per request from the next change on; off at first.
    pub fn route_per_request(&self, on: bool) {
        self.gateway().per_request = on;
    }

    /// Makes `service` one that cannot be routed per request, until the next [`switch`](Self::switch).
    ///
    /// # Panics
    /// When the name is not valid: this is a double.
    pub fn fix(&self, service: &str, reason: &str) {
        self.gateway().not_routable.insert(service.parse().expect("a valid service name"), reason.to_owned());
    }

    /// The clock by which claims expire: it stands still until it is moved.
    pub fn clock(&self) -> ManualClock {
        self.gateway().clock.clone()
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
        let expected = self.patched(&self.claims.overrides);
        let routes = self.file.iter().map(|(service, value)| {
            let recorded = self.claims.overrides.get(service);
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
                reason: recorded.and_then(|over| over.reason.clone()),
                expires_at: recorded.and_then(|over| over.expires_at),
                effective: None,
            }
        });
        RouteTable {
            branch: self.branch.clone(),
            routes: routes.collect(),
            per_request: self.per_request && self.wrapped,
            requests: self.claims.requests.clone(),
            not_routable: if self.per_request { self.not_routable.clone() } else { BTreeMap::new() },
            taken: Vec::new(),
            warnings: self.warnings(),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let lacking = self.claims.overrides.keys().filter(|service| !self.committed.contains_key(*service));
        let mut warnings: Vec<_> =
            lacking.map(|service| format!("this branch has no `{service}`; its override is kept aside")).collect();
        for (sandbox, routes) in &self.claims.requests {
            let lacking = routes.services.keys().filter(|service| !self.committed.contains_key(*service));
            warnings.extend(lacking.map(|service| {
                format!("this branch has no `{service}`; the route of sandbox `{sandbox}`'s requests is kept aside")
            }));
        }
        let in_effect = self.per_request && self.wrapped;
        if !in_effect && !self.claims.requests.is_empty() {
            warnings.push("the routes per request are kept but not in effect: the gateway does not route so".into());
        }
        warnings
    }

    fn check(&self, changes: &RouteChanges) -> Result<(), RouteError> {
        let known = |service: &ServiceName| match self.committed.contains_key(service) {
            true => Ok(()),
            false => {
                let known = self.committed.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                Err(RouteError::UnknownService { service: service.clone(), known })
            }
        };
        for (service, change) in &changes.services {
            if change.is_some() || !self.claims.overrides.contains_key(service) {
                known(service)?;
            }
        }
        for routes in changes.requests.values().flatten() {
            if !self.per_request {
                return Err(RouteError::PerRequestOff);
            }
            for service in routes.services.keys() {
                known(service)?;
                if let Some(reason) = self.not_routable.get(service) {
                    return Err(RouteError::NotRoutable { service: service.clone(), reason: reason.clone() });
                }
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
        let changed = gateway.claims.changed(changes, gateway.clock.now())?;
        if gateway.fail_reload {
            return Err(RouteError::Reload { reason: "this double was told to fail".into(), source: None });
        }
        gateway.file = gateway.patched(&changed.claims.overrides);
        gateway.wrapped = gateway.per_request;
        gateway.claims = changed.claims;
        gateway.reloads += 1;
        Ok(RouteTable { taken: changed.taken, ..gateway.table() })
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
            gateway.file == gateway.committed && !gateway.wrapped
        }

        async fn switch_fixed(&self, branch: &str, services: &[(&str, &str)], fixed: &str) {
            self.0.switch(branch, services.iter().copied());
            self.0.fix(fixed, "this double was told so");
        }

        async fn route_per_request(&self, on: bool) {
            self.0.route_per_request(on);
        }

        fn clock(&self) -> ManualClock {
            self.0.clock()
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
        let url = "http://127.0.0.1:9".parse().unwrap();
        let over = Override::new(url, OverrideKind::Custom, "pay".parse().unwrap());
        let changes = RouteChanges { services: [("eredar".parse().unwrap(), Some(over))].into(), ..Default::default() };
        assert!(matches!(routes.apply(&changes).await, Err(RouteError::Reload { .. })));
        assert_eq!(routes.file()["eredar"], "http://ocp.example");
    }
}
