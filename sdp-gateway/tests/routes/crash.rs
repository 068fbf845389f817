//! A change that is cut off between its writes is either made or not, and the next look says which.

use std::fs;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use async_trait::async_trait;
use sdp_core::{RouteChanges, RouteOrigin, RouteStore, RouteTable};
use sdp_gateway::reload::{Reload, ReloadError, Reloaded};
use serde_json::{Value, json};

use crate::fixture::{Gateway, changes, requests};

const TWO: &str = "<?php\n$config['shop_url'] = 'http://shop';\n$config['mail_url'] = 'http://mail';\n";

/// The record beside a gateway's files.
fn record(gateway: &Gateway) -> Value {
    serde_json::from_slice(&fs::read(gateway.own("overrides.json")).unwrap()).unwrap()
}

/// Leaves a gateway as it is before its last change is confirmed: `before` is the record from before it.
fn cut_off(gateway: &Gateway, mut before: Value) {
    let after = record(gateway);
    before["pending"] = after["overrides"].clone();
    before["pending_requests"] = after.get("requests").cloned().unwrap_or_else(|| json!({}));
    fs::write(gateway.own("overrides.json"), before.to_string()).unwrap();
}

/// A gateway whose last change, of `shop`, was cut off after the file was replaced.
async fn plain() -> Gateway {
    let gateway = Gateway::new(TWO);
    gateway.routes().apply(&changes("mine", &[("mail", Some("http://127.0.0.1:1"))])).await.unwrap();
    let before = record(&gateway);
    gateway.routes().apply(&changes("pay", &[("shop", Some("http://127.0.0.1:2"))])).await.unwrap();
    cut_off(&gateway, before);
    gateway
}

#[tokio::test]
async fn cut_off_after_the_file_was_replaced_the_change_is_made() {
    let gateway = plain().await;
    let table = gateway.routes().table().await.unwrap();
    let shop = table.get(&"shop".parse().unwrap()).unwrap();
    assert_eq!((shop.origin, shop.owner.as_ref().map(ToString::to_string)), (RouteOrigin::Sandbox, Some("pay".into())));
    // The next change builds on it, confirms it, and takes it for no drift.
    let table = gateway.routes().apply(&RouteChanges::default()).await.unwrap();
    assert!(table.warnings.is_empty(), "{:?}", table.warnings);
    assert!(gateway.text().contains("127.0.0.1:1") && gateway.text().contains("127.0.0.1:2"));
    assert!(!fs::read_to_string(gateway.own("overrides.json")).unwrap().contains("pending"));
}

#[tokio::test]
async fn cut_off_before_the_file_was_replaced_the_change_is_not_made() {
    let gateway = plain().await;
    // The file as it was before: only the first change is in it.
    fs::write(gateway.config(), TWO.replace("'http://mail'", "'http://127.0.0.1:1'")).unwrap();
    let table = gateway.routes().table().await.unwrap();
    let origin = |service: &str| table.get(&service.parse().unwrap()).unwrap().origin;
    assert_eq!((origin("shop"), origin("mail")), (RouteOrigin::Ocp, RouteOrigin::Sandbox));
    let table = gateway.routes().apply(&RouteChanges::default()).await.unwrap();
    assert!(table.warnings.is_empty(), "{:?}", table.warnings);
    assert_eq!(table.get(&"shop".parse().unwrap()).unwrap().owner, None);
}

/// A gateway that routes per request, whose last change was cut off after the files were replaced, and the table as it
/// was before.
async fn per_request() -> (Gateway, Vec<u8>) {
    let gateway = Gateway::per_request(TWO);
    let mine = requests("mine", Some(&[("mail", "http://127.0.0.1:1")]));
    gateway.routes().apply(&mine).await.unwrap();
    let (before, table) = (record(&gateway), fs::read(gateway.own("routes.php")).unwrap());
    gateway.routes().apply(&requests("pay", Some(&[("shop", "http://127.0.0.1:2")]))).await.unwrap();
    cut_off(&gateway, before);
    (gateway, table)
}

/// Tells that it was called and never returns: the process dies here.
#[derive(Debug)]
struct DiesHere(mpsc::Sender<()>);

#[async_trait]
impl Reload for DiesHere {
    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        self.0.send(()).unwrap();
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_change_whose_process_dies_while_the_gateway_is_reloaded_is_made() {
    let gateway = tokio::task::spawn_blocking(|| {
        let gateway = Gateway::new(TWO);
        let (called, was_called) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let routes = gateway.routes_with(gateway.settings(), DiesHere(called));
        runtime.spawn(async move { routes.apply(&changes("pay", &[("shop", Some("http://127.0.0.1:2"))])).await });
        was_called.recv().unwrap();
        gateway
    });
    let gateway = gateway.await.unwrap();
    let table = gateway.routes().apply(&RouteChanges::default()).await.unwrap();
    assert!(table.warnings.is_empty(), "{:?}", table.warnings);
    assert_eq!(table.get(&"shop".parse().unwrap()).unwrap().origin, RouteOrigin::Sandbox);
}

#[tokio::test]
async fn routes_per_request_that_were_cut_off_are_set_or_not() {
    for replaced in [true, false] {
        let (gateway, before) = per_request().await;
        if !replaced {
            fs::write(gateway.own("routes.php"), before).unwrap();
        }
        let sandboxes = |table: &RouteTable| table.requests.keys().map(ToString::to_string).collect::<Vec<_>>();
        let expected = if replaced { vec!["mine", "pay"] } else { vec!["mine"] };
        let table = gateway.routes().table().await.unwrap();
        assert_eq!(sandboxes(&table), expected);
        assert!(table.per_request && table.warnings.is_empty(), "{:?}", table.warnings);
        let table = gateway.routes().apply(&RouteChanges::default()).await.unwrap();
        assert_eq!(sandboxes(&table), expected);
        assert!(table.warnings.is_empty(), "{:?}", table.warnings);
        assert!(!fs::read_to_string(gateway.own("overrides.json")).unwrap().contains("pending"));
    }
}

#[tokio::test]
async fn a_switch_to_routing_per_request_that_was_cut_off_is_no_drift() {
    let gateway = Gateway::new(TWO);
    gateway.routes().apply(&changes("mine", &[("mail", Some("http://127.0.0.1:1"))])).await.unwrap();
    gateway.per_request.store(true, Ordering::Relaxed);
    // The table is there and the configuration is not wrapped yet.
    let whole = Gateway::per_request(TWO);
    whole.routes().apply(&changes("mine", &[("mail", Some("http://127.0.0.1:1"))])).await.unwrap();
    for name in ["request.php", "routes.php"] {
        fs::copy(whole.own(name), gateway.own(name)).unwrap();
    }
    let table = gateway.routes().table().await.unwrap();
    assert!(!table.per_request);
    assert_eq!(table.get(&"mail".parse().unwrap()).unwrap().origin, RouteOrigin::Sandbox);
    let table = gateway.routes().apply(&RouteChanges::default()).await.unwrap();
    assert!(table.per_request && table.warnings.is_empty(), "{:?}", table.warnings);
    assert_eq!(gateway.text(), whole.text());
}

#[tokio::test]
async fn what_a_killed_process_left_is_removed_by_the_next_change() {
    let gateway = Gateway::new(TWO);
    fs::create_dir(gateway.root().join(".sdp")).unwrap();
    let beside = gateway.config().with_file_name(".ht-sdp-0123");
    for path in [gateway.own(".ht-sdp-0123"), gateway.own("probe-0123.php"), beside] {
        fs::write(path, "half").unwrap();
    }
    gateway.routes().apply(&RouteChanges::default()).await.unwrap();
    assert_eq!(gateway.files(), [".sdp/lock", ".sdp/overrides.json", crate::fixture::CONFIG]);
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_a_whole_change() {
    let gateway = Gateway::new(TWO);
    let routes = gateway.routes();
    let change = changes("pay", &[("shop", Some("http://127.0.0.1:2"))]);
    {
        let apply = routes.apply(&change);
        tokio::pin!(apply);
        // One poll starts it, and then it is dropped.
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(apply.as_mut().poll(cx))).await.is_pending());
    }
    // The next change waits for the lock, so it comes after.
    loop {
        tokio::task::yield_now().await;
        let table = routes.apply(&RouteChanges::default()).await.unwrap();
        if table.get(&"shop".parse().unwrap()).unwrap().origin == RouteOrigin::Sandbox {
            break;
        }
    }
}
