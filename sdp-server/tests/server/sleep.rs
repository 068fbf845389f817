//! Sandboxes that sleep.

use std::time::Duration;

use sdp_core::protocol::RequestBody;
use serde_json::json;

use crate::{
    routes::{changes, route, table},
    support::{Agent, Plane, STATES, done, hello, inventory, states, until, with_gateway},
};

fn is_change(body: &RequestBody) -> bool {
    matches!(body, RequestBody::ApplyRoutes { .. })
}

#[tokio::test]
async fn a_sandbox_sleeps_without_its_routes_and_wakes_with_them() {
    let plane = Plane::with(|config| config.sandboxes.upkeep = Duration::from_secs(3600)).await;
    let (mut agent, api, _) = plane.ready(with_gateway()).await;
    api.post("/api/sandboxes", json!({ "name": "pay" })).await;
    let id = agent.runs(&api, "/api/sandboxes/pay/deployments").await.id;
    let set = api.put("/api/sandboxes/pay/routes/eredar", json!({ "target": "sandbox" }));
    assert_eq!(agent.during(set, |_| table(route("pay"))).await.0, 200);

    let mut asked = Vec::new();
    let answer = |body: &RequestBody| {
        asked.push(body.clone());
        match body {
            RequestBody::Routes { .. } | RequestBody::ApplyRoutes { .. } => table(route("pay")),
            body => done(body),
        }
    };
    let (status, pay) = agent.during(api.post("/api/sandboxes/pay/sleep", json!({})), answer).await;
    assert_eq!((status, &pay["state"]), (200, &json!("asleep")), "{pay}");
    assert_eq!(pay["deployments"][0]["state"], "stopped");
    assert_eq!(pay["routes"], json!({ "eredar": "sandbox" }), "they are wanted still");
    // The reconciliation asks the gateway too, whenever it likes.
    let cleared = asked.iter().position(|body| is_change(body) && changes(body)["clear"][0] == "pay");
    let stopped = asked.iter().position(|body| matches!(body, RequestBody::Stop { .. }));
    assert!(cleared.is_some() && cleared < stopped, "first the routes: {asked:?}");
    assert_eq!(api.post("/api/sandboxes/pay/sleep", json!({})).await.0, 200, "again changes nothing and asks nobody");

    let mut asked = Vec::new();
    let answer = |body: &RequestBody| {
        asked.push(body.clone());
        if let RequestBody::ApplyRoutes { .. } = body { table(route("pay")) } else { done(body) }
    };
    let (status, pay) = agent.during(api.post("/api/sandboxes/pay/wake", json!({})), answer).await;
    assert_eq!((status, &pay["state"], &pay["problem"]), (200, &json!("active"), &json!(null)), "{pay}");
    assert_eq!(api.state(id).await, "running");
    let restarted = asked.iter().position(|body| matches!(body, RequestBody::Restart { .. }));
    let routed = asked.iter().rposition(|body| is_change(body) && !changes(body)["services"]["eredar"].is_null());
    assert!(restarted.is_some() && restarted < routed, "first the instance: {asked:?}");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_nobody_uses_falls_asleep_and_a_deployment_wakes_it() {
    let plane = Plane::with(|config| {
        config.sandboxes.upkeep = Duration::from_millis(20);
        config.sandboxes.idle_after = Some(Duration::from_millis(300));
    })
    .await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar", "illidan"])).await;
    // In an environment with settings of its own nobody sleeps so soon.
    assert_eq!(api.post("/api/environments", json!({ "name": "busy", "idle_after": "1h" })).await.0, 201);
    for (name, environment) in [("pay", "default"), ("ship", "busy")] {
        api.post("/api/sandboxes", json!({ "name": name, "environment": environment })).await;
    }
    let stays = agent.runs(&api, "/api/sandboxes/ship/deployments").await.id;
    let first = agent.runs(&api, "/api/sandboxes/pay/deployments").await.id;
    tokio::select! {
        () = agent.serve(done) => {}
        _ = until(|| api.state(first), |state| state == "stopped") => {}
    }
    assert_eq!(api.state(stays).await, "running");
    until(
        || api.get("/api/sandboxes"),
        |(_, list)| list["items"][0]["state"] == "asleep" && list["items"][1]["state"] == "active",
    )
    .await;

    let body = json!({ "repo": "illidan", "branch": "main" });
    let second = agent.accepts(&api, "/api/sandboxes/pay/deployments", body).await.id;
    assert_eq!(api.get("/api/sandboxes").await.1["items"][0]["state"], "active");
    tokio::select! {
        () = agent.serve(done) => {}
        _ = until(|| api.state(first), |state| state == "running") => {}
    }
    assert_eq!(api.state(second).await, "queued", "it is under way, so that nothing falls asleep");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_could_not_be_stopped_is_told_and_stopped_when_its_agent_is_back() {
    let plane = Plane::with(|config| config.sandboxes.upkeep = Duration::from_millis(20)).await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let token = plane.enrol("other").await;
    let illidan = || sdp_core::protocol::Hello { inventory: inventory(&["illidan"]), ..hello("other", &token) };
    let mut other = Agent::greet(plane.address(), illidan()).await;
    api.post("/api/sandboxes", json!({ "name": "pay" })).await;
    let here = agent.runs(&api, "/api/sandboxes/pay/deployments").await.id;
    let body = json!({ "repo": "illidan", "branch": "main" });
    let there = other.accepts(&api, "/api/sandboxes/pay/deployments", body).await.id;
    other.events(there, 1, &states(&STATES)).await;
    drop(other);
    until(|| api.get("/api/agents/other"), |(_, agent)| agent["connected"] == false).await;

    let (status, problem) = agent.during(api.post("/api/sandboxes/pay/sleep", json!({})), done).await;
    assert_eq!((status, problem["holder"].as_str()), (503, Some("other")), "{problem}");
    assert_eq!((api.state(here).await, api.state(there).await), (json!("stopped"), json!("running")));
    assert!(api.get("/api/sandboxes/pay").await.1["problem"].as_str().unwrap().contains("other"));
    let mut other = Agent::greet(plane.address(), illidan()).await;
    tokio::select! {
        () = other.serve(done) => {}
        _ = until(|| api.state(there), |state| state == "stopped") => {}
    }
    until(|| api.get("/api/sandboxes/pay"), |(_, pay)| pay["problem"].is_null()).await;
    plane.server.shutdown().await;
}
