//! What routing per request costs a request of a real Apache and PHP. A measurement, not a test: run it with
//! `cargo test -p sdp-gateway --test routes -- --ignored --nocapture cost`.

use std::fs;

use sdp_core::{RouteChanges, RouteStore};

use crate::apache::Apache;
use crate::fixture::{Gateway, key, requests};

/// Requests of each kind, taken in turns.
const ROUNDS: usize = 200;

/// Reads the configuration and says how long that took, in nanoseconds.
const PROGRAM: &str = r#"<?php
$began = hrtime(true);
include __DIR__ . '/application/config/config.php';
$took = hrtime(true) - $began;
echo $took, ' ', count($config), ' ', $config['s0_url'];
"#;

fn config(services: usize) -> String {
    let line = |n: usize| match n % 2 {
        0 => format!("$config['s{n}_url'] = 'http://service{n}.ocp.example';\n"),
        _ => format!("$config['s{n}_url'] = getenv('S{n}') ?: 'http://service{n}.ocp.example'; // stable\n"),
    };
    format!("<?php\n{}", (0..services).map(line).collect::<String>())
}

/// A gateway, and what its requests carry.
struct Kind {
    name: &'static str,
    gateway: Gateway,
    key: Option<String>,
}

async fn kind(name: &'static str, services: usize, per_request: bool, with_key: bool) -> Kind {
    let text = config(services);
    let gateway = if per_request { Gateway::per_request(text) } else { Gateway::new(text) };
    let routes = gateway.routes();
    routes.apply(&RouteChanges::default()).await.unwrap();
    if per_request {
        let own = [("s0", "http://127.0.0.1:1"), ("s1", "http://127.0.0.1:2"), ("s2", "http://127.0.0.1:3")];
        for at in 0..20 {
            routes.apply(&requests(&format!("sandbox{at}"), Some(&own))).await.unwrap();
        }
    }
    Kind { name, gateway, key: with_key.then(|| key("sandbox7").to_string()) }
}

#[tokio::test]
#[ignore = "a measurement of a minute or two"]
async fn cost_of_a_request() {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (opcache, ini) in [("on", ["opcache.enable=1"]), ("off", ["opcache.enable=0"])] {
        for services in [20, 1_000] {
            let kinds = [
                kind("plain", services, false, false).await,
                kind("wrapped, no key", services, true, false).await,
                kind("wrapped, with key", services, true, true).await,
            ];
            let servers: Vec<Apache> = kinds
                .iter()
                .map(|kind| {
                    let apache = Apache::start(&kind.gateway, &ini);
                    fs::write(kind.gateway.root().join("index.php"), PROGRAM).unwrap();
                    apache
                })
                .collect();
            // What OPcache has just seen written it does not keep yet.
            tokio::time::sleep(std::time::Duration::from_secs(3)).await;
            let mut config = vec![Vec::new(); kinds.len()];
            let mut whole = vec![Vec::new(); kinds.len()];
            for round in 0..ROUNDS + 30 {
                for (at, kind) in kinds.iter().enumerate() {
                    let mut request = client.get(servers[at].url.clone());
                    if let Some(key) = &kind.key {
                        request = request.header("x-sdp-sandbox", key);
                    }
                    let began = std::time::Instant::now();
                    let text = request.send().await.unwrap().text().await.unwrap();
                    let took = began.elapsed();
                    let words: Vec<&str> = text.split(' ').collect();
                    assert_eq!(words[1], services.to_string(), "{text}");
                    assert_eq!(words[2].starts_with("http://127"), kind.key.is_some(), "{text}");
                    if round >= 30 {
                        config[at].push(words[0].parse::<u64>().unwrap());
                        whole[at].push(u64::try_from(took.as_nanos()).unwrap());
                    }
                }
            }
            for (at, kind) in kinds.iter().enumerate() {
                let median = |times: &mut Vec<u64>| {
                    times.sort_unstable();
                    times[times.len() / 2] / 1_000
                };
                println!(
                    "opcache {opcache:3} {services:4} services  {:17} configuration {:6} µs  whole request {:6} µs",
                    kind.name,
                    median(&mut config[at]),
                    median(&mut whole[at])
                );
            }
        }
    }
}
