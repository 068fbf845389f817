//! The suite of [`RouteStore`].

mod claims;
mod requests;

use async_trait::async_trait;
use futures_util::future::join_all;

use crate::{
    model::{
        names::{SandboxName, ServiceName},
        route::{Override, OverrideKind, RouteChanges, RouteOrigin, RouteTable, ServiceUrl},
    },
    routes::{RouteError, RouteStore},
    testing::ManualClock,
};

/// A gateway that the suite can act on from outside the store.
#[async_trait]
pub trait GatewayFixture: Sync {
    /// A store on the gateway. Each call may give a new one: what is recorded outlives them.
    fn store(&self) -> Box<dyn RouteStore>;

    /// Makes the gateway's checkout a fresh one of `branch`, whose committed configuration has
    /// these services and default URLs.
    async fn switch(&self, branch: &str, services: &[(&str, &str)]);

    /// Changes the value of `service` in the gateway's file, as a person with an editor would.
    async fn edit_by_hand(&self, service: &str, value: &str);

    /// Whether the gateway's file is, byte for byte, the committed one.
    async fn is_as_committed(&self) -> bool;

    /// As [`switch`](Self::switch), with `fixed` written where its value cannot be chosen per request.
    async fn switch_fixed(&self, branch: &str, services: &[(&str, &str)], fixed: &str);

    /// Whether the stores made from now on route per request. Off at first.
    async fn route_per_request(&self, on: bool);

    /// The clock of all its stores.
    fn clock(&self) -> ManualClock;
}

const SERVICES: [(&str, &str); 3] = [
    ("eredar", "http://eredar.ocp.example"),
    ("illidan", "http://illidan.ocp.example/v1"),
    ("thrall", "http://t.example"),
];

/// Runs the whole suite.
pub async fn suite(gateway: &dyn GatewayFixture) {
    a_fresh_checkout_has_its_defaults(gateway).await;
    an_override_changes_its_service_and_no_other(gateway).await;
    many_services_switch_together_and_back_to_the_committed_bytes(gateway).await;
    the_same_changes_again_change_nothing(gateway).await;
    an_unknown_service_is_refused_and_nothing_written(gateway).await;
    another_sandboxes_route_is_refused_unless_taken_over(gateway).await;
    overrides_survive_a_fresh_checkout_and_take_its_defaults_back(gateway).await;
    an_override_of_a_service_the_branch_lacks_is_kept_aside(gateway).await;
    a_hand_edit_is_shown_as_drift_and_overwritten_by_the_next_change(gateway).await;
    concurrent_changes_are_all_kept(gateway).await;
    claims::suite(gateway).await;
    requests::suite(gateway).await;
}

fn service(name: &str) -> ServiceName {
    name.parse().expect("a valid service name")
}

fn sandbox(name: &str) -> SandboxName {
    name.parse().expect("a valid sandbox name")
}

/// Changes by sandbox `by`: a URL to set, or none to clear.
fn changes(by: &str, services: &[(&str, Option<&str>)]) -> RouteChanges {
    let change = |(name, url): &(&str, Option<&str>)| {
        let over = url.map(|url| {
            let url = ServiceUrl::new(url).expect("a valid URL");
            Override::new(url, OverrideKind::Sandbox, sandbox(by))
        });
        (service(name), over)
    };
    let services = services.iter().map(change).collect();
    RouteChanges { services, by: Some(sandbox(by)), ..RouteChanges::default() }
}

fn value<'a>(table: &'a RouteTable, name: &str) -> (&'a str, RouteOrigin) {
    let route = table.get(&service(name)).unwrap_or_else(|| panic!("the table has no {name}"));
    (&route.value, route.origin)
}

/// A fresh checkout of `main` without overrides, whose gateway does not route per request.
async fn fresh(gateway: &dyn GatewayFixture) -> Box<dyn RouteStore> {
    gateway.switch("main", &SERVICES).await;
    let store = gateway.store();
    store.snapshot(&"main".parse().expect("valid")).await.expect("snapshot");
    let table = store.table().await.expect("table");
    let clear = table.routes.iter().filter_map(|route| route.owner.clone()).chain(table.requests.into_keys()).collect();
    store.apply(&RouteChanges { clear, takeover: true, ..RouteChanges::default() }).await.expect("clear");
    assert!(gateway.is_as_committed().await, "without overrides the file is the committed one");
    store
}

async fn a_fresh_checkout_has_its_defaults(gateway: &dyn GatewayFixture) {
    let store = fresh(gateway).await;
    let defaults = store.snapshot(&"main".parse().expect("valid")).await.expect("snapshot");
    let table = store.table().await.expect("table");
    assert_eq!(table.branch.as_ref().map(AsRef::as_ref), Some("main"));
    assert_eq!(table.routes.len(), SERVICES.len());
    for (name, url) in SERVICES {
        assert_eq!(value(&table, name), (url, RouteOrigin::Ocp));
        assert_eq!(defaults.services[&service(name)], url);
    }
}

async fn an_override_changes_its_service_and_no_other(gateway: &dyn GatewayFixture) {
    let store = fresh(gateway).await;
    let answer = store.apply(&changes("pay", &[("eredar", Some("http://127.0.0.1:9001"))])).await.expect("apply");
    let live = gateway.store().table().await.expect("table");
    for table in [&answer, &live] {
        assert_eq!(value(table, "eredar"), ("http://127.0.0.1:9001", RouteOrigin::Sandbox));
        assert_eq!(value(table, "illidan"), (SERVICES[1].1, RouteOrigin::Ocp));
        let route = table.get(&service("eredar")).expect("there");
        assert_eq!(route.owner, Some(sandbox("pay")));
        assert_eq!(route.default, SERVICES[0].1, "the default is still known");
    }
    assert!(!gateway.is_as_committed().await);
}

async fn many_services_switch_together_and_back_to_the_committed_bytes(gateway: &dyn GatewayFixture) {
    let store = fresh(gateway).await;
    let set = [("eredar", Some("http://127.0.0.1:1")), ("thrall", Some("http://127.0.0.1:2/it's?a=$b\\"))];
    let table = store.apply(&changes("pay", &set)).await.expect("apply");
    assert_eq!(value(&table, "eredar").0, "http://127.0.0.1:1");
    assert_eq!(value(&table, "thrall").0, "http://127.0.0.1:2/it's?a=$b\\");
    let table = store.apply(&changes("pay", &[("eredar", None)])).await.expect("clear one");
    assert_eq!(value(&table, "eredar"), (SERVICES[0].1, RouteOrigin::Ocp));
    assert_eq!(value(&table, "thrall").1, RouteOrigin::Sandbox);
    store.apply(&changes("pay", &[("thrall", None)])).await.expect("clear the other");
    assert!(gateway.is_as_committed().await, "clearing all overrides restores the committed bytes");
}

async fn the_same_changes_again_change_nothing(gateway: &dyn GatewayFixture) {
    let store = fresh(gateway).await;
    let change = changes("pay", &[("eredar", Some("http://127.0.0.1:3"))]);
    let first = store.apply(&change).await.expect("apply");
    let second = store.apply(&change).await.expect("apply again");
    assert_eq!(first.routes, second.routes);
    store.apply(&RouteChanges::default()).await.expect("apply nothing");
    assert_eq!(store.table().await.expect("table").routes, first.routes);
    store.reload().await.expect("reload");
    assert_eq!(store.table().await.expect("table").routes, first.routes);
}

async fn an_unknown_service_is_refused_and_nothing_written(gateway: &dyn GatewayFixture) {
    let store = fresh(gateway).await;
    let both = [("eredar", Some("http://127.0.0.1:4")), ("nobody", Some("http://127.0.0.1:5"))];
    match store.apply(&changes("pay", &both)).await {
        Err(RouteError::UnknownService { service: name, known }) => {
            assert_eq!(name, service("nobody"));
            assert!(known.contains("illidan"), "it names what there is: {known}");
        }
        other => panic!("expected UnknownService, got {other:?}"),
    }
    assert!(gateway.is_as_committed().await, "all or nothing");
}

async fn another_sandboxes_route_is_refused_unless_taken_over(gateway: &dyn GatewayFixture) {
    let store = fresh(gateway).await;
    store.apply(&changes("pay", &[("eredar", Some("http://127.0.0.1:6"))])).await.expect("apply");
    for change in [Some("http://127.0.0.1:7"), None] {
        match store.apply(&changes("ship", &[("eredar", change)])).await {
            Err(RouteError::Claimed { service: name, holder, .. }) => {
                assert_eq!((name, holder), (service("eredar"), sandbox("pay")));
            }
            other => panic!("expected Claimed, got {other:?}"),
        }
    }
    let takeover = RouteChanges { takeover: true, ..changes("ship", &[("eredar", Some("http://127.0.0.1:7"))]) };
    let table = store.apply(&takeover).await.expect("take over");
    assert_eq!(table.get(&service("eredar")).expect("there").owner, Some(sandbox("ship")));
    assert_eq!(value(&table, "eredar").0, "http://127.0.0.1:7");
}

async fn overrides_survive_a_fresh_checkout_and_take_its_defaults_back(gateway: &dyn GatewayFixture) {
    let store = fresh(gateway).await;
    store.apply(&changes("pay", &[("eredar", Some("http://127.0.0.1:8"))])).await.expect("apply");
    gateway.switch("feature/y", &[("eredar", "http://other.example"), ("illidan", SERVICES[1].1)]).await;
    let store = gateway.store();
    let defaults = store.snapshot(&"feature/y".parse().expect("valid")).await.expect("snapshot");
    assert_eq!(defaults.services[&service("eredar")], "http://other.example");
    let table = store.apply(&RouteChanges::default()).await.expect("apply again");
    assert_eq!(value(&table, "eredar"), ("http://127.0.0.1:8", RouteOrigin::Sandbox));
    let table = store.apply(&changes("pay", &[("eredar", None)])).await.expect("clear");
    assert_eq!(value(&table, "eredar"), ("http://other.example", RouteOrigin::Ocp));
    assert!(gateway.is_as_committed().await, "a toggle back restores this branch's own value");
}

async fn an_override_of_a_service_the_branch_lacks_is_kept_aside(gateway: &dyn GatewayFixture) {
    let store = fresh(gateway).await;
    store.apply(&changes("pay", &[("thrall", Some("http://127.0.0.1:9"))])).await.expect("apply");
    gateway.switch("small", &SERVICES[..2]).await;
    let store = gateway.store();
    store.snapshot(&"small".parse().expect("valid")).await.expect("snapshot");
    let table = store.apply(&RouteChanges::default()).await.expect("apply again");
    assert!(table.get(&service("thrall")).is_none());
    assert!(table.warnings.iter().any(|warning| warning.contains("thrall")), "{:?}", table.warnings);
    gateway.switch("main", &SERVICES).await;
    let store = gateway.store();
    store.snapshot(&"main".parse().expect("valid")).await.expect("snapshot");
    let table = store.apply(&RouteChanges::default()).await.expect("apply again");
    assert_eq!(value(&table, "thrall").0, "http://127.0.0.1:9");
}

async fn a_hand_edit_is_shown_as_drift_and_overwritten_by_the_next_change(gateway: &dyn GatewayFixture) {
    let store = fresh(gateway).await;
    gateway.edit_by_hand("illidan", "http://hand.example").await;
    let table = store.table().await.expect("table");
    assert_eq!(value(&table, "illidan"), ("http://hand.example", RouteOrigin::Drifted));
    let table = store.apply(&changes("pay", &[("eredar", Some("http://127.0.0.1:10"))])).await.expect("apply");
    assert_eq!(value(&table, "illidan"), (SERVICES[1].1, RouteOrigin::Ocp));
}

async fn concurrent_changes_are_all_kept(gateway: &dyn GatewayFixture) {
    fresh(gateway).await;
    let one = async |name: &str| {
        let store = gateway.store();
        store.apply(&changes(&format!("of-{name}"), &[(name, Some("http://127.0.0.1:11"))])).await.expect("apply");
    };
    join_all(SERVICES.map(|(name, _)| one(name))).await;
    let table = gateway.store().table().await.expect("table");
    for (name, _) in SERVICES {
        assert_eq!(value(&table, name), ("http://127.0.0.1:11", RouteOrigin::Sandbox), "{name}");
    }
}
