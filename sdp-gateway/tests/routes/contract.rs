use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use sdp_core::testing::ManualClock;
use sdp_core::testing::conformance::routes::{GatewayFixture, suite};
use sdp_core::{RouteChanges, RouteOrigin, RouteStore};
use sdp_gateway::php::ConfigFile;

use crate::fixture::{Gateway, changes, requests};

/// How the suite's gateways write their configuration.
#[derive(Debug, Clone, Copy)]
enum Style {
    Assigned,
    Returned,
    Defined,
}

struct Fixture {
    gateway: Gateway,
    style: Style,
}

impl Style {
    fn write(self, services: &[(&str, &str)]) -> String {
        let list = |one: &dyn Fn(&str, &str) -> String| -> String {
            services.iter().map(|(service, url)| one(service, url)).collect()
        };
        match self {
            Self::Assigned => {
                "<?php defined('BASEPATH') OR exit('no');\r\n".to_owned()
                    + &list(&|s, u| format!("$config['{s}_url'] = '{u}'; // stable\r\n"))
            }
            Self::Returned => {
                let list = list(&|s, u| format!("  \"{s}_url\" => \"{u}\",\n"));
                format!("\u{feff}<?php\nreturn ['services' => array(\n{list})];\n")
            }
            Self::Defined => {
                "<?php\n".to_owned() + &list(&|s, u| format!("define('{}_URL', <<<'E'\n{u}\nE);\n", s.to_uppercase()))
            }
        }
    }
}

#[async_trait]
impl GatewayFixture for Fixture {
    fn store(&self) -> Box<dyn RouteStore> {
        Box::new(self.gateway.routes())
    }

    async fn switch(&self, branch: &str, services: &[(&str, &str)]) {
        self.gateway.switch_to(branch, self.style.write(services));
    }

    async fn edit_by_hand(&self, service: &str, value: &str) {
        self.gateway.edit_by_hand(service, value);
    }

    async fn is_as_committed(&self) -> bool {
        fs::read(self.gateway.config()).unwrap() == self.gateway.committed()
    }

    async fn switch_fixed(&self, branch: &str, services: &[(&str, &str)], fixed: &str) {
        let (constant, others): (Vec<_>, Vec<_>) = services.iter().copied().partition(|(service, _)| *service == fixed);
        let text = self.style.write(&others);
        let (open, rest) = text.split_once('\n').unwrap();
        let constant = format!("const {}_URL = '{}';\n", fixed.to_uppercase(), constant[0].1);
        self.gateway.switch_to(branch, format!("{open}\n{constant}{rest}"));
    }

    async fn route_per_request(&self, on: bool) {
        self.gateway.per_request.store(on, Ordering::Relaxed);
    }

    fn clock(&self) -> ManualClock {
        self.gateway.clock.clone()
    }
}

#[tokio::test]
async fn the_contract_is_kept_in_every_style() {
    for style in [Style::Assigned, Style::Returned, Style::Defined] {
        suite(&Fixture { gateway: Gateway::new("<?php\n"), style }).await;
    }
}

fn numbered(count: usize) -> (Gateway, Vec<String>) {
    let services: Vec<String> = (0..count).map(|at| format!("s{at}")).collect();
    let lines: String = services.iter().map(|s| format!("$config['{s}_url'] = 'http://{s}.example';\n")).collect();
    (Gateway::new(format!("<?php\n{lines}")), services)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_parallel_changes_none_is_lost_and_no_reader_sees_half() {
    parallel_changes(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_parallel_changes_per_request_none_is_lost_and_no_reader_sees_half() {
    parallel_changes(true).await;
}

async fn parallel_changes(per_request: bool) {
    let (gateway, services) = numbered(24);
    gateway.per_request.store(per_request, Ordering::Relaxed);
    gateway.routes().apply(&RouteChanges::default()).await.unwrap();
    let readers = tokio::task::JoinSet::from_iter((0..3).map(|_| {
        let (config, routes) = (gateway.config(), gateway.routes());
        async move {
            for _ in 0..60 {
                let file = ConfigFile::parse(fs::read(&config).unwrap()).unwrap();
                assert_eq!(file.entries().count(), 24);
                let table = routes.table().await.unwrap();
                assert!(table.warnings.is_empty(), "{:?}", table.warnings);
                let drifted: Vec<_> = table.routes.iter().filter(|r| r.origin == RouteOrigin::Drifted).collect();
                assert!(drifted.is_empty(), "{drifted:?}");
            }
        }
    }));
    // Each on a store of its own: the lock is the file's, not the object's.
    let writers = tokio::task::JoinSet::from_iter(services.iter().map(|service| {
        let (routes, service) = (gateway.routes(), service.clone());
        async move {
            let by = format!("of-{service}");
            let mut set = changes(&by, &[(&service, Some("http://127.0.0.1:9"))]);
            if per_request {
                set.requests = requests(&by, Some(&[(&service, "http://127.0.0.1:8")])).requests;
            }
            routes.apply(&set).await.unwrap();
        }
    }));
    writers.join_all().await;
    readers.join_all().await;
    let table = gateway.routes().table().await.unwrap();
    for (route, owner) in table.routes.iter().map(|route| (route, route.owner.as_ref().unwrap().to_string())) {
        assert_eq!((route.origin, owner), (RouteOrigin::Sandbox, format!("of-{}", route.service)));
    }
    assert_eq!((table.per_request, table.requests.len()), (per_request, if per_request { 24 } else { 0 }));
    let own: &[&str] = if per_request { &[".sdp/request.php", ".sdp/routes.php"] } else { &[] };
    assert_eq!(gateway.files(), [&[".sdp/lock", ".sdp/overrides.json"], own, &[crate::fixture::CONFIG]].concat());
}

#[tokio::test]
async fn an_expression_is_replaced_whole_and_put_back_exactly() {
    let committed = "<?php\n$config['shop_url'] = getenv('SHOP') /* env */ ?: 'http://shop'; // stable\n";
    let gateway = Gateway::new(committed);
    let routes = gateway.routes();
    let table = routes.table().await.unwrap();
    assert_eq!(table.routes[0].value, "getenv('SHOP') /* env */ ?: 'http://shop'");
    assert!(table.routes[0].expression);
    let table = routes.apply(&changes("pay", &[("shop", Some("http://127.0.0.1:1"))])).await.unwrap();
    assert_eq!(gateway.text(), "<?php\n$config['shop_url'] = 'http://127.0.0.1:1'; // stable\n");
    assert_eq!(table.routes[0].default, "getenv('SHOP') /* env */ ?: 'http://shop'");
    assert!(!table.routes[0].expression);
    routes.apply(&changes("pay", &[("shop", None)])).await.unwrap();
    assert_eq!(gateway.text(), committed);
}

#[tokio::test]
async fn a_restored_file_is_newer_than_the_one_it_replaces() {
    let (gateway, _) = numbered(1);
    let routes = gateway.routes();
    let modified = || fs::metadata(gateway.config()).unwrap().modified().unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    routes.apply(&changes("pay", &[("s0", Some("http://127.0.0.1:1"))])).await.unwrap();
    fs::File::open(gateway.config()).unwrap().set_modified(old).unwrap();
    routes.apply(&changes("pay", &[("s0", None)])).await.unwrap();
    assert!(modified() > old + std::time::Duration::from_secs(3000));
}

#[tokio::test]
async fn a_hand_edited_file_is_kept_as_a_copy_and_told() {
    let (gateway, _) = numbered(2);
    let routes = gateway.routes();
    gateway.edit_by_hand("s0", "http://by.hand");
    // It may hold passwords: the copy is for the same eyes.
    fs::set_permissions(gateway.config(), fs::Permissions::from_mode(0o640)).unwrap();
    let edited = gateway.text();
    let table = routes.apply(&changes("pay", &[("s1", Some("http://127.0.0.1:1"))])).await.unwrap();
    let copy = gateway.files().into_iter().find(|name| name.starts_with(".sdp/drifted-")).unwrap();
    assert_eq!(fs::read_to_string(gateway.root().join(&copy)).unwrap(), edited);
    assert_eq!(fs::metadata(gateway.root().join(&copy)).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(table.warnings.iter().any(|warning| warning.contains(&copy)), "{:?}", table.warnings);
    // What SDP wrote itself and what a switch brings are no drift.
    routes.apply(&changes("pay", &[("s1", None)])).await.unwrap();
    gateway.switch_to("other", "<?php $config['s1_url'] = 'x';");
    routes.apply(&RouteChanges::default()).await.unwrap();
    assert_eq!(gateway.files().iter().filter(|name| name.contains("drifted")).count(), 1);
}

#[tokio::test]
async fn defaults_are_kept_per_branch_with_source_and_value() {
    let gateway = Gateway::new("<?php $config['a_url'] = 'http://a'; $config['b_url'] = BASE . '/b';");
    let routes = gateway.routes();
    // Taken from the commit, not from the file.
    routes.apply(&changes("pay", &[("a", Some("http://127.0.0.1:1"))])).await.unwrap();
    let defaults = routes.snapshot(&"main".parse().unwrap()).await.unwrap();
    assert_eq!(defaults.services[&"a".parse().unwrap()], "http://a");
    gateway.switch_to("feature/x", "<?php return ['a_url' => \"http://x\"];");
    routes.snapshot(&"feature/x".parse().unwrap()).await.unwrap();
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(gateway.own("ocp-defaults.json")).unwrap()).unwrap();
    let branches = &kept["branches"];
    assert_eq!(branches["main"]["services"]["b"]["source"], "BASE . '/b'");
    assert_eq!(branches["main"]["services"]["b"].get("value"), None);
    assert_eq!(branches["feature/x"]["services"]["a"]["source"], "\"http://x\"");
    assert_eq!(branches["feature/x"]["services"]["a"]["value"], "http://x");
    assert_eq!(branches["main"]["commit"], "0123456789abcdef0123456789abcdef01234567");
    assert!(branches["main"]["at"].is_string());
}
