//! Routes and sandboxes: what the gateway's agent is asked for, and what is answered.

use sdp_core::protocol::{Outcome, ReplyBody, RequestBody};
use sdp_core::{ErrorCode, Problem, RouteTable};
use serde_json::{Value, json};

use crate::support::{Agent, Api, Plane, hello, inventory, with_gateway};

pub(crate) fn table(routes: Value) -> Outcome {
    let table: RouteTable =
        serde_json::from_value(json!({ "branch": "main", "routes": routes, "warnings": [] })).unwrap();
    Outcome::Ok(ReplyBody::Routes { table })
}

pub(crate) fn route(owner: &str) -> Value {
    json!([{ "service": "eredar", "value": "http://x", "expression": false, "origin": "custom", "default": "http://d", "owner": owner }])
}

pub(crate) fn changes(body: &RequestBody) -> Value {
    let RequestBody::ApplyRoutes { changes, .. } = body else { panic!("not a change of routes: {body:?}") };
    serde_json::to_value(changes).unwrap()
}

#[tokio::test]
async fn a_route_is_set_to_the_sandbox_to_a_url_and_back() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(with_gateway()).await;
    assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    let path = "/api/sandboxes/pay/routes/eredar";
    let end = api.get("/api/sandboxes/pay").await.1["expires_at"].clone();

    let (status, problem) = api.put(path, json!({ "target": "sandbox" })).await;
    assert_eq!((status, problem["field"].as_str()), (409, Some("target")));
    assert!(problem["detail"].as_str().unwrap().contains("deploy its repo there first"), "{problem}");

    agent.runs(&api, "/api/sandboxes/pay/deployments").await;
    for (target, service) in [
        (
            json!("sandbox"),
            json!({ "url": "http://vm.example:7001", "kind": "sandbox", "owner": "pay", "expires_at": end }),
        ),
        (
            json!({ "url": "http://a.example:1" }),
            json!({ "url": "http://a.example:1", "kind": "custom", "owner": "pay", "expires_at": end }),
        ),
        (json!("ocp"), Value::Null),
    ] {
        let mut asked = Value::Null;
        let answer = |body: &RequestBody| {
            // The server may look at the gateway at any time, for what happened before.
            if !matches!(body, RequestBody::Routes { .. }) {
                asked = changes(body);
            }
            table(route("pay"))
        };
        let (status, told) = agent.during(api.put(path, json!({ "target": target, "takeover": true })), answer).await;
        assert_eq!(status, 200, "{told}");
        assert_eq!(told["routes"][0]["owner"], "pay", "the table as the agent read it back");
        assert_eq!(asked, json!({ "services": { "eredar": service }, "by": "pay", "takeover": true }));
    }

    let many = json!({ "routes": { "eredar": "ocp", "illidan": { "url": "http://b.example" } } });
    let mut asked = Value::Null;
    let answer = |body: &RequestBody| {
        asked = changes(body);
        table(json!([]))
    };
    assert_eq!(agent.during(api.put("/api/sandboxes/pay/routes", many), answer).await.0, 200);
    assert_eq!(asked["services"].as_object().unwrap().len(), 2, "in one write");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn who_owns_a_route_is_told_and_bad_targets_are_refused() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(with_gateway()).await;
    api.post("/api/sandboxes", json!({ "name": "pay" })).await;
    let path = "/api/sandboxes/pay/routes/eredar";
    let claimed = |_: &RequestBody| {
        Outcome::Problem(Problem::new(ErrorCode::RouteClaimed, "sandbox basket owns eredar").holder("basket"))
    };
    let set = api.put(path, json!({ "target": { "url": "http://a.example" } }));
    let (status, problem) = agent.during(set, claimed).await;
    assert_eq!((status, problem["holder"].as_str()), (409, Some("basket")));

    for (body, field) in [
        (json!({ "target": "moon" }), Some("target")),
        (json!({ "target": { "url": "ftp://x" } }), Some("target.url")),
        (json!({ "target": "ocp", "force": true }), None),
    ] {
        let (status, problem) = api.put(path, body).await;
        assert_eq!(status, 422, "{problem}");
        if let Some(field) = field {
            assert!(problem["field"].as_str().unwrap().starts_with("target"), "{field}: {problem}");
        }
    }
    assert_eq!(api.put("/api/sandboxes/pay/routes", json!({ "routes": {} })).await.1["field"], "routes");
    assert_eq!(api.put("/api/sandboxes/nobody/routes/eredar", json!({ "target": "ocp" })).await.0, 404);
    assert_eq!(api.put("/api/sandboxes/pay/routes/E!", json!({ "target": "ocp" })).await.1["field"], "service");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn without_a_gateway_or_with_two_the_cure_is_named() {
    let plane = Plane::new().await;
    let (_agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    api.post("/api/sandboxes", json!({ "name": "pay" })).await;
    let (status, problem) = api.get("/api/sandboxes/pay/routes").await;
    assert_eq!(status, 404);
    assert!(problem["detail"].as_str().unwrap().contains("[gateway]"), "{problem}");

    let mut others = Vec::new();
    for name in ["one", "two"] {
        let token = plane.enrol(name).await;
        let hello = sdp_core::protocol::Hello { inventory: with_gateway(), ..hello(name, &token) };
        others.push(Agent::greet(plane.address(), hello).await);
    }
    let (status, problem) = api.get("/api/sandboxes/pay/routes").await;
    assert_eq!(status, 409);
    assert!(problem["detail"].as_str().unwrap().contains("gateway_agent"), "{problem}");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn deleting_a_sandbox_needs_its_owner_and_frees_its_name() {
    let plane = Plane::new().await;
    let (mut agent, ada, _) = plane.ready(with_gateway()).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    assert_eq!(ada.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    assert_eq!(ada.post("/api/sandboxes", json!({ "name": "pay" })).await.1["field"], "name", "it is taken");
    let (status, problem) = bob.delete("/api/sandboxes/pay").await;
    assert_eq!(status, 403);
    assert!(problem["detail"].as_str().unwrap().contains("ada"), "{problem}");
    plane.server.shutdown().await;
}
