//! Routes per request: many sandboxes side by side on one gateway.

use super::{GatewayFixture, RouteChanges, RouteError, RouteStore, SERVICES, changes, fresh, sandbox, service, value};
use crate::model::{
    explain::{Carrier, RouteQuestion, ServedBy},
    names::SandboxKey,
    route::{RequestRoutes, RouteOrigin},
};

pub(super) async fn suite(gateway: &dyn GatewayFixture) {
    a_gateway_that_does_not_route_per_request_says_so(gateway).await;
    sandboxes_have_their_own_routes_beside_those_for_all(gateway).await;
    one_change_switches_both_kinds_of_routes(gateway).await;
    a_sandbox_changes_its_own_requests_only_and_by_its_own_key(gateway).await;
    a_service_that_cannot_be_routed_per_request_is_told_and_overridden_all_the_same(gateway).await;
    routes_per_request_survive_a_fresh_checkout(gateway).await;
    switched_off_again_the_file_is_plain(gateway).await;
    a_request_is_explained(gateway).await;
    gateway.route_per_request(false).await;
}

fn key(sandbox: &str, random: u64) -> SandboxKey {
    SandboxKey::generate(&super::sandbox(sandbox), random)
}

/// Routes of the sandbox's own requests, asked for by itself.
fn requests(by: &str, services: &[(&str, &str)]) -> RouteChanges {
    let services = services.iter().map(|(name, url)| (service(name), url.parse().expect("a valid URL"))).collect();
    let routes = RequestRoutes { key: key(by, 1), services };
    RouteChanges { requests: [(sandbox(by), Some(routes))].into(), by: Some(sandbox(by)), ..RouteChanges::default() }
}

/// A fresh checkout whose gateway routes per request.
async fn fresh_per_request(gateway: &dyn GatewayFixture) -> Box<dyn RouteStore> {
    gateway.route_per_request(false).await;
    fresh(gateway).await;
    gateway.route_per_request(true).await;
    let store = gateway.store();
    let table = store.apply(&RouteChanges::default()).await.expect("switch it on");
    assert!(table.per_request && table.warnings.is_empty(), "{table:?}");
    store
}

async fn a_gateway_that_does_not_route_per_request_says_so(gateway: &dyn GatewayFixture) {
    gateway.route_per_request(false).await;
    let store = fresh(gateway).await;
    assert!(!store.table().await.expect("table").per_request);
    let refused = store.apply(&requests("pay", &[("eredar", "http://127.0.0.1:30")])).await;
    assert!(matches!(refused, Err(RouteError::PerRequestOff)), "{refused:?}");
    assert!(gateway.is_as_committed().await);
}

async fn sandboxes_have_their_own_routes_beside_those_for_all(gateway: &dyn GatewayFixture) {
    let store = fresh_per_request(gateway).await;
    store.apply(&requests("pay", &[("eredar", "http://127.0.0.1:31")])).await.expect("apply");
    let table =
        store.apply(&requests("ship", &[("eredar", "http://127.0.0.1:32")])).await.expect("nobody is in the way");
    for table in [table, gateway.store().table().await.expect("table")] {
        assert_eq!(table.requests[&sandbox("pay")].services[&service("eredar")].as_str(), "http://127.0.0.1:31");
        assert_eq!(table.requests[&sandbox("ship")].services[&service("eredar")].as_str(), "http://127.0.0.1:32");
        assert_eq!(value(&table, "eredar"), (SERVICES[0].1, RouteOrigin::Ocp), "all others see the default");
        assert!(table.per_request && table.not_routable.is_empty() && table.warnings.is_empty(), "{table:?}");
    }
    let clear = RouteChanges { requests: [(sandbox("pay"), None)].into(), ..requests("pay", &[]) };
    let table = store.apply(&clear).await.expect("clear");
    assert_eq!(table.requests.keys().collect::<Vec<_>>(), [&sandbox("ship")]);
}

async fn one_change_switches_both_kinds_of_routes(gateway: &dyn GatewayFixture) {
    let store = fresh_per_request(gateway).await;
    store.apply(&changes("pay", &[("eredar", Some("http://127.0.0.1:33"))])).await.expect("apply");
    // From every request to its own only.
    let mut change = requests("pay", &[("eredar", "http://127.0.0.1:33")]);
    change.services = changes("pay", &[("eredar", None)]).services;
    let table = store.apply(&change).await.expect("apply");
    assert_eq!(value(&table, "eredar"), (SERVICES[0].1, RouteOrigin::Ocp));
    assert!(table.requests.contains_key(&sandbox("pay")));
    let clear = RouteChanges { clear: [sandbox("pay")].into(), by: Some(sandbox("pay")), ..RouteChanges::default() };
    assert!(store.apply(&clear).await.expect("clear").requests.is_empty());
}

async fn a_sandbox_changes_its_own_requests_only_and_by_its_own_key(gateway: &dyn GatewayFixture) {
    let store = fresh_per_request(gateway).await;
    store.apply(&requests("pay", &[("eredar", "http://127.0.0.1:34")])).await.expect("apply");
    let clear = RouteChanges { requests: [(sandbox("pay"), None)].into(), ..requests("ship", &[]) };
    assert!(matches!(store.apply(&clear).await, Err(RouteError::NotOwner { .. })));
    let mut foreign = requests("ship", &[("eredar", "http://127.0.0.1:35")]);
    for routes in foreign.requests.values_mut().flatten() {
        routes.key = key("pay", 1);
    }
    assert!(matches!(store.apply(&foreign).await, Err(RouteError::ForeignKey { .. })));
    let unknown = store.apply(&requests("pay", &[("jaina", "http://127.0.0.1:36")])).await;
    assert!(matches!(unknown, Err(RouteError::UnknownService { .. })), "{unknown:?}");
    let table = store.table().await.expect("table");
    assert_eq!(table.requests.len(), 1);
    assert_eq!(table.requests[&sandbox("pay")].services[&service("eredar")].as_str(), "http://127.0.0.1:34");
}

async fn a_service_that_cannot_be_routed_per_request_is_told_and_overridden_all_the_same(gateway: &dyn GatewayFixture) {
    fresh_per_request(gateway).await;
    gateway.switch_fixed("main", &SERVICES, "thrall").await;
    let store = gateway.store();
    let table = store.apply(&RouteChanges::default()).await.expect("apply");
    assert_eq!(table.not_routable.keys().collect::<Vec<_>>(), [&service("thrall")]);
    match store.apply(&requests("pay", &[("thrall", "http://127.0.0.1:37")])).await {
        Err(RouteError::NotRoutable { service: name, reason }) => {
            assert_eq!((name, &reason), (service("thrall"), &table.not_routable[&service("thrall")]));
        }
        other => panic!("expected NotRoutable, got {other:?}"),
    }
    let table = store.apply(&changes("pay", &[("thrall", Some("http://127.0.0.1:38"))])).await.expect("override");
    assert_eq!(value(&table, "thrall"), ("http://127.0.0.1:38", RouteOrigin::Sandbox));
    let table = store.apply(&changes("pay", &[("thrall", None)])).await.expect("clear");
    assert_eq!(value(&table, "thrall"), (SERVICES[2].1, RouteOrigin::Ocp));
}

async fn routes_per_request_survive_a_fresh_checkout(gateway: &dyn GatewayFixture) {
    let store = fresh_per_request(gateway).await;
    store.apply(&changes("ship", &[("illidan", Some("http://127.0.0.1:39"))])).await.expect("apply");
    store.apply(&requests("pay", &[("thrall", "http://127.0.0.1:40")])).await.expect("apply");
    gateway.switch("small", &SERVICES[..2]).await;
    let store = gateway.store();
    let table = store.apply(&RouteChanges::default()).await.expect("apply again");
    assert_eq!(value(&table, "illidan"), ("http://127.0.0.1:39", RouteOrigin::Sandbox));
    assert!(table.per_request);
    assert!(table.warnings.iter().any(|warning| warning.contains("thrall")), "{:?}", table.warnings);
    gateway.switch("main", &SERVICES).await;
    let table = gateway.store().apply(&RouteChanges::default()).await.expect("apply again");
    assert_eq!(table.requests[&sandbox("pay")].services[&service("thrall")].as_str(), "http://127.0.0.1:40");
    assert!(table.warnings.is_empty(), "{:?}", table.warnings);
}

async fn switched_off_again_the_file_is_plain(gateway: &dyn GatewayFixture) {
    let store = fresh_per_request(gateway).await;
    store.apply(&changes("ship", &[("illidan", Some("http://127.0.0.1:41"))])).await.expect("apply");
    store.apply(&requests("pay", &[("eredar", "http://127.0.0.1:42")])).await.expect("apply");
    gateway.route_per_request(false).await;
    let store = gateway.store();
    let table = store.apply(&RouteChanges::default()).await.expect("switch it off");
    assert!(!table.per_request);
    assert!(table.warnings.iter().any(|warning| warning.contains("per request")), "{:?}", table.warnings);
    assert_eq!(value(&table, "illidan"), ("http://127.0.0.1:41", RouteOrigin::Sandbox));
    store.apply(&changes("ship", &[("illidan", None)])).await.expect("clear");
    assert!(gateway.is_as_committed().await, "no wrapper is left");
    gateway.route_per_request(true).await;
    let table = gateway.store().apply(&RouteChanges::default()).await.expect("switch it on again");
    assert!(table.per_request && table.requests.contains_key(&sandbox("pay")), "{table:?}");
}

async fn a_request_is_explained(gateway: &dyn GatewayFixture) {
    let store = fresh_per_request(gateway).await;
    store.apply(&changes("ship", &[("illidan", Some("http://127.0.0.1:1/"))])).await.expect("apply");
    store.apply(&requests("pay", &[("eredar", "http://127.0.0.1:1/x")])).await.expect("apply");
    let ask = async |name: &str, baggage: Option<String>| {
        let question = RouteQuestion { service: service(name), header: None, cookie: None, baggage };
        store.explain(&question).await.expect("an explanation")
    };
    let with_key = |random| Some(format!("a=b, sdp-sandbox={};x=y", key("pay", random)));

    let own = ask("eredar", with_key(1)).await;
    assert_eq!((own.served_by, own.target.as_deref()), (ServedBy::Sandbox, Some("http://127.0.0.1:1/x")));
    assert_eq!((own.sandbox, own.carrier), (Some(sandbox("pay")), Some(Carrier::Baggage)));
    let other = ask("illidan", with_key(1)).await;
    assert_eq!((other.served_by, other.target.as_deref()), (ServedBy::Override, Some("http://127.0.0.1:1/")));
    let default = ask("thrall", with_key(1)).await;
    assert_eq!((default.served_by, default.target.as_deref()), (ServedBy::Default, Some(SERVICES[2].1)));

    let old = ask("eredar", with_key(2)).await;
    assert_eq!((old.served_by, old.sandbox), (ServedBy::Default, None));
    assert!(old.because[0].contains("not its present one"), "{:?}", old.because);
    let without = ask("eredar", None).await;
    assert_eq!((without.served_by, without.key), (ServedBy::Default, None));
    assert!(without.because[0].contains("carries no key"), "{:?}", without.because);
    assert_eq!(ask("jaina", None).await.served_by, ServedBy::Nothing);
}
