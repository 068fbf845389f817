//! Environments, and what deployments into their sandboxes get from them.

use sdp_core::protocol::{Hello, Outcome, ReplyBody, RequestBody};
use serde_json::json;

use crate::support::{Agent, Plane, hello, inventory};

#[tokio::test]
async fn environments_are_made_changed_and_deleted_and_the_default_is_always_there() {
    let plane = Plane::new().await;
    let (_agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let default = json!({ "name": "default", "agents": [], "env": {} });
    assert_eq!(api.get("/api/environments").await, (200, json!([default])));
    let qa = json!({ "name": "qa", "agents": ["micro"], "env": { "MODE": "qa" }, "ports": "7000-7010",
        "sandbox_lifetime": "2d", "idle_after": "4h" });
    assert_eq!(api.post("/api/environments", qa.clone()).await, (201, qa.clone()));
    assert_eq!(api.get("/api/environments/qa").await, (200, qa.clone()));
    let (status, problem) = api.post("/api/environments", qa).await;
    assert_eq!((status, problem["field"].as_str()), (409, Some("name")));
    let changed = json!({ "name": "qa", "gateway": "micro", "agents": [], "env": {} });
    assert_eq!(api.put("/api/environments/qa", json!({ "gateway": "micro" })).await, (200, changed));
    assert_eq!(api.put("/api/environments/default", json!({ "env": { "A": "1" } })).await.1["env"]["A"], "1");

    for (body, field) in [
        (json!({ "agents": [] }), "name"),
        (json!({ "name": "Q A" }), "name"),
        (json!({ "name": "x", "agents": ["nobody"] }), "agents"),
        (json!({ "name": "x", "gateway": "nobody" }), "gateway"),
        (json!({ "name": "x", "ports": "9" }), "ports"),
        (json!({ "name": "x", "env": { "A B": "" } }), "env"),
        (json!({ "name": "x", "idle_after": "0s" }), "idle_after"),
        (json!({ "name": "x", "agent": [] }), "agent"),
    ] {
        let (status, problem) = api.post("/api/environments", body).await;
        assert_eq!(status, 422, "{problem}");
        assert!(problem["field"].as_str().unwrap_or_default().starts_with(field), "{field}: {problem}");
    }
    assert_eq!(api.put("/api/environments/qa", json!({ "name": "other" })).await.1["field"], "name");
    assert_eq!(api.put("/api/environments/none", json!({})).await.0, 404);

    assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay", "environment": "qa" })).await.0, 201);
    let (status, problem) = api.delete("/api/environments/qa").await;
    assert_eq!((status, problem["holder"].as_str()), (409, Some("pay")), "{problem}");
    assert_eq!(api.post("/api/sandboxes", json!({ "name": "x", "environment": "none" })).await.0, 404);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_deployment_gets_the_environments_variables_agents_and_ports() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let token = plane.enrol("other").await;
    let other = Hello { inventory: inventory(&["eredar", "illidan"]), ..hello("other", &token) };
    let mut other = Agent::greet(plane.address(), other).await;
    let qa = json!({ "name": "qa", "agents": ["other"], "env": { "MODE": "qa", "LEVEL": "1" }, "ports": "7000-7010" });
    assert_eq!(api.post("/api/environments", qa).await.0, 201);
    let only_micro = json!({ "name": "small", "agents": ["micro"] });
    assert_eq!(api.post("/api/environments", only_micro).await.0, 201);
    for (name, environment) in [("pay", "qa"), ("tiny", "small")] {
        let body = json!({ "name": name, "environment": environment });
        assert_eq!(api.post("/api/sandboxes", body).await.0, 201);
    }

    let body = json!({ "repo": "eredar", "branch": "main", "host_port": 7005, "env": { "LEVEL": "2" } });
    let asked = |body: &RequestBody| {
        let RequestBody::Deploy { request, .. } = body else { panic!("not a deployment: {body:?}") };
        let env = serde_json::to_value(&request.env).unwrap();
        assert_eq!(env, json!({ "LEVEL": "2", "MODE": "qa" }), "the request's own over the environment's");
        Outcome::Ok(ReplyBody::Done)
    };
    let (status, deployment) = other.during(api.post("/api/sandboxes/pay/deployments", body), asked).await;
    assert_eq!((status, &deployment["agent"]), (202, &json!("other")), "{deployment}");
    assert_eq!(deployment["env"], json!({ "LEVEL": "2" }), "kept is what was asked");

    for (sandbox, body, field, word) in [
        ("pay", json!({ "repo": "eredar", "branch": "main", "host_port": 8000 }), "host_port", "7000-7010"),
        ("pay", json!({ "repo": "eredar", "branch": "main", "agent": "micro" }), "agent", "environment qa"),
        ("tiny", json!({ "repo": "illidan", "branch": "main" }), "repo", "environment small"),
    ] {
        let (status, problem) = api.post(&format!("/api/sandboxes/{sandbox}/deployments"), body).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(word), "{problem}");
    }
    let quick = json!({ "repo": "eredar", "branch": "main", "host_port": 8000, "agent": "micro" });
    agent.accepts(&api, "/api/deployments", quick).await;
    plane.server.shutdown().await;
}
