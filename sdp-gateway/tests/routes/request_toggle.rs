//! Routes per request that change while a real gateway is asked: no stale table, no request with another's route.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sdp_core::{RouteChanges, RouteError, RouteStore};
use sdp_gateway::GatewayConfig;
use sdp_gateway::reload::{NoReload, Reload, ReloadError, Reloaded};

use crate::apache::Apache;
use crate::asking::{OPCACHE_BLIND, OPCACHE_OFF, THREE, client, get, settings};
use crate::fixture::{Gateway, changes, key, requests};
use crate::server::Server;

#[tokio::test]
async fn an_opcache_that_never_looks_again_gets_every_table_all_the_same() {
    let gateway = Gateway::per_request(THREE);
    let opcache = [&["zend_extension=opcache", "opcache.enable_cli=1"], OPCACHE_BLIND.as_slice()].concat();
    let server = Server::start(&gateway, &opcache);
    fs::write(gateway.root().join("index.php"), crate::apache::PROGRAM).unwrap();
    // Nothing reloads this gateway: what makes it look again is the question that follows a change.
    let routes = gateway.routes_with(settings(&gateway, &server.url), NoReload);
    let client = client();
    let a = key("a").to_string();
    for at in 1..20 {
        let (own, every) = (format!("http://127.0.0.1:{at}/own"), format!("http://127.0.0.1:{at}/every"));
        let mut change = requests("a", Some(&[("shop", &own)]));
        change.services = changes("a", &[("shop", Some(&every))]).services;
        routes.apply(&change).await.unwrap();
        assert_eq!(get(&client, &server.url, &[("x-sdp-sandbox", a.as_bytes())]).await.shop(), own);
        assert_eq!(get(&client, &server.url, &[]).await.shop(), every);
    }
}

#[tokio::test]
async fn a_gateway_that_shows_a_table_at_once_is_not_reloaded_for_it() {
    let gateway = Gateway::per_request(THREE);
    let server = Server::start(&gateway, &[]);
    let counted = Counted::default();
    let routes = gateway.routes_with(settings(&gateway, &server.url), counted.clone());
    let target = |at: usize| requests("a", Some(&[("shop", &format!("http://127.0.0.1:{at}/a"))]));
    routes.apply(&RouteChanges::default()).await.unwrap();
    assert_eq!(counted.reloads(), 1, "its configuration asks for a table now");
    for at in 1..4 {
        let table = routes.apply(&target(at)).await.unwrap();
        assert!(table.warnings.is_empty(), "{:?}", table.warnings);
    }
    assert_eq!(counted.reloads(), 1);
    drop(server);
    routes.apply(&target(4)).await.unwrap();
    assert_eq!(counted.reloads(), 2, "one that does not answer may read it later");
}

#[derive(Debug, Clone, Default)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn reloads(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Reload for Counted {
    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Reloaded::Told)
    }
}

#[tokio::test]
async fn a_gateway_that_reads_another_table_makes_the_change_fail_and_everything_is_put_back() {
    let gateway = Gateway::per_request(THREE);
    let server = Server::start(&gateway, &[]);
    let settings = |gateway: &Gateway| GatewayConfig {
        settle_timeout: Duration::from_millis(300),
        ..settings(gateway, &server.url)
    };
    gateway.per_request.store(false, Ordering::Relaxed);
    gateway.routes_with(settings(&gateway), NoReload).apply(&RouteChanges::default()).await.unwrap();
    let bytes =
        || gateway.files().into_iter().map(|name| (fs::read_to_string(gateway.root().join(&name)).unwrap(), name));
    let before: Vec<_> = bytes().collect();
    gateway.per_request.store(true, Ordering::Relaxed);
    let stale = Stale { table: gateway.own("routes.php"), once: AtomicBool::new(true) };
    let routes = gateway.routes_with(settings(&gateway), stale);
    let error = routes.apply(&requests("a", Some(&[("shop", "http://127.0.0.1:1/a")]))).await.unwrap_err();
    assert!(matches!(&error, RouteError::Reload { reason, .. } if reason.contains("routes.php")), "{error}");
    assert_eq!(bytes().collect::<Vec<_>>(), before);
}

/// Puts another table in the place of the one that was written: what a gateway with a stale cache reads.
#[derive(Debug)]
struct Stale {
    table: PathBuf,
    once: AtomicBool,
}

#[async_trait]
impl Reload for Stale {
    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        if self.once.swap(false, Ordering::Relaxed) {
            let other = "<?php return ['version' => 'other', 'line' => '', 'every' => [], 'sandboxes' => []];";
            fs::write(&self.table, other).unwrap();
        }
        Ok(Reloaded::Told)
    }
}

/// Requests with different keys, from several tasks, while routes toggle: each sees what is its own.
async fn toggling(ini: &[&str]) {
    const EACH: usize = 450;
    let gateway = Gateway::per_request(THREE);
    let apache = Apache::start(&gateway, ini);
    let routes = gateway.routes_with(settings(&gateway, &apache.url), apache.reload());
    let set = |by: &'static str, at: usize| requests(by, Some(&[("shop", &format!("http://127.0.0.1:{at}/{by}"))]));
    for by in ["a", "b", "c", "d"] {
        routes.apply(&set(by, 1)).await.unwrap();
    }
    let running = Arc::new(AtomicBool::new(true));
    let asked = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for by in [Some("a"), Some("b"), Some("c"), Some("d"), None] {
        let (url, running, asked) = (apache.url.clone(), Arc::clone(&running), Arc::clone(&asked));
        clients.spawn(async move {
            let client = client();
            let mut misrouted = Vec::new();
            let mut count = 0;
            while count < EACH || running.load(Ordering::Relaxed) {
                let key = by.map(|by| key(by).to_string());
                let header = key.as_ref().map(|key| ("x-sdp-sandbox", key.as_bytes()));
                let answer = get(&client, &url, header.as_slice()).await;
                let right = match by {
                    Some(by) => {
                        answer.shop().ends_with(&format!("/{by}"))
                            && answer.route.as_ref().unwrap().starts_with(&format!("for=\"{by}\""))
                    }
                    None => {
                        ["http://shop", "http://127.0.0.1:9/all"].contains(&answer.shop())
                            && !answer.route.as_ref().unwrap().contains("for=")
                    }
                };
                if !right {
                    misrouted.push(format!("{by:?}: {answer:?}"));
                }
                count += 1;
                asked.fetch_add(1, Ordering::Relaxed);
            }
            misrouted
        });
    }
    let mut toggles = 0;
    while asked.load(Ordering::Relaxed) < 5 * EACH {
        toggles += 1;
        let by = ["a", "b", "c", "d"][toggles % 4];
        routes.apply(&set(by, 1 + toggles)).await.unwrap();
        let all = (toggles % 2 == 0).then_some("http://127.0.0.1:9/all");
        routes.apply(&changes("e", &[("shop", all)])).await.unwrap();
        // What an apply has answered is what the next request gets.
        let key = key(by).to_string();
        let answer = get(&client(), &apache.url, &[("x-sdp-sandbox", key.as_bytes())]).await;
        assert_eq!(answer.shop(), format!("http://127.0.0.1:{}/{by}", 1 + toggles));
    }
    running.store(false, Ordering::Relaxed);
    let misrouted = clients.join_all().await.concat();
    assert!(misrouted.is_empty(), "{} misrouted, the first: {}", misrouted.len(), misrouted[0]);
    assert!(asked.load(Ordering::Relaxed) >= 2_000 && toggles >= 3, "{asked:?} requests, {toggles} toggles");
    assert_eq!(apache.complaints(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_gets_anothers_route_while_routes_toggle_without_opcache() {
    toggling(&OPCACHE_OFF).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_gets_anothers_route_while_routes_toggle_with_opcache() {
    toggling(&OPCACHE_BLIND).await;
}
