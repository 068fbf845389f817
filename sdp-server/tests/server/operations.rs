//! What operators look at.

use serde_json::json;

use crate::support::{Plane, STATES, inventory, states, until};

#[tokio::test]
async fn metrics_tell_of_requests_deployments_events_agents_and_disks() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    api.post("/api/sandboxes", json!({ "name": "pay" })).await;
    let body = json!({ "repo": "eredar", "branch": "main" });
    let id = agent.accepts(&api, "/api/sandboxes/pay/deployments", body).await.id;
    let mut events = states(&STATES);
    events.insert(1, json!({ "type": "stage", "stage": "source", "status": "started" }));
    events.insert(2, json!({ "type": "stage", "stage": "source", "status": "done" }));
    agent.events(id, 1, &events).await;
    api.get("/api/nothing/here").await;
    let answer = api.raw(reqwest::Method::GET, "/metrics", &[], String::new()).await;
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = async || api.raw(reqwest::Method::GET, "/metrics", &[], String::new()).await.text().await.unwrap();
    let text = until(text, |text| text.contains("sdp_deployment_duration_seconds_count")).await;
    for line in [
        "sdp_http_request_duration_seconds_count{method=\"POST\",route=\"/api/sandboxes\",status=\"201\"} 1",
        "sdp_http_request_duration_seconds_count{method=\"GET\",route=\"none\",status=\"404\"} 1",
        "sdp_deployment_duration_seconds_count{repo=\"eredar\",state=\"running\"} 1",
        "sdp_stage_duration_seconds_count{stage=\"source\",status=\"done\"} 1",
        "sdp_event_log_batches_total 1",
        "sdp_agent_connected{agent=\"micro\",transport=\"websocket\"} 1",
        "sdp_deployments{state=\"running\"} 1",
        "sdp_sandboxes{state=\"active\"} 1",
        "sdp_event_logs 1",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.contains("\nsdp_data_dir_free_bytes "), "{text}");
    // Each family once, with all of its values together.
    let families: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let unique: std::collections::BTreeSet<_> = families.iter().collect();
    assert_eq!(families.len(), unique.len());
    plane.server.shutdown().await;
}
