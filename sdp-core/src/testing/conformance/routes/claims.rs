//! Overrides as claims: who is refused, what ends them, and what a takeover tells.

use std::time::Duration;

use super::{GatewayFixture, RouteChanges, RouteError, SERVICES, changes, fresh, sandbox, service, value};
use crate::{clock::Clock, model::route::RouteOrigin};

pub(super) async fn suite(gateway: &dyn GatewayFixture) {
    a_refusal_names_holder_reason_and_end(gateway).await;
    a_takeover_tells_what_was_taken_from_whom(gateway).await;
    an_expired_claim_keeps_nobody_off_and_works_until_it_is_cleared(gateway).await;
    everything_of_one_sandbox_is_cleared_together_and_only_by_itself(gateway).await;
}

/// A claim of `pay` on `eredar`, with a reason, over in a minute.
fn claim(gateway: &dyn GatewayFixture) -> RouteChanges {
    let mut claim = changes("pay", &[("eredar", Some("http://127.0.0.1:20"))]);
    for over in claim.services.values_mut().flatten() {
        over.reason = Some("load test".parse().expect("a valid reason"));
        over.expires_at = gateway.clock().now().saturating_add(Duration::from_secs(60)).ok();
    }
    claim
}

async fn a_refusal_names_holder_reason_and_end(gateway: &dyn GatewayFixture) {
    let store = fresh(gateway).await;
    let claim = claim(gateway);
    let end = claim.services[&service("eredar")].as_ref().and_then(|over| over.expires_at);
    let table = store.apply(&claim).await.expect("claim");
    for table in [table, gateway.store().table().await.expect("table")] {
        let route = table.get(&service("eredar")).expect("there");
        assert_eq!(route.reason.as_ref().map(AsRef::as_ref), Some("load test"));
        assert_eq!(route.expires_at, end);
        assert!(table.taken.is_empty(), "nobody had it before");
    }
    let error = gateway.store().apply(&changes("ship", &[("eredar", None)])).await.expect_err("refused");
    let text = error.to_string();
    assert!(text.contains("pay") && text.contains("load test") && text.contains("2026-"), "{text}");
    assert!(matches!(error, RouteError::Claimed { expires_at, .. } if expires_at == end));
}

async fn a_takeover_tells_what_was_taken_from_whom(gateway: &dyn GatewayFixture) {
    let store = fresh(gateway).await;
    store.apply(&claim(gateway)).await.expect("claim");
    let take = RouteChanges {
        takeover: true,
        ..changes("ship", &[("eredar", Some("http://127.0.0.1:21")), ("thrall", Some("http://127.0.0.1:22"))])
    };
    let table = store.apply(&take).await.expect("take over");
    let [taken] = table.taken.as_slice() else { panic!("one override was taken: {:?}", table.taken) };
    assert_eq!((&taken.service, &taken.was.owner, taken.expired), (&service("eredar"), &sandbox("pay"), false));
    assert_eq!(taken.was.url.as_str(), "http://127.0.0.1:20");
    assert!(gateway.store().table().await.expect("table").taken.is_empty(), "told once, with the change");
    assert!(store.apply(&take).await.expect("again").taken.is_empty(), "nothing is taken from oneself");
}

async fn an_expired_claim_keeps_nobody_off_and_works_until_it_is_cleared(gateway: &dyn GatewayFixture) {
    let store = fresh(gateway).await;
    store.apply(&claim(gateway)).await.expect("claim");
    store.apply(&changes("pay", &[("thrall", Some("http://127.0.0.1:23"))])).await.expect("a claim without an end");
    gateway.clock().advance(Duration::from_secs(59));
    assert!(store.apply(&changes("ship", &[("eredar", None)])).await.is_err(), "a second is left");
    gateway.clock().advance(Duration::from_secs(1));
    let table = store.table().await.expect("table");
    assert_eq!(value(&table, "eredar"), ("http://127.0.0.1:20", RouteOrigin::Sandbox));

    let table = store.apply(&changes("ship", &[("eredar", Some("http://127.0.0.1:24"))])).await.expect("claim");
    assert_eq!(table.get(&service("eredar")).expect("there").owner, Some(sandbox("ship")));
    assert!(table.taken.iter().all(|taken| taken.expired) && table.taken.len() == 1, "{:?}", table.taken);

    store.apply(&changes("ship", &[("eredar", None)])).await.expect("clear");
    store.apply(&claim(gateway)).await.expect("claim");
    gateway.clock().advance(Duration::from_secs(60));
    let clear = RouteChanges { clear_expired: true, ..RouteChanges::default() };
    let table = store.apply(&clear).await.expect("clear what expired");
    assert_eq!(value(&table, "eredar"), (SERVICES[0].1, RouteOrigin::Ocp));
    assert_eq!(value(&table, "thrall").0, "http://127.0.0.1:23", "a claim without an end stays");
    assert_eq!(table.taken.len(), 1);
}

async fn everything_of_one_sandbox_is_cleared_together_and_only_by_itself(gateway: &dyn GatewayFixture) {
    let store = fresh(gateway).await;
    let set = [("eredar", Some("http://127.0.0.1:25")), ("thrall", Some("http://127.0.0.1:26"))];
    store.apply(&changes("pay", &set)).await.expect("apply");
    store.apply(&changes("ship", &[("illidan", Some("http://127.0.0.1:27"))])).await.expect("apply");
    let clear = |by: Option<&str>, takeover| RouteChanges {
        clear: [sandbox("pay")].into(),
        by: by.map(sandbox),
        takeover,
        ..RouteChanges::default()
    };
    for refused in [clear(None, false), clear(Some("ship"), false)] {
        match store.apply(&refused).await {
            Err(RouteError::NotOwner { sandbox: holder }) => assert_eq!(holder, sandbox("pay")),
            other => panic!("expected NotOwner, got {other:?}"),
        }
    }
    let table = store.apply(&clear(Some("pay"), false)).await.expect("clear");
    assert_eq!(value(&table, "eredar"), (SERVICES[0].1, RouteOrigin::Ocp));
    assert_eq!(value(&table, "thrall"), (SERVICES[2].1, RouteOrigin::Ocp));
    assert_eq!(value(&table, "illidan").0, "http://127.0.0.1:27");
    assert!(table.taken.is_empty(), "it gave them back itself");
    store.apply(&changes("pay", &set)).await.expect("apply");
    assert_eq!(store.apply(&clear(None, true)).await.expect("clear for it").taken.len(), 2);
}
