//! A sandbox that brings its own gateway.

use sdp_core::{RouteOrigin, RouteTable};
use serde_json::json;

use crate::{
    gateway::{GatewayAgent, Gateways},
    support::Plane,
};

fn eredar(table: &RouteTable) -> (RouteOrigin, &str) {
    (table.routes[0].origin, &table.routes[0].value)
}

#[tokio::test]
async fn its_routes_are_its_own_and_default_to_its_own_deployments() {
    let (plane, gateways) = (Plane::new().await, Gateways::new(false).own("pay"));
    let (agent, api) = GatewayAgent::start(&plane, &gateways).await;
    for name in ["pay", "ship"] {
        api.post("/api/sandboxes", json!({ "name": name })).await;
    }
    let url = json!({ "url": "http://ship.example" });
    assert_eq!(api.put("/api/sandboxes/ship/routes/eredar", json!({ "target": url })).await.0, 200);
    let path = "/api/sandboxes/pay/routes/eredar";
    assert_eq!(api.put(path, json!({ "target": url })).await.0, 409, "without a gateway of its own, ship holds it");

    agent.runs(&api, "pay", "eredar", "http://vm:7001").await;
    let id = agent.runs(&api, "pay", "erangel-ocean", "http://vm:7900").await;
    let (_, detail) = api.get("/api/sandboxes/pay").await;
    let shown = json!({ "agent": "gw", "deployment": id, "state": "running", "url": "http://vm:7900" });
    assert_eq!(detail["gateway"], shown, "{detail}");
    gateways.until(Some("pay"), |table| eredar(table) == (RouteOrigin::Sandbox, "http://vm:7001")).await;
    assert_eq!(gateways.table(None).routes[0].owner.as_ref().unwrap().as_str(), "ship", "the shared one is ship's");
    let (_, table) = api.get("/api/sandboxes/pay/routes").await;
    assert_eq!(table["branch"], "feature/x");

    // A choice lasts; the sandbox's own deployment is the default.
    assert_eq!(api.put(path, json!({ "target": "ocp" })).await.0, 200);
    agent.runs(&api, "pay", "eredar", "http://vm:7002").await;
    assert_eq!(api.put("/api/sandboxes/pay/routes/illidan", json!({ "target": url })).await.0, 200, "no claim there");
    assert_eq!(eredar(&gateways.table(Some("pay"))).0, RouteOrigin::Ocp);
    assert_eq!(api.put(path, json!({ "target": "sandbox" })).await.0, 200);
    agent.runs(&api, "pay", "eredar", "http://vm:7003").await;
    gateways.until(Some("pay"), |table| eredar(table).1 == "http://vm:7003").await;
    assert_eq!(gateways.table(Some("pay")).routes[1].origin, RouteOrigin::Custom);
    let (status, problem) = api.put(path, json!({ "target": "ocp", "expires_in": "1h" })).await;
    assert_eq!((status, problem["field"].as_str()), (422, Some("expires_in")), "{problem}");

    let (_, told) = api.get("/api/sandboxes/pay/routes/eredar/explain").await;
    assert_eq!((told["served_by"].as_str(), told["target"].as_str()), (Some("override"), Some("http://vm:7003")));
    assert!(told["because"][0].as_str().unwrap().contains("its own gateway at http://vm:7900"), "{told}");

    // Stopped, it is still its own.
    assert_eq!(api.post(&format!("/api/deployments/{id}/stop"), json!({})).await.0, 200);
    assert_eq!(api.put(path, json!({ "target": "ocp" })).await.0, 200);
    assert_eq!(gateways.table(None).routes[0].owner.as_ref().unwrap().as_str(), "ship");
    plane.server.shutdown().await;
}
