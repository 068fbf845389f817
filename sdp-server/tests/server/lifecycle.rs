//! The end of sandboxes: extended, expired, deleted, also while agents are away.

use std::time::Duration;

use jiff::Timestamp;
use sdp_core::ErrorCode;
use sdp_core::protocol::{Hello, RequestBody};
use serde_json::json;

use crate::{
    routes::{changes, route, table},
    support::{Agent, Api, Plane, done, hello, inventory, refused, until, with_gateway},
};

#[tokio::test]
async fn deleting_a_sandbox_resets_its_routes_and_removes_what_runs_there() {
    let plane = Plane::new().await;
    let (mut agent, ada, _) = plane.ready(with_gateway()).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    assert_eq!(ada.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    assert_eq!(ada.post("/api/sandboxes", json!({ "name": "pay" })).await.1["field"], "name", "it is taken");
    let id = agent.runs(&ada, "/api/sandboxes/pay/deployments").await.id;

    let (status, problem) = bob.delete("/api/sandboxes/pay").await;
    assert_eq!(status, 403);
    assert!(problem["detail"].as_str().unwrap().contains("ada"), "{problem}");

    let mut asked = Vec::new();
    let answer = |body: &RequestBody| {
        asked.push(body.clone());
        match body {
            RequestBody::Routes => table(route("pay")),
            RequestBody::ApplyRoutes { .. } => table(json!([])),
            body => done(body),
        }
    };
    assert_eq!(agent.during(ada.delete("/api/sandboxes/pay"), answer).await.0, 204);
    assert_eq!(changes(&asked[1]), json!({ "clear": ["pay"], "services": {}, "by": "pay", "takeover": false }));
    assert!(matches!(&asked[2..], [RequestBody::Remove { key }] if key.to_string().contains("eredar")), "{asked:?}");
    assert_eq!(ada.get("/api/sandboxes/pay").await.0, 404);
    assert_eq!(ada.state(id).await, "stopped", "its history stays");

    assert_eq!(ada.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201, "the name is free again");
    assert_eq!(ada.get("/api/sandboxes/pay").await.1["deployments"], json!([]), "and has no history");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn an_agent_that_is_away_keeps_only_its_own_part_of_a_deleted_sandbox_until_it_is_back() {
    let plane = Plane::with(|config| config.sandboxes.upkeep = Duration::from_millis(20)).await;
    let (mut agent, api, token) = plane.ready(inventory(&["eredar"])).await;
    let other_token = plane.enrol("other").await;
    let illidan = || Hello { inventory: inventory(&["illidan"]), ..hello("other", &other_token) };
    let mut other = Agent::greet(plane.address(), illidan()).await;
    api.post("/api/sandboxes", json!({ "name": "pay" })).await;
    let here = agent.runs(&api, "/api/sandboxes/pay/deployments").await.id;
    let body = json!({ "repo": "illidan", "branch": "main" });
    let there = other.accepts(&api, "/api/sandboxes/pay/deployments", body).await.id;
    other.events(there, 1, &crate::support::states(&crate::support::STATES)).await;
    drop(other);
    until(|| api.get("/api/agents/other"), |(_, agent)| agent["connected"] == false).await;

    let mut removals = 0;
    let answer = |body: &RequestBody| {
        removals += usize::from(matches!(body, RequestBody::Remove { .. }));
        done(body)
    };
    let (status, pay) = agent.during(api.delete("/api/sandboxes/pay"), answer).await;
    assert_eq!((status, &pay["state"]), (202, &json!("deleting")), "{pay}");
    assert!(pay["problem"].as_str().unwrap().contains("agent other is away"), "{pay}");
    assert_eq!((api.state(here).await, api.state(there).await), (json!("stopped"), json!("running")));
    assert_eq!(removals, 1);

    for (method, path, body) in [
        ("POST", "/api/sandboxes/pay/deployments", json!({ "repo": "eredar", "branch": "main" })),
        ("POST", "/api/sandboxes/pay/deploy", json!({})),
        ("POST", "/api/sandboxes/pay/wake", json!({})),
        ("POST", "/api/sandboxes", json!({ "name": "pay" })),
        ("PATCH", "/api/sandboxes/pay", json!({ "expires_in": "1d" })),
    ] {
        let (status, problem) = api.call(method.parse().unwrap(), path, Some(body)).await;
        assert_eq!(status, 409, "{method} {path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("is being deleted"), "{problem}");
    }

    // The one that is done is not asked again; and what is left to do outlives the server.
    drop(agent);
    let plane = plane.restarted().await;
    let mut agent = Agent::greet(plane.address(), hello("micro", &token)).await;
    let api = Api::sign_in(plane.address(), &mut agent, "ada").await;
    let mut other = Agent::greet(plane.address(), illidan()).await;
    let gone = until(|| api.get("/api/sandboxes/pay"), |(status, _)| *status == 404);
    let nothing = |body: &RequestBody| panic!("asked again: {body:?}");
    tokio::select! {
        () = other.serve(done) => {}
        () = agent.serve(nothing) => {}
        _ = gone => {}
    }
    assert_eq!(api.state(there).await, "stopped");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_sandbox_expires_unless_it_is_extended() {
    let plane = Plane::with(|config| config.sandboxes.upkeep = Duration::from_millis(20)).await;
    let (mut agent, api, _) = plane.ready(with_gateway()).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    for name in ["pay", "ship"] {
        let body = json!({ "name": name, "expires_in": "1h" });
        assert_eq!(api.post("/api/sandboxes", body).await.0, 201);
    }
    assert_eq!(api.get("/api/sandboxes/pay").await.1["expires_soon"], true);
    assert_eq!(bob.patch("/api/sandboxes/pay", json!({ "expires_in": "9d" })).await.0, 403);
    let (status, pay) = api.patch("/api/sandboxes/pay", json!({ "expires_in": "9d" })).await;
    assert_eq!((status, &pay["expires_soon"]), (200, &json!(false)));
    let end = Timestamp::now().checked_add(Duration::from_secs(3 * 86_400)).unwrap();
    let (_, pay) = api.patch("/api/sandboxes/pay", json!({ "expires_at": end })).await;
    assert_eq!(
        pay["expires_at"].as_str().unwrap().parse::<Timestamp>().unwrap().as_microsecond(),
        end.as_microsecond()
    );
    for body in [
        json!({}),
        json!({ "expires_in": "0s" }),
        json!({ "expires_in": "1d", "expires_at": end }),
        json!({ "expires_at": "2020-01-01T00:00:00Z" }),
        json!({ "expires": "1d" }),
    ] {
        let (status, problem) = api.patch("/api/sandboxes/pay", body).await;
        assert_eq!(status, 422, "{problem}");
        assert!(problem["field"].as_str().unwrap().starts_with("expires"), "{problem}");
    }

    let id = agent.runs(&api, "/api/sandboxes/ship/deployments").await.id;
    assert_eq!(api.patch("/api/sandboxes/ship", json!({ "expires_in": "1ms" })).await.0, 200);
    let mut refusals = 1;
    let answer = |body: &RequestBody| match body {
        RequestBody::Routes => table(route("pay")),
        // What fails is tried again.
        RequestBody::Remove { .. } if refusals > 0 => {
            refusals -= 1;
            refused(ErrorCode::EngineUnavailable, "the engine does not answer")
        }
        RequestBody::Remove { key } => {
            assert_eq!(key.to_string(), "ship/eredar");
            done(body)
        }
        body => panic!("another's route was touched: {body:?}"),
    };
    tokio::select! {
        () = agent.serve(answer) => {}
        _ = until(|| api.get("/api/sandboxes/ship"), |(status, _)| *status == 404) => {}
    }
    assert_eq!(refusals, 0);
    assert_eq!(api.state(id).await, "stopped", "its history stays");
    assert_eq!(api.get("/api/sandboxes/pay").await.1["state"], "active");
    plane.server.shutdown().await;
}
