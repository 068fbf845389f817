//! Overrides of a shared gateway as claims: fought over, taken, ended.

use std::time::Duration;

use sdp_core::{RouteOrigin, RouteTable, SandboxName};
use serde_json::{Value, json};

use crate::{
    gateway::{GatewayAgent, Gateways},
    support::{Plane, until},
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
    assert!(why.iter().all(|(_, why)| why == "its sandbox is gone"), "{why:?}");
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
