//! Templates, clones, and deploying all of a sandbox.

use std::collections::BTreeSet;

use sdp_core::protocol::{Hello, Outcome, ReplyBody, RequestBody};
use sdp_core::{DeploymentId, ErrorCode};
use serde_json::{Value, json};

use crate::{
    routes::{changes, route, table},
    support::{Agent, Plane, STATES, done, hello, inventory, refused, states, until, with_gateway},
};

fn checkout() -> Value {
    json!({
        "name": "checkout",
        "services": [
            { "repo": "eredar", "branch": "main", "host_port": 7001, "env": { "MODE": "test" } },
            { "repo": "illidan", "branch": "main" },
        ],
        "routes": { "eredar": "sandbox", "thrall": { "url": "http://a.example" }, "jaina": "ocp" },
        "expires_in": "2h",
    })
}

#[tokio::test]
async fn templates_are_made_by_hand_or_from_a_sandbox() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let (status, made) = api.post("/api/templates", checkout()).await;
    assert_eq!((status, &made["owner"], &made["expires_in"]), (201, &json!("ada"), &json!("2h")), "{made}");
    assert_eq!(made["services"], checkout()["services"]);
    assert_eq!(api.get("/api/templates/checkout").await, (200, made.clone()));
    assert_eq!(api.get("/api/templates").await.1, json!([made]));
    assert_eq!(api.post("/api/templates", checkout()).await.1["field"], "name");

    assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    let empty = api.post("/api/templates", json!({ "name": "x", "from_sandbox": "pay" })).await;
    assert_eq!((empty.0, &empty.1["field"]), (422, &json!("services")));
    let body = json!({ "repo": "eredar", "branch": "feature/x", "host_port": 7009, "env": { "A": "1" } });
    agent.accepts(&api, "/api/sandboxes/pay/deployments", body).await;
    let (status, replaced) = api.put("/api/templates/checkout", json!({ "from_sandbox": "pay" })).await;
    assert_eq!(status, 200, "{replaced}");
    let services = json!([{ "repo": "eredar", "branch": "feature/x", "env": { "A": "1" } }]);
    assert_eq!(replaced["services"], services, "without the port that the sandbox has");
    assert_eq!(replaced["routes"], json!({}));

    let repeated = json!([{ "repo": "eredar", "branch": "a" }, { "repo": "eredar", "branch": "b" }]);
    for (body, field) in [
        (json!({ "services": [] }), "name"),
        (json!({ "name": "x", "services": [] }), "services"),
        (json!({ "name": "x", "services": repeated }), "services"),
        (json!({ "name": "x", "services": [{ "repo": "eredar", "branch": "a", "port": 1 }] }), "services"),
        (json!({ "name": "x", "services": [{ "repo": "eredar", "branch": "-a" }] }), "services"),
        (json!({ "name": "x", "services": services, "from_sandbox": "pay" }), "from_sandbox"),
        (json!({ "name": "x", "services": services, "expires_in": "0s" }), "expires_in"),
        (json!({ "name": "x", "services": services, "routes": { "eredar": "moon" } }), "routes.eredar"),
    ] {
        let (status, problem) = api.post("/api/templates", body).await;
        assert_eq!(status, 422, "{problem}");
        assert!(problem["field"].as_str().unwrap_or_default().starts_with(field), "{field}: {problem}");
    }
    assert_eq!(api.post("/api/templates", json!({ "name": "x", "from_sandbox": "none" })).await.0, 404);
    assert_eq!(api.put("/api/templates/none", json!({ "services": services })).await.0, 404);
    assert_eq!(api.delete("/api/templates/checkout").await.0, 204);
    assert_eq!(api.delete("/api/templates/checkout").await.0, 404);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_sandbox_begins_with_a_templates_shape_or_anothers_on_other_branches() {
    let plane = Plane::new().await;
    let (_agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    assert_eq!(api.post("/api/templates", checkout()).await.0, 201);
    let body = json!({ "name": "pay", "template": "checkout", "branches": { "eredar": "feature/x" } });
    let (status, pay) = api.post("/api/sandboxes", body).await;
    assert_eq!(status, 201, "{pay}");
    let created: sdp_core::Sandbox = serde_json::from_value(pay).unwrap();
    assert_eq!(created.expires_at.duration_since(created.created_at).as_secs(), 7200, "as its template says");
    let listed = api.get("/api/sandboxes").await.1["items"][0]["branches"].clone();
    assert_eq!(listed, json!({ "eredar": "feature/x", "illidan": "main" }));
    let (_, pay) = api.get("/api/sandboxes/pay").await;
    assert_eq!((&pay["state"], &pay["expires_soon"]), (&json!("active"), &json!(true)));
    assert_eq!(pay["services"][0]["branch"], "feature/x");
    assert_eq!((&pay["services"][0]["host_port"], &pay["services"][1]["branch"]), (&json!(7001), &json!("main")));

    let body = json!({ "name": "ship", "clone_of": "pay", "branches": { "illidan": "feature/y" }, "expires_in": "3d" });
    assert_eq!(api.post("/api/sandboxes", body).await.0, 201);
    let (_, ship) = api.get("/api/sandboxes/ship").await;
    let services = json!([
        { "repo": "eredar", "branch": "feature/x", "env": { "MODE": "test" } },
        { "repo": "illidan", "branch": "feature/y" },
    ]);
    assert_eq!((&ship["services"], &ship["routes"]), (&services, &pay["routes"]), "without the other's port");
    assert_eq!((&ship["expires_soon"], &ship["deployments"]), (&json!(false), &json!([])));

    for (body, status, field) in [
        (json!({ "name": "x", "template": "checkout", "clone_of": "pay" }), 422, "clone_of"),
        (json!({ "name": "x", "template": "none" }), 404, "template"),
        (json!({ "name": "x", "clone_of": "none" }), 404, "clone_of"),
        (json!({ "name": "x", "branches": { "eredar": "main" } }), 422, "branches.eredar"),
        (json!({ "name": "x", "template": "checkout", "branches": { "thrall": "main" } }), 422, "branches.thrall"),
    ] {
        let (told, problem) = api.post("/api/sandboxes", body).await;
        assert_eq!((told, problem["field"].as_str()), (status, Some(field)), "{problem}");
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn all_of_a_sandbox_is_deployed_and_one_that_fails_stops_no_other() {
    let plane = Plane::with(|config| config.sandboxes.upkeep = std::time::Duration::from_millis(20)).await;
    let (mut agent, api, _) = plane.ready(with_gateway()).await;
    let token = plane.enrol("other").await;
    let illidan = Hello { inventory: inventory(&["illidan"]), ..hello("other", &token) };
    let mut other = Agent::greet(plane.address(), illidan).await;
    assert_eq!(api.post("/api/templates", checkout()).await.0, 201);
    assert_eq!(api.post("/api/sandboxes", json!({ "name": "bare" })).await.0, 201);
    let (status, problem) = api.post("/api/sandboxes/bare/deploy", json!({})).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("conflict")), "{problem}");

    assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay", "template": "checkout" })).await.0, 201);
    let full = |_: &RequestBody| refused(ErrorCode::DiskFull, "the disk is nearly full");
    let deploy = other.during(api.post("/api/sandboxes/pay/deploy", json!({})), full);
    let (status, answer) = agent.during(deploy, done).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(answer["deployments"].as_array().unwrap().len(), 1, "{answer}");
    assert_eq!(answer["refused"][0]["repo"], "illidan");
    assert_eq!(answer["refused"][0]["problem"]["code"], "disk-full");

    // Its routes follow once it runs: those that can be, in one write.
    let id: DeploymentId = serde_json::from_value(answer["deployments"][0]["id"].clone()).unwrap();
    let mut events = states(&STATES);
    events.insert(3, json!({ "type": "endpoint", "host_port": 7001, "url": "http://vm:7001", "instance": "c" }));
    agent.events(id, 1, &events).await;
    let request = agent.request().await;
    let services = changes(&request.body)["services"].clone();
    assert_eq!(services["eredar"]["url"], "http://vm:7001");
    assert_eq!(services["thrall"]["url"], "http://a.example");
    assert_eq!(services.as_object().unwrap().len(), 2, "the default needs no change: {services}");
    agent.reply(request.id, refused(ErrorCode::RouteClaimed, "the route of `eredar` belongs to sandbox `ship`")).await;
    let (mut asked, ship) = (Vec::new(), table(route("ship")));
    let answer = |body: &RequestBody| {
        asked.push(body.clone());
        ship.clone()
    };
    let problem = until(|| api.get("/api/sandboxes/pay"), |(_, pay)| !pay["problem"].is_null());
    let told = agent.during(problem, answer).await.1;
    assert!(told["problem"].as_str().unwrap().contains("`ship`"), "who holds it is told: {told}");
    let rest = asked.iter().find(|body| matches!(body, RequestBody::ApplyRoutes { .. })).map(changes).unwrap();
    assert_eq!(rest["services"].as_object().unwrap().keys().collect::<Vec<_>>(), ["thrall"], "{rest}");
    let set = api.put("/api/sandboxes/pay/routes", json!({ "routes": { "eredar": "ocp" } }));
    assert_eq!(agent.during(set, |_| table(json!([]))).await.0, 200);
    let (_, pay) = api.get("/api/sandboxes/pay").await;
    assert!(pay["problem"].is_null(), "a person has put it right: {pay}");
    assert!(pay["routes"]["eredar"].is_null(), "and wants it no more: {pay}");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn the_services_of_a_sandbox_are_spread_over_the_agents() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar", "illidan"])).await;
    let token = plane.enrol("other").await;
    let both = Hello { inventory: inventory(&["eredar", "illidan"]), ..hello("other", &token) };
    let mut other = Agent::greet(plane.address(), both).await;
    assert_eq!(api.post("/api/templates", checkout()).await.0, 201);
    assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay", "template": "checkout" })).await.0, 201);
    let deploy = other.during(api.post("/api/sandboxes/pay/deploy", json!({})), done);
    let (status, answer) = agent.during(deploy, |_| Outcome::Ok(ReplyBody::Done)).await;
    assert_eq!(status, 202, "{answer}");
    let agents: BTreeSet<_> =
        answer["deployments"].as_array().unwrap().iter().map(|it| it["agent"].as_str().unwrap()).collect();
    assert_eq!(agents, ["micro", "other"].into());
    plane.server.shutdown().await;
}
