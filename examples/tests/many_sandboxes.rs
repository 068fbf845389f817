//! Many sandboxes on one gateway: each reached by its key, a fight over what everybody sees, a gateway of one's own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::time::Duration;

use reqwest::Method;
use sdp_core::api::{CreateSandbox, routing::SandboxRouting};
use sdp_examples::{
    api::Api,
    content::{FEATURE, GATEWAY, SERVICE, commit_service},
    playground::{Options, Playground, Runner},
    story,
    wait::until,
};
use serde_json::{Value, json};

struct Stage {
    playground: Playground,
    api: Api,
}

impl Stage {
    async fn sandbox(&self, name: &str, branch: &str) -> SandboxRouting {
        let create = CreateSandbox::new(name.parse().unwrap());
        self.api.post::<_, Value>("/api/sandboxes", &create).await.unwrap();
        story::deploy(&self.api, Some(name), SERVICE, branch, &mut Vec::new()).await.unwrap();
        self.routing(name).await
    }

    async fn routing(&self, name: &str) -> SandboxRouting {
        let detail: Value = self.api.get(&format!("/api/sandboxes/{name}")).await.unwrap();
        serde_json::from_value(detail).unwrap()
    }

    /// The branch that answers for the service.
    async fn branch(&self, headers: &[(&str, &str)]) -> String {
        branch(&self.playground.ask_gateway_with(SERVICE, headers).await.unwrap())
    }

    async fn until_branch(&self, headers: &[(&str, &str)], wanted: &str) {
        // While an instance is replaced the gateway has nobody to ask.
        let ask = async || self.playground.ask_gateway_with(SERVICE, headers).await.map(|answer| branch(&answer));
        until(wanted, ask, |branch| branch.as_deref().is_ok_and(|branch| branch == wanted)).await.unwrap();
    }

    async fn route(&self, sandbox: &str, body: Value) -> Result<Value, String> {
        let path = format!("/api/sandboxes/{sandbox}/routes/{SERVICE}");
        self.api.send(Method::PUT, &path, Some(&body)).await.map_err(|error| error.to_string())
    }
}

fn branch(answer: &str) -> String {
    serde_json::from_str::<Value>(answer).unwrap()["branch"].as_str().unwrap().into()
}

/// What a gateway of a sandbox's own says.
async fn ask(url: &str) -> Result<String, String> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build().unwrap();
    let answer = client.get(format!("{url}/{SERVICE}/")).send().await.map_err(|error| error.to_string())?;
    answer.text().await.map_err(|error| error.to_string())
}

async fn many_sandboxes(runner: Runner) {
    let options = Options { per_request: true, ..Options::new(runner) };
    let playground = Playground::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    commit_service(playground.git(), SERVICE, "feature/other", "Others").await.unwrap();
    let api = playground.sign_in().await.unwrap();
    let stage = Stage { playground, api };
    story::deploy(&stage.api, None, GATEWAY, "main", &mut Vec::new()).await.unwrap();

    // Two sandboxes of one service, each reached by its key, and neither by anybody else.
    let pay = stage.sandbox("pay", FEATURE).await.request_key.unwrap();
    let ship = stage.sandbox("ship", "feature/other").await.request_key.unwrap();
    let (of_pay, of_ship) = (pay.key.as_str(), ship.key.as_str());
    assert!(pay.per_request && pay.curl.as_ref().unwrap().contains(of_pay), "{pay:?}");
    stage.until_branch(&[("X-SDP-Sandbox", of_pay)], FEATURE).await;
    stage.until_branch(&[("Cookie", &ship.cookie)], "feature/other").await;
    assert_eq!(stage.branch(&[("baggage", &pay.baggage)]).await, FEATURE);
    assert_eq!(stage.branch(&[]).await, "main");
    assert_eq!(stage.branch(&[("X-SDP-Sandbox", "pay-00000000")]).await, "main", "a key that nobody has");

    // Many at once, never mixed.
    let asked = (0..60).map(async |n| {
        let (headers, wanted) = match n % 3 {
            0 => (vec![("X-SDP-Sandbox", of_pay)], FEATURE),
            1 => (vec![("X-SDP-Sandbox", of_ship)], "feature/other"),
            _ => (Vec::new(), "main"),
        };
        assert_eq!(stage.branch(&headers).await, wanted);
    });
    futures_util::future::join_all(asked).await;

    // A redeploy to another port is followed.
    let detail: Value = stage.api.get("/api/sandboxes/ship").await.unwrap();
    let port = detail["deployments"][0]["host_port"].as_u64().unwrap() + 10;
    let moved = json!({ "repo": SERVICE, "branch": "main", "host_port": port });
    let _: Value = stage.api.post("/api/sandboxes/ship/deployments", &moved).await.unwrap();
    stage.until_branch(&[("X-SDP-Sandbox", of_ship)], "main").await;
    story::deploy(&stage.api, Some("ship"), SERVICE, "feature/other", &mut Vec::new()).await.unwrap();
    stage.until_branch(&[("X-SDP-Sandbox", of_ship)], "feature/other").await;

    // A fight over what everybody sees.
    stage.route("ship", json!({ "target": "sandbox", "reason": "a demo for sales" })).await.unwrap();
    assert_eq!(stage.branch(&[]).await, "feature/other");
    let refused = stage.route("pay", json!({ "target": "sandbox" })).await.unwrap_err();
    assert!(refused.contains("ship") && refused.contains("a demo for sales"), "{refused}");
    stage.route("pay", json!({ "target": "sandbox", "takeover": true })).await.unwrap();
    assert_eq!(stage.branch(&[]).await, FEATURE);
    assert_eq!(
        stage.branch(&[("X-SDP-Sandbox", of_ship)]).await,
        "feature/other",
        "its own requests are still its own"
    );
    assert_eq!(stage.routing("ship").await.taken[0].by.as_str(), "pay");
    let audit: Value = stage.api.get("/api/audit?action=route-takeover").await.unwrap();
    assert_eq!(audit["items"][0]["subject"], format!("sandboxes/ship/routes/{SERVICE}"), "{audit}");

    // Why a request reaches what it reaches.
    let told: Value = stage.api.get(&format!("/api/explain?service={SERVICE}&key={of_ship}")).await.unwrap();
    assert_eq!((told["served_by"].as_str(), told["sandbox"].as_str()), (Some("sandbox"), Some("ship")), "{told}");
    assert!(told["answer"].get("status").is_some(), "its target was asked: {told}");
    let told: Value = stage.api.get(&format!("/api/explain?service={SERVICE}")).await.unwrap();
    assert_eq!(told["served_by"], "override", "{told}");

    own_gateway(&stage).await;

    // With the sandbox go its claim, its key and its gateway.
    let own = stage.routing("pay").await.gateway.unwrap().url.unwrap();
    let deleted: Result<Value, _> = stage.api.send(Method::DELETE, "/api/sandboxes/pay", None::<&()>).await;
    deleted.unwrap();
    stage.until_branch(&[], "main").await;
    stage.until_branch(&[("X-SDP-Sandbox", of_pay)], "main").await;
    assert_eq!(stage.branch(&[("X-SDP-Sandbox", of_ship)]).await, "feature/other");
    assert!(ask(&own).await.is_err(), "its gateway is gone");
    stage.playground.shutdown().await.unwrap();
}

/// `pay` brings its own branch of the gateway.
async fn own_gateway(stage: &Stage) {
    story::deploy(&stage.api, Some("pay"), GATEWAY, FEATURE, &mut Vec::new()).await.unwrap();
    let own = stage.routing("pay").await.gateway.unwrap();
    let url = own.url.unwrap();
    let answers = async || ask(&url).await.map(|answer| branch(&answer));
    until("its own service behind its own gateway", answers, |branch| branch.as_deref() == Ok(FEATURE)).await.unwrap();

    let table = stage.route("pay", json!({ "target": "ocp" })).await.unwrap();
    assert_eq!(table["branch"], FEATURE, "it is the table of its own gateway: {table}");
    assert_eq!(answers().await.as_deref(), Ok("main"));
    assert_eq!(stage.branch(&[]).await, FEATURE, "the shared gateway is as it was");
    let told: Value = stage.api.get(&format!("/api/sandboxes/pay/routes/{SERVICE}/explain")).await.unwrap();
    assert_eq!(told["served_by"], "default", "{told}");
    stage.route("pay", json!({ "target": "sandbox" })).await.unwrap();
    assert_eq!(answers().await.as_deref(), Ok(FEATURE));

    // A choice and a default both outlive a redeploy of that gateway.
    story::deploy(&stage.api, Some("pay"), GATEWAY, "main", &mut Vec::new()).await.unwrap();
    until("the same after a redeploy", answers, |branch| branch.as_deref() == Ok(FEATURE)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sandboxes_share_a_gateway_in_containers() {
    assert_eq!(
        Runner::available().await,
        Runner::Docker,
        "no Docker engine with the test images; .ci/setup makes both"
    );
    many_sandboxes(Runner::Docker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sandboxes_share_a_gateway_without_docker() {
    many_sandboxes(Runner::Process).await;
}
