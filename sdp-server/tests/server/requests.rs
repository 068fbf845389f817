//! Routing per request: each sandbox's key, and the gateway's table kept in step with what runs.

use sdp_core::RouteTable;
use serde_json::{Value, json};

use crate::{
    gateway::{GatewayAgent, Gateways},
    support::Plane,
};

/// Where the requests of a sandbox go, as `service=url`.
fn goes(table: &RouteTable, sandbox: &str) -> Vec<String> {
    let routes = table.requests.get(&sandbox.parse().unwrap());
    let services = routes.into_iter().flat_map(|routes| &routes.services);
    services.map(|(service, url)| format!("{service}={url}")).collect()
}

#[tokio::test]
async fn the_table_follows_what_runs_also_over_absences_and_restarts() {
    let (plane, gateways) = (Plane::new().await, Gateways::new(true));
    let (agent, api) = GatewayAgent::start(&plane, &gateways).await;
    for name in ["pay", "ship"] {
        api.post("/api/sandboxes", json!({ "name": name })).await;
    }
    let pay = agent.runs(&api, "pay", "eredar", "http://vm:7001").await;
    agent.runs(&api, "ship", "eredar", "http://vm:7002").await;
    let table = gateways.until(None, |table| table.requests.len() == 2).await;
    assert_eq!(goes(&table, "pay"), ["eredar=http://vm:7001"]);
    assert_eq!(goes(&table, "ship"), ["eredar=http://vm:7002"]);
    assert!(table.routes.iter().all(|route| route.owner.is_none()), "and nobody else's requests");

    for (what, there) in [("stop", false), ("restart", true)] {
        assert_eq!(api.post(&format!("/api/deployments/{pay}/{what}"), json!({})).await.0, 200);
        gateways.until(None, |table| goes(table, "pay").is_empty() != there).await;
    }
    agent.runs(&api, "pay", "eredar", "http://vm:7003").await;
    gateways.until(None, |table| goes(table, "pay") == ["eredar=http://vm:7003"]).await;

    // What happens while the gateway's agent is away, it is told when it is back.
    let token = agent.vanish(&api).await;
    let store = plane.server.state().store();
    store.begin_delete(&"ship".parse().unwrap()).await.unwrap();
    assert!(store.end_delete(&"ship".parse().unwrap()).await.unwrap());
    assert_eq!(gateways.table(None).requests.len(), 2);
    let agent = GatewayAgent::connect(&plane, &gateways, token).await;
    gateways.until(None, |table| goes(table, "ship").is_empty()).await;

    // What somebody undid while no server ran is done again.
    let plane = plane.restarted().await;
    let cleared: sdp_core::RouteChanges =
        serde_json::from_value(json!({ "services": {}, "requests": { "pay": null }, "takeover": true })).unwrap();
    sdp_core::RouteStore::apply(&gateways.shared, &cleared).await.unwrap();
    let token = agent.token;
    let agent = GatewayAgent::connect(&plane, &gateways, token).await;
    gateways.until(None, |table| goes(table, "pay") == ["eredar=http://vm:7003"]).await;
    let api = agent.sign_in(&plane, "ada").await;
    assert_eq!(api.delete("/api/sandboxes/pay").await.0, 204);
    gateways.until(None, |table| table.requests.is_empty()).await;
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_gateway_that_fails_is_told_again() {
    let (plane, gateways) = (Plane::new().await, Gateways::new(true));
    let (agent, api) = GatewayAgent::start(&plane, &gateways).await;
    api.post("/api/sandboxes", json!({ "name": "pay" })).await;
    gateways.shared.fail_reload(true);
    agent.runs(&api, "pay", "eredar", "http://vm:7001").await;
    assert!(gateways.table(None).requests.is_empty());
    gateways.shared.fail_reload(false);
    gateways.until(None, |table| goes(table, "pay") == ["eredar=http://vm:7001"]).await;
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_service_that_cannot_be_routed_per_request_keeps_none_of_the_others_from_it() {
    let (plane, gateways) = (Plane::new().await, Gateways::new(true));
    gateways.shared.fix("eredar", "it is a constant");
    let (agent, api) = GatewayAgent::start(&plane, &gateways).await;
    api.post("/api/sandboxes", json!({ "name": "pay" })).await;
    agent.runs(&api, "pay", "eredar", "http://vm:7001").await;
    let told = explain(&api, "/api/sandboxes/pay/routes/eredar/explain").await;
    assert_eq!(told["served_by"], "default", "{told}");
    plane.server.shutdown().await;
}

async fn explain(api: &crate::support::Api, path: &str) -> Value {
    let (status, told) = api.get(path).await;
    assert_eq!(status, 200, "{told}");
    told
}

#[tokio::test]
async fn a_sandbox_shows_its_key_and_requests_are_explained() {
    let (plane, gateways) = (Plane::new().await, Gateways::new(true));
    let (agent, api) = GatewayAgent::start(&plane, &gateways).await;
    api.post("/api/sandboxes", json!({ "name": "pay" })).await;
    let (_, detail) = api.get("/api/sandboxes/pay").await;
    let shown = &detail["request_key"];
    let key = shown["key"].as_str().unwrap().to_owned();
    assert!(key.starts_with("pay-") && key.len() == 12, "{key}");
    assert_eq!(shown["header"], format!("X-SDP-Sandbox: {key}"));
    assert_eq!(
        (shown["cookie"].as_str(), shown["per_request"].as_bool()),
        (Some(&*format!("sdp-sandbox={key}")), Some(true))
    );
    assert_eq!(shown.get("curl"), None, "the gateway does not run yet");

    let told = explain(&api, "/api/sandboxes/pay/routes/eredar/explain").await;
    assert_eq!((told["served_by"].as_str(), told["key"].as_str()), (Some("default"), Some(&*key)), "{told}");
    agent.runs(&api, "pay", "eredar", "http://vm:7001").await;
    gateways.until(None, |table| table.requests.len() == 1).await;
    let told = explain(&api, "/api/sandboxes/pay/routes/eredar/explain").await;
    assert_eq!((told["served_by"].as_str(), told["target"].as_str()), (Some("sandbox"), Some("http://vm:7001")));

    for (query, served, carrier) in [
        (format!("key={key}"), "sandbox", json!("header")),
        (format!("header={key}"), "sandbox", json!("header")),
        (format!("cookie=a%3Db%3B%20sdp-sandbox%3D{key}"), "sandbox", json!("cookie")),
        (format!("baggage=sdp-sandbox%3D{key}"), "sandbox", json!("baggage")),
        ("key=pay-00000000".into(), "default", json!("header")),
        (String::new(), "default", Value::Null),
    ] {
        let told = explain(&api, &format!("/api/explain?service=eredar&{query}")).await;
        assert_eq!((told["served_by"].as_str(), &told["carrier"]), (Some(served), &carrier), "{query}: {told}");
    }
    let told = explain(&api, "/api/explain?service=thrall").await;
    assert_eq!(told["served_by"], "nothing");
    for (query, field) in [("service=E!", "service"), ("service=eredar&key=a&header=b", "header")] {
        let (status, problem) = api.get(&format!("/api/explain?{query}")).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{problem}");
    }
    assert_eq!(api.get("/api/explain?service=eredar&x=1").await.0, 422);
    assert_eq!(api.get("/api/sandboxes/nobody/routes/eredar/explain").await.0, 404);
    plane.server.shutdown().await;
}
