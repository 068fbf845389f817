//! Routing per request with real Apache and PHP: what a request with and without a key really gets.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use reqwest::Client;
use sdp_core::{Explanation, RouteChanges, RouteError, RouteQuestion, RouteStore};
use sdp_gateway::GatewayConfig;
use sdp_gateway::reload::{NoReload, Reload, ReloadError, Reloaded};
use serde::Deserialize;
use url::Url;

use crate::apache::Apache;
use crate::fixture::{Gateway, changes, key, requests};
use crate::server::Server;

const THREE: &str = "<?php\n$config['shop_url'] = 'http://shop';\n$config['mail_url'] = rtrim('http://mail/', '/');\n\
                     $config['pay_url'] = getenv('NO_SUCH') ?: 'http://pay';\n";

/// A cache that is on, and never looks whether a file has changed.
const OPCACHE_BLIND: [&str; 3] =
    ["opcache.enable=1", "opcache.validate_timestamps=0", "opcache.file_update_protection=0"];

const OPCACHE_OFF: [&str; 1] = ["opcache.enable=0"];

/// What the gateway's program answered.
#[derive(Debug, Deserialize)]
struct Answer {
    config: BTreeMap<String, String>,
    told: Vec<String>,
    headers: Option<Vec<String>>,
    #[serde(skip)]
    route: Option<String>,
}

impl Answer {
    fn shop(&self) -> &str {
        &self.config["shop_url"]
    }
}

/// A client whose every request is on a connection of its own.
fn client() -> Client {
    Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(Duration::from_secs(20)).build().unwrap()
}

async fn get(client: &Client, url: &Url, headers: &[(&str, &[u8])]) -> Answer {
    let mut request = client.get(url.clone());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let route = response.headers().get("x-sdp-route").map(|value| value.to_str().unwrap().to_owned());
    let body = response.bytes().await.unwrap();
    let answer: Answer = serde_json::from_slice(&body)
        .unwrap_or_else(|error| panic!("{error}: {headers:?}: {}", String::from_utf8_lossy(&body)));
    assert_eq!(answer.told, [""; 0], "{headers:?}");
    Answer { route, ..answer }
}

fn settings(gateway: &Gateway, url: &Url) -> GatewayConfig {
    GatewayConfig { url: Some(url.clone()), ..gateway.settings() }
}

#[tokio::test]
async fn header_cookie_and_baggage_choose_in_that_order_and_everybody_else_sees_what_is_for_all() {
    let gateway = Gateway::per_request(THREE);
    let apache = Apache::start(&gateway, &OPCACHE_OFF);
    let routes = gateway.routes_with(settings(&gateway, &apache.url), apache.reload());
    routes.apply(&requests("a", Some(&[("shop", "http://127.0.0.1:1/a")]))).await.unwrap();
    routes.apply(&requests("b", Some(&[("shop", "http://127.0.0.1:1/b")]))).await.unwrap();
    let table = routes.apply(&changes("c", &[("mail", Some("http://127.0.0.1:1/c"))])).await.unwrap();
    assert!(table.warnings.is_empty(), "{:?}", table.warnings);
    let effective = |service: &str| table.get(&service.parse().unwrap()).unwrap().effective.clone();
    assert_eq!(effective("shop").as_deref(), Some("http://shop"), "asked without a key");
    assert_eq!(effective("mail").as_deref(), Some("http://127.0.0.1:1/c"));

    let client = client();
    let (a, b) = (key("a").to_string(), key("b").to_string());
    let cookie = |key: &str| format!("x=1; sdp-sandbox={key}; y=2").into_bytes();
    let baggage = |key: &str| format!("user=1;p=2 , sdp-sandbox = {key} ;p=1,z=3").into_bytes();
    let (a_cookie, b_cookie, b_baggage) = (cookie(&a), cookie(&b), baggage(&b));
    for (headers, shop, route) in [
        (vec![], "http://shop", "override=(mail), default=2".to_owned()),
        (vec![("x-sdp-sandbox", a.as_bytes())], "http://127.0.0.1:1/a", of("a", "header")),
        (vec![("cookie", a_cookie.as_slice())], "http://127.0.0.1:1/a", of("a", "cookie")),
        (vec![("baggage", b_baggage.as_slice())], "http://127.0.0.1:1/b", of("b", "baggage")),
        (vec![("cookie", &a_cookie), ("baggage", &b_baggage)], "http://127.0.0.1:1/a", of("a", "cookie")),
        (vec![("x-sdp-sandbox", a.as_bytes()), ("cookie", &b_cookie)], "http://127.0.0.1:1/a", of("a", "header")),
    ] {
        let answer = get(&client, &apache.url, &headers).await;
        assert_eq!(answer.shop(), shop, "{headers:?}");
        assert_eq!(answer.config["mail_url"], "http://127.0.0.1:1/c");
        assert_eq!(answer.config["pay_url"], "http://pay");
        assert_eq!(answer.route, Some(route), "{headers:?}");
        let passed_on = answer.headers.unwrap();
        assert_eq!(passed_on.is_empty(), headers.is_empty());
    }
    assert_eq!(apache.complaints(), [""; 0]);
}

fn of(sandbox: &str, carrier: &str) -> String {
    format!("for=\"{sandbox}\";from={carrier}, sandbox=(shop), override=(mail), default=1")
}

#[tokio::test]
async fn forged_keys_are_harmless() {
    let gateway = Gateway::per_request(THREE);
    let apache = Apache::start(&gateway, &OPCACHE_OFF);
    let routes = gateway.routes_with(settings(&gateway, &apache.url), apache.reload());
    routes.apply(&requests("a", Some(&[("shop", "http://127.0.0.1:1/a")]))).await.unwrap();
    let table = fs::read(gateway.own("routes.php")).unwrap();
    let a = key("a").to_string();
    let huge = "x".repeat(7000);
    let forged: Vec<Vec<u8>> = vec![
        b"a".to_vec(),
        b"0".to_vec(),
        b"'); system('id'); //".to_vec(),
        b"../../etc/passwd".to_vec(),
        b"a\xff\xfe\x80".to_vec(),
        b"%00%0d%0aSet-Cookie:%20x=1".to_vec(),
        b"name".to_vec(),
        format!("{a}x").into_bytes(),
        format!("{a},{a}").into_bytes(),
        a.to_uppercase().into_bytes(),
        huge.into_bytes(),
    ];
    let client = client();
    for key in &forged {
        let member = |prefix: &str| [prefix.as_bytes(), key].concat();
        for (name, value) in
            [("x-sdp-sandbox", key.clone()), ("cookie", member("sdp-sandbox=")), ("baggage", member("sdp-sandbox="))]
        {
            // A comma ends a member of baggage, so that what is left may be the key.
            let left = name == "baggage" && value.windows(a.len() + 1).any(|part| part == format!("{a},").as_bytes());
            let answer = get(&client, &apache.url, &[(name, &value)]).await;
            assert_eq!(answer.shop(), if left { "http://127.0.0.1:1/a" } else { "http://shop" }, "{name}: {key:?}");
            let route = answer.route.unwrap();
            assert!(left || route.starts_with("for=?0;from="), "{route}");
            assert!(route.len() < 1000);
            assert_eq!(answer.headers.unwrap().is_empty(), !left);
        }
    }
    for cookie in ["sdp-sandbox[]=x", "sdp-sandbox[a][b]=x", "sdp-sandbox", "sdp-sandbox=", "=sdp-sandbox"] {
        let answer = get(&client, &apache.url, &[("cookie", cookie.as_bytes())]).await;
        assert_eq!((answer.shop(), answer.route.as_deref()), ("http://shop", Some("default=3")), "{cookie}");
    }
    assert_eq!(fs::read(gateway.own("routes.php")).unwrap(), table);
    assert_eq!(apache.complaints(), [""; 0]);
}

#[tokio::test]
async fn a_table_that_is_gone_or_broken_leaves_the_branchs_defaults_and_no_complaint() {
    let gateway = Gateway::per_request(THREE);
    let server = Server::start(&gateway, &["display_errors=1", "error_reporting=-1"]);
    fs::write(gateway.root().join("index.php"), crate::apache::PROGRAM).unwrap();
    let routes = gateway.routes_with(settings(&gateway, &server.url), NoReload);
    routes.apply(&changes("c", &[("mail", Some("http://127.0.0.1:1/c"))])).await.unwrap();
    routes.apply(&requests("a", Some(&[("shop", "http://127.0.0.1:1/a")]))).await.unwrap();
    let client = client();
    let a = key("a").to_string();
    let with_key = [("x-sdp-sandbox", a.as_bytes())];
    assert_eq!(get(&client, &server.url, &with_key).await.shop(), "http://127.0.0.1:1/a");
    let whole = fs::read(gateway.own("routes.php")).unwrap();
    for name in ["routes.php", "request.php"] {
        let path = gateway.own(name);
        let whole = fs::read(&path).unwrap();
        let half = &whole[..whole.len() / 2];
        let damages: [Option<&[u8]>; 9] = [
            None,
            Some(b""),
            Some(half),
            Some(b"<?php return 7;"),
            Some(b"<?php return ['version' => 1, 'line' => [], 'every' => 3, 'sandboxes' => null];"),
            Some(b"<?php throw new Exception('x');"),
            Some(b"<?php this is no PHP"),
            Some(b"<?php return undefined_function();"),
            Some(b"<?php"),
        ];
        for damage in damages {
            match damage {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let answer = get(&client, &server.url, &with_key).await;
            assert_eq!(
                (answer.shop(), answer.config["mail_url"].as_str()),
                ("http://shop", "http://mail"),
                "{damage:?}"
            );
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(get(&client, &server.url, &with_key).await.shop(), "http://127.0.0.1:1/a");
    }
    // No PHP at all: nothing of it is printed.
    fs::write(gateway.own("routes.php"), "\0\0\0 not PHP").unwrap();
    assert_eq!(get(&client, &server.url, &with_key).await.shop(), "http://shop");
    // A directory in its place.
    fs::remove_file(gateway.own("routes.php")).unwrap();
    fs::create_dir(gateway.own("routes.php")).unwrap();
    assert_eq!(get(&client, &server.url, &with_key).await.shop(), "http://shop");
    fs::remove_dir(gateway.own("routes.php")).unwrap();
    fs::write(gateway.own("routes.php"), whole).unwrap();
}

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
async fn a_gateway_that_reads_another_table_makes_the_change_fail_and_everything_is_put_back() {
    let gateway = Gateway::per_request(THREE);
    let server = Server::start(&gateway, &[]);
    let settings = GatewayConfig { settle_timeout: Duration::from_millis(300), ..settings(&gateway, &server.url) };
    gateway.routes_with(settings.clone(), NoReload).apply(&RouteChanges::default()).await.unwrap();
    let bytes =
        || gateway.files().into_iter().map(|name| (fs::read_to_string(gateway.root().join(&name)).unwrap(), name));
    let before: Vec<_> = bytes().collect();
    let table = gateway.own("routes.php");
    let stale = Stale { bytes: fs::read(&table).unwrap(), table, once: AtomicBool::new(true) };
    let routes = gateway.routes_with(settings, stale);
    let error = routes.apply(&requests("a", Some(&[("shop", "http://127.0.0.1:1/a")]))).await.unwrap_err();
    assert!(matches!(&error, RouteError::Reload { reason, .. } if reason.contains("routes.php")), "{error}");
    assert_eq!(bytes().collect::<Vec<_>>(), before);
}

/// Puts an earlier table back when it is first asked to reload: what a gateway with a stale cache reads.
#[derive(Debug)]
struct Stale {
    table: PathBuf,
    bytes: Vec<u8>,
    once: AtomicBool,
}

#[async_trait]
impl Reload for Stale {
    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        if self.once.swap(false, Ordering::Relaxed) {
            fs::write(&self.table, &self.bytes).unwrap();
        }
        Ok(Reloaded::Told)
    }
}

/// A service that answers each request with the headers it got, one connection at a time.
fn echo() -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut head = String::new();
            let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
            while let Some(line) = lines.next().and_then(Result::ok).filter(|line| !line.is_empty()) {
                head += &format!("{line}\n");
            }
            let _ = write!(connection, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
        }
    });
    url
}

#[tokio::test]
async fn the_key_is_passed_on_to_services_that_know_nothing_of_it_and_only_a_known_one() {
    let gateway = Gateway::per_request(THREE);
    let server = Server::start(&gateway, &["display_errors=1", "error_reporting=-1"]);
    let service = echo();
    let calls = format!(
        r#"<?php
stream_context_set_default(['http' => ['header' => "X-Own: 1\r\nX-Other: 2\r\n", 'timeout' => 5]]);
include __DIR__ . '/application/config/config.php';
echo file_get_contents('{service}'), "--\n";
$mine = array_merge(['X-Mine: 3'], defined('SDP_HEADERS') ? SDP_HEADERS : []);
echo file_get_contents('{service}', false, stream_context_create(['http' => ['header' => $mine]]));
"#
    );
    fs::write(gateway.root().join("calls.php"), calls).unwrap();
    let routes = gateway.routes_with(settings(&gateway, &server.url), NoReload);
    routes.apply(&requests("a", Some(&[("shop", service.as_str())]))).await.unwrap();
    let a = key("a").to_string();
    let url = server.url.join("calls.php").unwrap();
    let ask = async |key: Option<&str>| {
        let request = client().get(url.clone());
        let request = key.into_iter().fold(request, |request, key| request.header("x-sdp-sandbox", key));
        request.send().await.unwrap().text().await.unwrap()
    };
    let told = ask(Some(&a)).await;
    let (by_default, explicit) = told.split_once("--\n").unwrap();
    let carried = [format!("X-SDP-Sandbox: {a}\n"), format!("baggage: sdp-sandbox={a}\n")];
    for line in ["X-Own: 1\n", "X-Other: 2\n"].map(str::to_owned).iter().chain(&carried) {
        assert!(by_default.contains(line), "{line} in {told}");
    }
    assert!(explicit.contains("X-Mine: 3\n") && carried.iter().all(|line| explicit.contains(line)), "{told}");
    for key in [None, Some("a-77777777"), Some("evil\tX")] {
        let told = ask(key).await;
        assert!(told.contains("X-Own: 1\n") && told.contains("X-Mine: 3\n"), "{told}");
        assert!(!told.to_lowercase().contains("sdp-sandbox"), "{told}");
    }
}

#[tokio::test]
async fn a_program_without_a_request_works_and_may_name_a_key_in_its_environment() {
    let gateway = Gateway::per_request(THREE);
    gateway.routes().apply(&requests("a", Some(&[("shop", "http://127.0.0.1:1/a")]))).await.unwrap();
    // Output has begun, so that no header can be sent any more.
    let code = format!("echo \"begun\\n\"; include '{}'; echo $config['shop_url'];", gateway.config().display());
    for (environment, shop) in [
        (None, "http://shop"),
        (Some(key("a").to_string()), "http://127.0.0.1:1/a"),
        (Some("a-77777777".to_owned()), "http://shop"),
    ] {
        let mut php = Command::new("php");
        php.args(["-n", "-d", "display_errors=1", "-d", "error_reporting=-1", "-r", &code]);
        php.envs(environment.map(|key| ("HTTP_X_SDP_SANDBOX", key)));
        let output = php.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("begun\n{shop}"));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[tokio::test]
async fn an_explanation_says_what_the_gateway_does() {
    let gateway = Gateway::per_request(THREE);
    let server = Server::start(&gateway, &[]);
    fs::write(gateway.root().join("index.php"), crate::apache::PROGRAM).unwrap();
    let routes = gateway.routes_with(settings(&gateway, &server.url), NoReload);
    for by in ["a", "b"] {
        routes.apply(&requests(by, Some(&[("shop", &format!("http://127.0.0.1:1/{by}"))]))).await.unwrap();
    }
    let (a, b) = (key("a").to_string(), key("b").to_string());
    let encoded = a.replace('-', "%2D");
    let keys = ["", &a, &b, "junk", " ", &encoded];
    let cookies: Vec<String> =
        ["sdp-sandbox=@", "x=1; sdp-sandbox=@", "sdp-sandbox=@; sdp-sandbox=junk", "Sdp-Sandbox=@"]
            .iter()
            .flat_map(|form| keys.map(|key| form.replace('@', key)))
            .collect();
    let members =
        ["sdp-sandbox=@", "x=1;p, sdp-sandbox = @ ;p=1", "sdp-sandbox=@,sdp-sandbox=junk", "sdp-sandboxes=@", ",,="];
    let members: Vec<String> = members.iter().flat_map(|form| keys.map(|key| form.replace('@', key))).collect();
    let client = client();
    let rng = &mut TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for _ in 0..300 {
        let mut pick = |from: &[String]| from.get(rng.random_range(0..from.len() * 2)).cloned();
        let header = pick(&keys.map(str::to_owned));
        let (cookie, baggage) = (pick(&cookies), pick(&members));
        let question = RouteQuestion { service: "shop".parse().unwrap(), header, cookie, baggage };
        let parts = [("x-sdp-sandbox", &question.header), ("cookie", &question.cookie), ("baggage", &question.baggage)];
        let headers: Vec<_> =
            parts.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?.as_bytes()))).collect();
        let answer = get(&client, &server.url, &headers).await;
        let table = routes.table().await.unwrap();
        let explained = Explanation::of(&table, &question);
        assert_eq!(explained.target.as_deref(), Some(answer.shop()), "{question:?}");
        let route = match (&explained.sandbox, explained.carrier) {
            (Some(sandbox), Some(carrier)) => format!("for=\"{sandbox}\";from={carrier:?}, sandbox=(shop), default=2"),
            (None, Some(carrier)) => format!("for=?0;from={carrier:?}, default=3"),
            _ => "default=3".into(),
        };
        assert_eq!(answer.route, Some(route.to_lowercase()), "{question:?}");
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
    println!("{} requests, {toggles} toggles, 0 misrouted", asked.load(Ordering::Relaxed));
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
