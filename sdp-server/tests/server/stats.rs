//! What agents tell of what runs and of their machines.

use sdp_core::{
    ErrorCode, HostPort, Instance, InstanceState, InstanceStats,
    protocol::{Outcome, ReplyBody, RequestBody},
};
use serde_json::json;

use crate::support::{Agent, Plane, inventory, refused};

/// What an agent says that measures whatever it is asked for.
fn measured(body: &RequestBody) -> Outcome {
    let RequestBody::Stats { key } = body else { return refused(ErrorCode::Timeout, "busy") };
    let instance = Instance {
        key: key.clone(),
        id: "c".into(),
        name: "sdp-pay-eredar".into(),
        deployment: "01a213a4-4149-7216-9bf1-6499c6984e35".parse().unwrap(),
        branch: "main".parse().unwrap(),
        commit: "a".repeat(40).parse().unwrap(),
        host_port: HostPort::new(7001).unwrap(),
        host: None,
        state: InstanceState::Running,
        started_at: Some("2026-01-02T03:04:05Z".parse().unwrap()),
        restarts: 2,
        parked: false,
    };
    let stats = InstanceStats { cpus: 0.25, memory_bytes: 9 << 20, memory_limit_bytes: Some(1 << 30) };
    Outcome::Ok(ReplyBody::Stats { instance: Box::new(instance), stats })
}

/// As an agent answers that is older than the question.
fn unknown(_: &RequestBody) -> Outcome {
    refused(ErrorCode::Unsupported, "this agent does not know that request; it is older than the server: update it")
}

#[tokio::test]
async fn what_runs_is_measured_by_its_agent_and_what_cannot_be_says_why() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    assert_eq!(api.get("/api/sandboxes/pay/stats").await, (200, json!([])), "nothing runs in it");
    assert_eq!(api.get("/api/sandboxes/none/stats").await.0, 404);
    let id = agent.runs(&api, "/api/sandboxes/pay/deployments").await.id;

    let running = json!({
        "deployment": "01a213a4-4149-7216-9bf1-6499c6984e35",
        "started_at": "2026-01-02T03:04:05Z",
        "restarts": 2,
        "cpus": 0.25,
        "memory_bytes": 9 << 20,
        "memory_limit_bytes": 1 << 30,
    });
    let all = agent.during(api.get("/api/sandboxes/pay/stats"), measured).await;
    assert_eq!(all, (200, json!([{ "repo": "eredar", "running": running }])));
    let of_one = format!("/api/deployments/{id}/stats");
    assert_eq!(agent.during(api.get(&of_one), measured).await, (200, running));

    let (status, all) = agent.during(api.get("/api/sandboxes/pay/stats"), unknown).await;
    assert_eq!((status, &all[0]["repo"]), (200, &json!("eredar")), "{all}");
    assert_eq!(all[0]["problem"]["code"], "unsupported");
    let (status, problem) = agent.during(api.get(&of_one), unknown).await;
    assert_eq!(status, 501);
    assert!(problem["detail"].as_str().unwrap().contains("older than the server: update it"), "{problem}");
    drop(agent);
    let (_, all) = api.get("/api/sandboxes/pay/stats").await;
    assert_eq!(all[0]["problem"]["code"], "agent-away", "{all}");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_does_not_run_is_not_measured() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let body = json!({ "repo": "eredar", "branch": "main" });
    let id = agent.accepts(&api, "/api/deployments", body).await.id;
    let (status, problem) = api.get(&format!("/api/deployments/{id}/stats")).await;
    assert_eq!((status, &problem["code"]), (409, &json!("conflict")), "{problem}");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn an_agent_tells_of_its_disks_and_examines_its_machine() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let disks = json!([{ "path": "/srv", "free_bytes": 5, "total_bytes": 9, "min_free_bytes": 1 }]);
    let findings = json!([{ "check": "disk", "verdict": "broken", "evidence": "it is full", "cure": "free some" }]);
    let mut answer = |body: &RequestBody| {
        let (kind, field, value) = match body {
            RequestBody::Disks => ("disks", "disks", disks.clone()),
            RequestBody::Examine => ("examined", "examination", json!({ "findings": findings })),
            _ => return refused(ErrorCode::Timeout, "busy"),
        };
        Outcome::Ok(serde_json::from_value(json!({ "kind": kind, field: value })).unwrap())
    };
    assert_eq!(agent.during(api.get("/api/agents/micro/disks"), &mut answer).await, (200, disks.clone()));
    let examined = agent.during(api.get("/api/agents/micro/doctor"), &mut answer).await;
    assert_eq!(examined, (200, json!({ "findings": findings })));

    for path in ["disks", "doctor"] {
        let asked = format!("/api/agents/micro/{path}");
        let (status, problem) = agent.during(api.get(&asked), unknown).await;
        assert_eq!((status, &problem["code"]), (501, &json!("unsupported")), "{problem}");
        assert_eq!(api.get(&format!("/api/agents/none/{path}")).await.0, 404);
    }
    drop::<Agent>(agent);
    let (status, problem) = api.get("/api/agents/micro/doctor").await;
    assert_eq!((status, &problem["holder"]), (503, &json!("micro")), "{problem}");
    plane.server.shutdown().await;
}
