//! The life of sandboxes on real parts: from a template, cloned, asleep and awake, expired, and nothing left; also
//! when an agent is away at the end.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;

use sdp_core::{Deployment, DeploymentState, RepoName, SandboxState, api::SandboxDetail};
use sdp_examples::{
    api::Api,
    content::{FEATURE, GATEWAY, SERVICE, SERVICES},
    playground::{Options, Playground, Runner},
    story, traces,
    wait::eventually,
};
use serde_json::{Value, json};

const SETTINGS: &str = "[sandboxes]\nupkeep = \"100ms\"\n[agents]\nreconcile = \"200ms\"\n";

async fn detail(api: &Api, sandbox: &str) -> Option<SandboxDetail> {
    api.get(&format!("/api/sandboxes/{sandbox}")).await.ok()
}

async fn gone(api: &Api, sandbox: &str) {
    eventually("the sandbox's end", async || detail(api, sandbox).await.is_none().then_some(())).await.unwrap();
}

async fn ask(deployment: &Deployment) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(deployment.url.as_deref().unwrap()).send().await.unwrap().text().await.unwrap()
}

/// Asserts that nothing of a sandbox is left but its history.
async fn nothing_is_left(playground: &Playground, api: &Api, sandbox: &str, was: &BTreeMap<RepoName, Deployment>) {
    let was: Vec<_> = was.values().cloned().collect();
    let traces = traces::of_sandbox(playground, &sandbox.parse().unwrap(), None, &was).await.unwrap();
    assert!(traces.is_empty(), "{traces:?}");
    for deployment in was {
        let ended = api.deployment(deployment.id).await.unwrap().state;
        assert_eq!(ended, DeploymentState::Stopped, "its history stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_lives_from_its_template_to_its_end_and_leaves_nothing() {
    let options = Options { server_settings: SETTINGS.into(), ..Options::new(Runner::Process) };
    let mut playground = Playground::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    let api = playground.sign_in().await.unwrap();
    story::deploy(&api, None, GATEWAY, "main", &mut Vec::new()).await.unwrap();
    let stable = playground.ask_gateway(SERVICE).await.unwrap();
    let service: RepoName = SERVICE.parse().unwrap();

    let template = json!({
        "name": "shop",
        "services": SERVICES.map(|repo| json!({ "repo": repo, "branch": FEATURE })),
        "routes": { SERVICE: "sandbox" },
        "expires_in": "1h",
    });
    api.post::<_, Value>("/api/templates", &template).await.unwrap();
    api.post::<_, Value>("/api/sandboxes", &json!({ "name": "pay", "template": "shop" })).await.unwrap();
    let pay = story::deploy_all(&api, "pay").await.unwrap();
    let routed = async || playground.ask_gateway(SERVICE).await.ok().filter(|answer| answer.contains(FEATURE));
    eventually("the route that the template wants", routed).await.unwrap();

    let body = json!({ "name": "ship", "clone_of": "pay", "branches": { SERVICE: "main" } });
    api.post::<_, Value>("/api/sandboxes", &body).await.unwrap();
    let ship = story::deploy_all(&api, "ship").await.unwrap();
    assert!(ask(&pay[&service]).await.contains(FEATURE) && ask(&ship[&service]).await.contains("\"main\""));
    let held =
        eventually("why the clone has not its route", async || detail(&api, "ship").await?.problem).await.unwrap();
    assert!(held.contains("`pay`"), "{held}");

    api.post::<_, Value>("/api/sandboxes/pay/sleep", &json!({})).await.unwrap();
    assert_eq!(playground.ask_gateway(SERVICE).await.unwrap(), stable, "nobody is sent to what sleeps");
    let instances = playground.deployer("micro").await.unwrap().list().await.unwrap();
    assert_eq!(instances.len(), 4, "what sleeps is kept: {instances:?}");
    let awake: SandboxDetail = api.post("/api/sandboxes/pay/wake", &json!({})).await.unwrap();
    assert_eq!((awake.sandbox.state, awake.problem), (SandboxState::Active, None));
    assert!(awake.deployments.iter().all(|deployment| deployment.state == DeploymentState::Running));
    eventually("the route after the sleep", routed).await.unwrap();

    let soon = json!({ "expires_in": "1ms" });
    api.send::<_, Value>(reqwest::Method::PATCH, "/api/sandboxes/pay", Some(&soon)).await.unwrap();
    gone(&api, "pay").await;
    nothing_is_left(&playground, &api, "pay", &pay).await;
    assert_eq!(playground.ask_gateway(SERVICE).await.unwrap(), stable, "its route is gone");
    assert!(ask(&ship[&service]).await.contains("\"main\""), "the other lives on");

    // The agent is away when the other one's time is over.
    playground.stop_agent("micro").await.unwrap();
    api.send::<_, Value>(reqwest::Method::PATCH, "/api/sandboxes/ship", Some(&soon)).await.unwrap();
    let waiting = async || {
        let ship = detail(&api, "ship").await.filter(|ship| ship.sandbox.state == SandboxState::Deleting)?;
        ship.problem
    };
    let waiting = eventually("what holds its end up", waiting).await.unwrap();
    assert!(waiting.contains("is away"), "{waiting}");
    assert!(ask(&ship[&service]).await.contains("\"main\""), "it runs as long as nobody can stop it");
    playground.start_agent("micro").await.unwrap();
    gone(&api, "ship").await;
    nothing_is_left(&playground, &api, "ship", &ship).await;
    let instances = playground.deployer("micro").await.unwrap().list().await.unwrap();
    assert!(instances.is_empty(), "{instances:?}");
    playground.shutdown().await.unwrap();
}
