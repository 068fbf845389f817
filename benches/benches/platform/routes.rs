//! Switching a route until the gateway's next answer shows it.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use sdp_benches::{line, median};
use sdp_core::{RouteTarget, api::CreateSandbox};
use sdp_examples::{
    api::Api,
    content::{FEATURE, GATEWAY, SERVICES},
    playground::Playground,
    story,
};
use serde_json::Value;

const SANDBOX: &str = "bench";
/// The gateway's container.
const CONTAINER: &str = "sdp-erangel-ocean";

/// The gateway, and a sandbox with both services.
async fn prepare(playground: &Playground) -> Api {
    let api = playground.sign_in().await.unwrap();
    story::deploy(&api, None, GATEWAY, "main", &mut Vec::new()).await.unwrap();
    let create = CreateSandbox::new(SANDBOX.parse().unwrap());
    api.post::<_, Value>("/api/sandboxes", &create).await.unwrap();
    for service in SERVICES {
        story::deploy(&api, Some(SANDBOX), service, FEATURE, &mut Vec::new()).await.unwrap();
    }
    api
}

/// Asks the gateway until the service answers from the branch.
async fn visible(playground: &Playground, service: &str, branch: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let answer = playground.ask_gateway(service).await;
        if answer.is_ok_and(|answer| serde_json::from_str::<Value>(&answer).unwrap()["branch"] == branch) {
            return;
        }
    }
    panic!("{service} never answered from {branch}");
}

async fn by_hand(playground: &Playground, script: &str, branch: &str) -> Duration {
    let began = Instant::now();
    let (script, dir) = (script.to_owned(), playground.dir().join("repos").join(GATEWAY));
    let work = move || Command::new("sh").args(["-ec", &script]).current_dir(dir).output().unwrap();
    let done = tokio::task::spawn_blocking(work).await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    visible(playground, SERVICES[1], branch).await;
    began.elapsed()
}

async fn switch(playground: &Playground, api: &Api, target: RouteTarget, branch: &str) -> Duration {
    let began = Instant::now();
    api.route(SANDBOX, SERVICES[0], target).await.unwrap();
    visible(playground, SERVICES[0], branch).await;
    began.elapsed()
}

/// Of the shared gateway's own file, whose program has to read it again.
pub(super) async fn switches(playground: &Playground, pairs: usize) {
    let api = prepare(playground).await;
    let running: Value = api.get(&format!("/api/sandboxes/{SANDBOX}")).await.unwrap();
    let deployments = running["deployments"].as_array().unwrap().iter();
    let url = |it: &Value| (it["repo"] == SERVICES[1]).then(|| it["url"].as_str().unwrap().to_owned());
    let own = deployments.filter_map(url).next().unwrap();
    let text =
        std::fs::read_to_string(playground.dir().join("repos").join(GATEWAY).join("application/config/config.php"));
    let stable = text.unwrap().lines().find_map(|line| {
        let (_, value) = line.split_once("$config['illidan_url'] = ")?;
        Some(value.split('"').nth(1)?.to_owned())
    });
    let stable = stable.unwrap();
    let sed = |url: &str| {
        format!(
            "sed -i \"s#^\\$config\\['illidan_url'\\].*#\\$config['illidan_url'] = '{url}';#\" application/config/config.php"
        )
    };
    let (mut ours, mut signal, mut graceful) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..pairs {
        let (target, url, branch) = match round % 2 {
            0 => (RouteTarget::Sandbox, &own, FEATURE),
            _ => (RouteTarget::Ocp, &stable, "main"),
        };
        ours.push(switch(playground, &api, target, branch).await);
        signal.push(by_hand(playground, &format!("{}\ndocker kill -s USR1 {CONTAINER}", sed(url)), branch).await);
        let other = if branch == "main" { (&own, FEATURE) } else { (&stable, "main") };
        let script = format!("{}\ndocker exec {CONTAINER} apachectl graceful", sed(other.0));
        graceful.push(by_hand(playground, &script, other.1).await);
    }
    let ours = median(ours);
    println!("{}", line("switch a route, seen at the gateway", ours, "sed + SIGUSR1", median(signal)));
    println!("{}", line("", ours, "sed + apachectl graceful", median(graceful)));
}

/// Of a gateway that routes per request, whose program reads one small file on each.
pub(super) async fn toggles(playground: &Playground, pairs: usize) {
    let api = prepare(playground).await;
    let (mut asked, mut seen) = (Vec::new(), Vec::new());
    for round in 0..pairs {
        let (target, branch) =
            if round % 2 == 0 { (RouteTarget::Sandbox, FEATURE) } else { (RouteTarget::Ocp, "main") };
        let began = Instant::now();
        api.route(SANDBOX, SERVICES[0], target).await.unwrap();
        asked.push(began.elapsed());
        visible(playground, SERVICES[0], branch).await;
        seen.push(began.elapsed());
    }
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    println!(
        "switch a route where the gateway routes per request: {:.1} ms until the API answers, {:.1} ms until the gateway's \
         next answer shows it",
        ms(median(asked)),
        ms(median(seen))
    );
}
