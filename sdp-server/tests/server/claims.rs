//! Overrides of a shared gateway as claims: fought over, taken, ended.

use std::time::Duration;

use sdp_core::{
    RouteOrigin, RouteTable, SandboxName,
    protocol::{Outcome, ReplyBody, RequestBody},
};
use serde_json::{Value, json};

use crate::{
    gateway::{GatewayAgent, Gateways},
    support::{Agent, Plane, STATES, hello, states, until},
};

fn owner(table: &RouteTable) -> Option<&str> {
    table.routes[0].owner.as_ref().map(SandboxName::as_str)
}

async fn audit(api: &crate::support::Api, query: &str) -> Vec<(String, String)> {
    let (_, page) = api.get(&format!("/api/audit?{query}")).await;
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("-").to_owned();
    let items = page["items"].as_array().unwrap();
    items.iter().map(|entry| (text(entry, "user") + " " + &text(entry, "subject"), text(entry, "detail"))).collect()
}

#[tokio::test]
async fn a_service_is_fought_over_taken_and_who_lost_it_is_told() {
    let (plane, gateways) = (Plane::new().await, Gateways::new(false));
    let (agent, ada) = GatewayAgent::start(&plane, &gateways).await;
    let bob = agent.sign_in(&plane, "bob").await;
    ada.post("/api/sandboxes", json!({ "name": "pay", "expires_in": "5h" })).await;
    let (_, pay) = ada.get("/api/sandboxes/pay").await;
    bob.post("/api/sandboxes", json!({ "name": "ship" })).await;
    agent.runs(&ada, "pay", "eredar", "http://vm:7001").await;
    let (of_pay, of_ship) = ("/api/sandboxes/pay/routes/eredar", "/api/sandboxes/ship/routes/eredar");
    let (status, table) = ada.put(of_pay, json!({ "target": "sandbox", "reason": "load test" })).await;
    assert_eq!(status, 200, "{table}");
    assert_eq!(table["routes"][0]["expires_at"], pay["expires_at"], "as long as the sandbox lives");

    let url = json!({ "url": "http://elsewhere.example" });
    let (status, problem) = bob.put(of_ship, json!({ "target": url })).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("route-claimed")));
    assert_eq!((problem["holder"].as_str(), problem["field"].as_str()), (Some("pay"), Some("service")));
    let until_when = &pay["expires_at"].as_str().unwrap()[..16];
    for word in ["pay", "load test", until_when] {
        assert!(problem["detail"].as_str().unwrap().contains(word), "{word}: {problem}");
    }
    let (status, table) = bob.put(of_ship, json!({ "target": url, "takeover": true, "expires_in": "1h" })).await;
    assert_eq!((status, table["routes"][0]["owner"].as_str()), (200, Some("ship")), "{table}");
    let end: jiff::Timestamp = serde_json::from_value(table["routes"][0]["expires_at"].clone()).unwrap();
    assert!(end < jiff::Timestamp::now() + Duration::from_secs(3_601), "{end}");

    let (_, detail) = ada.get("/api/sandboxes/pay").await;
    let taken = &detail["taken"][0];
    let told = ["service", "by", "user", "url"].map(|field| taken[field].as_str().unwrap());
    assert_eq!(told, ["eredar", "ship", "bob", "http://vm:7001"], "{detail}");
    let lost = audit(&ada, "action=route-takeover&subject=sandboxes/pay").await;
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].0, "bob sandboxes/pay/routes/eredar");
    assert!(lost[0].1.contains("by sandbox ship"), "{lost:?}");
    let set = audit(&ada, "action=route-set").await;
    assert_eq!(set[0].0, "bob sandboxes/ship/routes/eredar");
    assert_eq!(set[1], ("ada sandboxes/pay/routes/eredar".into(), "to the sandbox's own deployment: load test".into()));

    assert_eq!(ada.put(of_pay, json!({ "target": "sandbox", "takeover": true })).await.0, 200);
    assert_eq!(ada.get("/api/sandboxes/pay").await.1.get("taken"), None, "it has it again");
    for (body, field) in [
        (json!({ "target": "ocp", "expires_in": "soon" }), "expires_in"),
        (json!({ "target": "ocp", "expires_in": "0s" }), "expires_in"),
        (json!({ "target": "ocp", "reason": "a\nb" }), "reason"),
    ] {
        let (status, problem) = ada.put(of_pay, body).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{problem}");
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn claims_end_with_their_time_their_sandbox_and_a_deployment_that_fails() {
    let quick = Duration::from_millis(30);
    let (plane, gateways) = (Plane::with(|config| config.agents.reconcile = quick).await, Gateways::new(false));
    let (_agent, api) = GatewayAgent::start(&plane, &gateways).await;
    let url = json!({ "url": "http://a.example" });
    for name in ["short", "gone"] {
        api.post("/api/sandboxes", json!({ "name": name })).await;
    }
    let free = |table: &RouteTable| owner(table).is_none();
    let set = api.put("/api/sandboxes/short/routes/eredar", json!({ "target": url, "expires_in": "1s" }));
    assert_eq!(set.await.0, 200);
    // The gateway's clock stands still: without it the claim would be kept for ever.
    gateways.shared.clock().advance(Duration::from_secs(2));
    gateways.until(None, free).await;
    let why = until(|| audit(&api, "subject=sandboxes/short&action=route-released"), |told| !told.is_empty()).await;
    assert_eq!(why[0], ("- sandboxes/short/routes/eredar".into(), "its claim expired".into()));

    let many = json!({ "routes": { "eredar": url, "illidan": url } });
    assert_eq!(api.put("/api/sandboxes/gone/routes", many).await.0, 200);
    // Not by way of the API, which clears the routes itself.
    let store = plane.server.state().store();
    store.begin_delete(&"gone".parse().unwrap()).await.unwrap();
    assert!(store.end_delete(&"gone".parse().unwrap()).await.unwrap());
    gateways.until(None, |table| table.routes.iter().all(|route| route.owner.is_none())).await;
    let why = until(|| audit(&api, "subject=sandboxes/gone&action=route-released"), |told| told.len() == 2).await;
    assert!(why.iter().all(|(_, why)| why == "its sandbox is gone, or has another gateway"), "{why:?}");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn an_override_follows_its_deployment_and_is_given_back_when_that_fails() {
    let (plane, gateways) = (Plane::new().await, Gateways::new(false));
    let (agent, api) = GatewayAgent::start(&plane, &gateways).await;
    api.post("/api/sandboxes", json!({ "name": "pay" })).await;
    agent.runs(&api, "pay", "eredar", "http://vm:7001").await;
    let path = "/api/sandboxes/pay/routes/eredar";
    assert_eq!(api.put(path, json!({ "target": "sandbox", "reason": "a demo" })).await.0, 200);
    let id = agent.runs(&api, "pay", "eredar", "http://vm:7002").await;
    let table = gateways.until(None, |table| table.routes[0].value == "http://vm:7002").await;
    assert_eq!(table.routes[0].reason.as_ref().unwrap().as_str(), "a demo", "the claim is the same");

    assert_eq!(api.post(&format!("/api/deployments/{id}/stop"), json!({})).await.0, 200);
    assert_eq!(api.post(&format!("/api/deployments/{id}/restart"), json!({})).await.0, 200);
    assert_eq!(gateways.table(None).routes[0].origin, RouteOrigin::Sandbox, "a stop is no failure");
    // The agent finds nothing running at two looks in a row.
    let plane = plane.restarted_with(|config| config.agents.reconcile = Duration::from_millis(30)).await;
    let token = agent.token;
    let agent = GatewayAgent::connect(&plane, &gateways, token).await;
    let api = agent.sign_in(&plane, "ada").await;
    until(|| api.state(id), |state| *state == "failed").await;
    gateways.until(None, |table| owner(table).is_none()).await;
    let why = until(|| audit(&api, "action=route-released"), |told| !told.is_empty()).await;
    assert_eq!(why, [("- sandboxes/pay/routes/eredar".into(), "its deployment failed".into())]);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_a_deployment_replaced_retires_when_the_routes_have_followed() {
    let (plane, gateways) = (Plane::new().await, Gateways::new(false));
    let (gateway, api) = GatewayAgent::start(&plane, &gateways).await;
    let token = plane.enrol("micro").await;
    let mut micro = Agent::greet(plane.address(), hello("micro", &token)).await;
    api.post("/api/sandboxes", json!({ "name": "pay" })).await;
    let (path, body) =
        ("/api/sandboxes/pay/deployments", json!({ "repo": "eredar", "branch": "main", "agent": "micro" }));
    let events = |port: u16| {
        let mut events = states(&STATES);
        let url = format!("http://vm:{port}");
        events.insert(3, json!({ "type": "endpoint", "host_port": port, "url": url, "instance": "c" }));
        events
    };
    let mut asked = Vec::new();
    let first = micro.during(api.post(path, body.clone()), note(&mut asked)).await.1;
    let first = serde_json::from_value(first["id"].clone()).unwrap();
    micro.events(first, 1, &events(7001)).await;
    assert_eq!(api.put("/api/sandboxes/pay/routes/eredar", json!({ "target": "sandbox" })).await.0, 200);
    assert!(!waits(&asked), "there is nothing that it would replace: {asked:?}");

    asked.clear();
    let second = micro.during(api.post(path, body.clone()), note(&mut asked)).await.1;
    let second = serde_json::from_value(second["id"].clone()).unwrap();
    assert!(waits(&asked), "{asked:?}");
    // The gateway's agent goes away: requests go on to the first.
    let token = gateway.vanish(&api).await;
    micro.events(second, 1, &events(7002)).await;
    until(|| api.state(second), |state| *state == "running").await;
    let store = plane.server.state().store();
    assert_eq!(store.retirements().await.unwrap().iter().map(|it| it.id).collect::<Vec<_>>(), [second]);

    asked.clear();
    let _gateway = GatewayAgent::connect(&plane, &gateways, token).await;
    let told = until(async || store.retirements().await.unwrap(), Vec::is_empty);
    let routed = |body: &RequestBody| {
        if matches!(body, RequestBody::Retire { .. }) {
            assert_eq!(gateways.table(None).routes[0].value, "http://vm:7002", "first the routes");
        }
        asked.push(body.clone());
        Outcome::Ok(ReplyBody::Done)
    };
    micro.during(told, routed).await;
    assert!(asked.contains(&RequestBody::Retire { deployment: second }), "{asked:?}");
    plane.server.shutdown().await;
}

/// Answers everything with success, and keeps what was asked.
fn note(asked: &mut Vec<RequestBody>) -> impl FnMut(&RequestBody) -> Outcome {
    |body| {
        asked.push(body.clone());
        Outcome::Ok(ReplyBody::Done)
    }
}

/// Whether a deployment was asked for that leaves what it replaces serving.
fn waits(asked: &[RequestBody]) -> bool {
    asked.iter().any(|body| matches!(body, RequestBody::Deploy { request, .. } if request.retire_on_request))
}

#[tokio::test]
async fn an_environments_gateway_follows_its_sandboxes_and_no_others() {
    let configure = |config: &mut sdp_server::ServerConfig| config.gateway_agent = Some("gw".parse().unwrap());
    let (plane, gateways) = (Plane::with(configure).await, Gateways::new(true));
    let (agent, api) = GatewayAgent::start(&plane, &gateways).await;
    let token = plane.enrol("gw-2").await;
    let others = Gateways::new(true);
    let _other = GatewayAgent::connect_as("gw-2", &plane, &others, token).await;
    assert_eq!(
        api.post("/api/environments", json!({ "name": "qa", "gateway": "gw-2", "agents": ["gw"] })).await.0,
        201
    );
    for (name, environment) in [("pay", "default"), ("ship", "qa")] {
        api.post("/api/sandboxes", json!({ "name": name, "environment": environment })).await;
    }
    agent.runs(&api, "pay", "eredar", "http://vm:7001").await;
    agent.runs(&api, "ship", "eredar", "http://vm:7002").await;
    let keyed = |names: &'static [&str]| {
        move |table: &RouteTable| table.requests.keys().map(SandboxName::as_str).eq(names.iter().copied())
    };
    gateways.until(None, keyed(&["pay"])).await;
    others.until(None, keyed(&["ship"])).await;
    assert_eq!(api.put("/api/sandboxes/ship/routes/eredar", json!({ "target": "sandbox" })).await.0, 200);
    agent.runs(&api, "ship", "eredar", "http://vm:7003").await;
    others.until(None, |table| table.routes[0].value == "http://vm:7003").await;
    assert_eq!(owner(&gateways.table(None)), None);
    plane.server.shutdown().await;
}
