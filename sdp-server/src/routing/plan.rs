//! What a gateway should be told, from its table and the facts. No I/O and no clock.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sdp_core::{
    Override, OverrideKind, RouteChanges, RouteOrigin, RouteTable, RouteTarget, SandboxName, ServiceName, ServiceUrl,
};

use super::facts::Facts;

/// The changes that the shared gateway needs, in order.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// In the platform's own name: what has ended, and the routes of sandboxes' own requests.
    pub(super) platform: Option<RouteChanges>,
    /// In each owner's name: overrides that lead to its deployments.
    pub(super) owners: Vec<Follow>,
}

/// One owner's overrides that have to follow its deployments.
#[derive(Debug, PartialEq)]
pub(super) struct Follow {
    /// The change.
    pub(super) changes: RouteChanges,
    /// The services given back, because what they led to has failed.
    pub(super) released: Vec<ServiceName>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.platform.is_none() && self.owners.is_empty()
    }
}

/// The changes that the shared gateway needs at `now`.
pub(super) fn shared(facts: &Facts, table: &RouteTable, per_request: bool, now: Timestamp) -> Plan {
    Plan { platform: platform(facts, table, per_request, now), owners: owners(facts, table) }
}

fn platform(facts: &Facts, table: &RouteTable, per_request: bool, now: Timestamp) -> Option<RouteChanges> {
    let owners = table.routes.iter().filter_map(|route| route.owner.as_ref()).chain(table.requests.keys());
    let gone: BTreeSet<_> = owners.filter(|owner| !facts.sandboxes.contains_key(*owner)).cloned().collect();
    let clear_expired = table.routes.iter().any(|route| route.expires_at.is_some_and(|end| end <= now));
    let mut requests = BTreeMap::new();
    if per_request {
        let routable = |service: &&ServiceName| !table.not_routable.contains_key(*service);
        let services: Vec<_> = table.routes.iter().map(|route| &route.service).filter(routable).collect();
        let wanted = facts.requests(&services);
        let left = table.requests.keys().filter(|sandbox| !wanted.contains_key(*sandbox) && !gone.contains(*sandbox));
        requests.extend(left.map(|sandbox| (sandbox.clone(), None)));
        let changed = wanted.into_iter().filter(|(sandbox, routes)| table.requests.get(sandbox) != Some(routes));
        requests.extend(changed.map(|(sandbox, routes)| (sandbox, Some(routes))));
    }
    // The files are not as they should be: a fresh checkout, or somebody's editor. Any change writes them again.
    let to_be_written = per_request && !table.per_request && !table.requests.is_empty();
    let any = clear_expired || to_be_written || !gone.is_empty() || !requests.is_empty();
    any.then(|| RouteChanges { clear_expired, clear: gone, requests, takeover: true, ..RouteChanges::default() })
}

fn owners(facts: &Facts, table: &RouteTable) -> Vec<Follow> {
    let mut follow: BTreeMap<&SandboxName, Follow> = BTreeMap::new();
    for route in &table.routes {
        let Some((owner, sandbox)) = route.owner.as_ref().and_then(|owner| facts.sandboxes.get_key_value(owner)) else {
            continue;
        };
        let is_open = facts.open.contains(&(owner.clone(), route.service.clone()));
        let end = if is_open { Some(sandbox.expires_at) } else { route.expires_at };
        let present = route.value.parse().ok();
        let (kind, url) = match route.origin {
            RouteOrigin::Sandbox => match facts.running(owner, &route.service) {
                None if facts.lives(owner, &route.service) => (OverrideKind::Sandbox, present),
                running => (OverrideKind::Sandbox, running),
            },
            RouteOrigin::Custom => (OverrideKind::Custom, present),
            // What somebody edited by hand is left alone.
            RouteOrigin::Drifted | RouteOrigin::Ocp => continue,
        };
        if end == route.expires_at && url.as_ref().is_some_and(|url: &ServiceUrl| url.as_str() == route.value) {
            continue;
        }
        let target = url.map(|url| Override {
            reason: route.reason.clone(),
            expires_at: end,
            ..Override::new(url, kind, owner.clone())
        });
        let changes = || RouteChanges { by: Some(owner.clone()), ..RouteChanges::default() };
        let of_owner = follow.entry(owner).or_insert_with(|| Follow { changes: changes(), released: Vec::new() });
        of_owner.released.extend(target.is_none().then(|| route.service.clone()));
        of_owner.changes.services.insert(route.service.clone(), target);
    }
    follow.into_values().collect()
}

/// What a sandbox's own gateway needs: `choices` by service, and everything else to the sandbox's own deployments.
pub(super) fn own(
    facts: &Facts,
    sandbox: &SandboxName,
    table: &RouteTable,
    choices: &BTreeMap<ServiceName, RouteTarget>,
) -> Option<RouteChanges> {
    let mut services = BTreeMap::new();
    for route in table.routes.iter().filter(|route| route.origin != RouteOrigin::Drifted) {
        let wanted = own_target(facts, sandbox, &route.service, choices.get(&route.service));
        let has = match route.origin {
            RouteOrigin::Sandbox => Some((OverrideKind::Sandbox, route.value.as_str())),
            RouteOrigin::Custom => Some((OverrideKind::Custom, route.value.as_str())),
            _ => None,
        };
        if has != wanted.as_ref().map(|wanted| (wanted.kind, wanted.url.as_str())) {
            services.insert(route.service.clone(), wanted);
        }
    }
    let by = Some(sandbox.clone());
    (!services.is_empty()).then(|| RouteChanges { services, by, ..RouteChanges::default() })
}

fn own_target(
    facts: &Facts,
    sandbox: &SandboxName,
    service: &ServiceName,
    choice: Option<&RouteTarget>,
) -> Option<Override> {
    let over = |url, kind| Override::new(url, kind, sandbox.clone());
    match choice {
        Some(RouteTarget::Ocp) => None,
        Some(RouteTarget::Url(url)) => Some(over(url.clone(), OverrideKind::Custom)),
        Some(RouteTarget::Sandbox) | None => {
            facts.running(sandbox, service).map(|url| over(url, OverrideKind::Sandbox))
        }
    }
}

#[cfg(test)]
mod tests {
    use sdp_core::{Deployment, DeploymentId, DeploymentState, InstanceKey, RequestRoutes, Route, Sandbox};

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_767_225_600, 0);

    fn later(seconds: i64) -> Timestamp {
        Timestamp::from_second(NOW.as_second() + seconds).unwrap()
    }

    /// Sandboxes that exist, each with a deployment of `eredar` in this state at this URL.
    fn facts(sandboxes: &[(&str, DeploymentState, &str)]) -> Facts {
        let mut facts = Facts::default();
        facts.services.insert(("micro".parse().unwrap(), "eredar".parse().unwrap()), "eredar".parse().unwrap());
        for (name, state, url) in sandboxes {
            let name: SandboxName = name.parse().unwrap();
            let (environment, owner) = ("default".parse().unwrap(), "ada".parse().unwrap());
            let (created_at, expires_at, active) = (NOW, later(9_000), sdp_core::SandboxState::Active);
            let shared_with = BTreeSet::new();
            let sandbox =
                Sandbox { name: name.clone(), environment, owner, shared_with, created_at, expires_at, state: active };
            facts.sandboxes.insert(name.clone(), sandbox);
            facts.keys.insert(name.clone(), format!("{name}-aaaaaaaa").parse().unwrap());
            if state.is_final() {
                continue;
            }
            facts.deployments.push(Deployment {
                id: DeploymentId::new(),
                key: InstanceKey::in_sandbox(name, "eredar".parse().unwrap()),
                branch: "main".parse().unwrap(),
                commit: None,
                agent: "micro".parse().unwrap(),
                state: *state,
                failure: None,
                rollback_of: None,
                host_port: None,
                url: Some((*url).into()),
                env: BTreeMap::new(),
                user: "ada".parse().unwrap(),
                created_at: NOW,
                finished_at: None,
                stages: Vec::new(),
            });
        }
        facts
    }

    fn route(origin: RouteOrigin, owner: &str, value: &str) -> Route {
        Route {
            service: "eredar".parse().unwrap(),
            value: value.into(),
            expression: false,
            origin,
            default: "http://ocp".into(),
            owner: (!owner.is_empty()).then(|| owner.parse().unwrap()),
            reason: Some("a test".parse().unwrap()),
            expires_at: Some(later(60)),
            effective: None,
        }
    }

    fn table(route: Route) -> RouteTable {
        RouteTable { per_request: true, routes: vec![route], ..RouteTable::default() }
    }

    const URL: &str = "http://vm:1";

    #[test]
    fn nothing_is_changed_where_everything_is_as_it_should_be() {
        let facts = facts(&[("pay", DeploymentState::Running, URL)]);
        let mut table = table(route(RouteOrigin::Sandbox, "pay", URL));
        assert!(shared(&facts, &table, false, NOW).is_empty());
        table.requests = facts.requests(&[&"eredar".parse().unwrap()]);
        assert_eq!(table.requests.len(), 1);
        assert!(shared(&facts, &table, true, NOW).is_empty());
    }

    #[test]
    fn an_override_follows_its_deployment_and_is_given_back_when_that_fails_but_not_when_it_stops() {
        let table = table(route(RouteOrigin::Sandbox, "pay", URL));
        let moved = shared(&facts(&[("pay", DeploymentState::Running, "http://vm:2")]), &table, false, NOW);
        let [Follow { changes, released }] = &*moved.owners else { panic!("{moved:?}") };
        let target = changes.services.values().next().unwrap().as_ref().unwrap();
        assert_eq!((target.url.as_str(), target.expires_at), ("http://vm:2", Some(later(60))));
        assert!(target.reason.is_some() && released.is_empty() && !changes.takeover);
        assert_eq!(changes.by.as_ref().unwrap().as_str(), "pay");

        let failed = shared(&facts(&[("pay", DeploymentState::Failed, URL)]), &table, false, NOW);
        assert_eq!(failed.owners[0].released.len(), 1);
        assert_eq!(failed.owners[0].changes.services.values().next(), Some(&None));
        for state in [DeploymentState::Stopped, DeploymentState::Build] {
            assert!(shared(&facts(&[("pay", state, URL)]), &table, false, NOW).is_empty(), "{state}");
        }
    }

    #[test]
    fn a_claim_without_an_end_of_its_own_ends_with_its_sandbox_also_when_that_is_moved() {
        let mut facts = facts(&[("pay", DeploymentState::Running, URL)]);
        for (origin, value) in [(RouteOrigin::Sandbox, URL), (RouteOrigin::Custom, "http://elsewhere")] {
            let table = table(route(origin, "pay", value));
            facts.open.clear();
            assert!(shared(&facts, &table, false, NOW).is_empty());
            facts.open.insert(("pay".parse().unwrap(), "eredar".parse().unwrap()));
            let plan = shared(&facts, &table, false, NOW);
            let target = plan.owners[0].changes.services.values().next().unwrap().as_ref().unwrap();
            assert_eq!((target.url.as_str(), target.expires_at), (value, Some(later(9_000))));
            assert!(plan.owners[0].released.is_empty());
        }
    }

    #[test]
    fn custom_urls_and_edits_by_hand_are_left_alone() {
        for origin in [RouteOrigin::Custom, RouteOrigin::Drifted, RouteOrigin::Ocp] {
            let table = table(route(origin, "pay", "http://elsewhere"));
            assert!(shared(&facts(&[("pay", DeploymentState::Running, URL)]), &table, false, NOW).is_empty());
        }
    }

    #[test]
    fn what_has_ended_is_cleared_at_its_last_second() {
        let facts = facts(&[("pay", DeploymentState::Running, URL)]);
        let mut with = table(route(RouteOrigin::Sandbox, "pay", URL));
        assert!(shared(&facts, &with, false, later(59)).is_empty());
        let changes = shared(&facts, &with, false, later(60)).platform.unwrap();
        assert!(changes.clear_expired && changes.clear.is_empty());

        with.routes[0].owner = Some("gone".parse().unwrap());
        let changes = shared(&facts, &with, false, NOW).platform.unwrap();
        assert_eq!(changes.clear.iter().map(SandboxName::as_str).collect::<Vec<_>>(), ["gone"]);
        assert!(changes.takeover, "nobody is left to ask in its name");
    }

    #[test]
    fn requests_are_brought_up_to_date_for_the_services_that_can_be_routed() {
        let running = facts(&[("pay", DeploymentState::Running, URL), ("ship", DeploymentState::Stopped, URL)]);
        let mut table = table(route(RouteOrigin::Ocp, "", "http://ocp"));
        table.routes[0].expires_at = None;
        let old = RequestRoutes { key: "ship-aaaaaaaa".parse().unwrap(), services: BTreeMap::new() };
        table.requests.insert("ship".parse().unwrap(), old.clone());
        let changes = shared(&running, &table, true, NOW).platform.unwrap();
        let pay = changes.requests[&"pay".parse().unwrap()].as_ref().unwrap();
        assert_eq!(pay.services.values().next().unwrap().as_str(), URL);
        assert_eq!(changes.requests[&"ship".parse().unwrap()], None);

        table.not_routable.insert("eredar".parse().unwrap(), "it is a constant".into());
        let changes = shared(&running, &table, true, NOW).platform.unwrap();
        assert_eq!(changes.requests.len(), 1, "the gateway would refuse it");
        table.requests.clear();
        assert!(shared(&running, &table, true, NOW).is_empty());
        assert!(shared(&running, &table, false, NOW).is_empty());

        // A fresh checkout has none of it in effect.
        table.requests.insert("gone".parse().unwrap(), old);
        table.per_request = false;
        assert!(shared(&running, &table, true, NOW).platform.is_some());
    }

    #[test]
    fn nobody_is_sent_to_a_sandbox_that_sleeps_or_goes_while_its_deployment_still_runs() {
        let (pay, eredar): (SandboxName, ServiceName) = ("pay".parse().unwrap(), "eredar".parse().unwrap());
        let mut facts = facts(&[("pay", DeploymentState::Running, URL)]);
        let mut table = table(route(RouteOrigin::Ocp, "", "http://ocp"));
        table.routes[0].expires_at = None;
        let requests = facts.requests(&[&eredar]);
        for state in [sdp_core::SandboxState::Asleep, sdp_core::SandboxState::Deleting] {
            facts.sandboxes.get_mut(&pay).unwrap().state = state;
            table.requests.clear();
            assert!(shared(&facts, &table, true, NOW).is_empty(), "{state}: what was cleared stays so");
            table.requests = requests.clone();
            let changes = shared(&facts, &table, true, NOW).platform.unwrap();
            assert_eq!(changes.requests[&pay], None, "{state}");
            assert_eq!(own(&facts, &pay, &table, &BTreeMap::new()), None, "{state}");
        }
    }

    #[test]
    fn an_own_gateway_defaults_to_the_sandboxs_deployments_unless_something_else_was_chosen() {
        let (pay, eredar): (SandboxName, ServiceName) = ("pay".parse().unwrap(), "eredar".parse().unwrap());
        let running = facts(&[("pay", DeploymentState::Running, URL)]);
        let ocp = table(route(RouteOrigin::Ocp, "", "http://ocp"));
        let to_own = table(route(RouteOrigin::Sandbox, "pay", URL));
        let none = BTreeMap::new();
        let set = own(&running, &pay, &ocp, &none).unwrap();
        assert_eq!(set.services[&eredar].as_ref().unwrap().url.as_str(), URL);
        assert_eq!(own(&running, &pay, &to_own, &none), None);
        assert_eq!(own(&running, &pay, &ocp, &[(eredar.clone(), RouteTarget::Ocp)].into()), None);
        let back = own(&running, &pay, &to_own, &[(eredar.clone(), RouteTarget::Ocp)].into()).unwrap();
        assert_eq!(back.services[&eredar], None);
        let url = [(eredar.clone(), RouteTarget::Url("http://a".parse().unwrap()))].into();
        assert_eq!(
            own(&running, &pay, &ocp, &url).unwrap().services[&eredar].as_ref().unwrap().url.as_str(),
            "http://a"
        );
        let stopped = facts(&[("pay", DeploymentState::Stopped, URL)]);
        assert_eq!(own(&stopped, &pay, &to_own, &none).unwrap().services[&eredar], None);
        assert_eq!(own(&running, &pay, &table(route(RouteOrigin::Drifted, "", "x")), &none), None);
    }
}
