//! What operators look at.

use serde_json::{Value, json};

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

#[tokio::test]
async fn a_deployment_is_traced_through_server_and_agent() {
    let (sender, mut traces) = tokio::sync::mpsc::unbounded_channel::<Value>();
    let take = move |axum::Json(trace): axum::Json<Value>| {
        sender.send(trace).unwrap();
        async { "{}" }
    };
    let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", collector.local_addr().unwrap());
    let app = axum::Router::new().route("/v1/traces", axum::routing::post(take));
    let serving = tokio::spawn(async move { axum::serve(collector, app).await });
    let endpoint = endpoint.parse().unwrap();
    let plane = Plane::with(|config| config.traces = Some(sdp_server::traces::TracesConfig { endpoint })).await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let body = json!({ "repo": "eredar", "branch": "main" });
    let id = agent.accepts(&api, "/api/deployments", body).await.id;
    let failure = json!({ "stage": "source", "code": "git-failed", "reason": "there is no such branch" });
    let events = [
        json!({ "type": "state", "state": "queued" }),
        json!({ "type": "state", "state": "source" }),
        json!({ "type": "stage", "stage": "source", "status": "started" }),
        json!({ "type": "stage", "stage": "source", "status": "failed" }),
        json!({ "type": "state", "state": "failed", "failure": failure }),
    ];
    agent.events(id, 1, &events).await;
    let trace = tokio::time::timeout(std::time::Duration::from_secs(30), traces.recv()).await.unwrap().unwrap();
    let [server, of_agent] = [0, 1].map(|at| &trace["resourceSpans"][at]);
    let service = |of: &Value| of["resource"]["attributes"][0]["value"]["stringValue"].clone();
    assert_eq!((service(server), service(of_agent)), (json!("sdp-server"), json!("sdp-agent")));
    let [whole, source] = [server, of_agent].map(|of| &of["scopeSpans"][0]["spans"][0]);
    assert_eq!((&whole["name"], &source["name"]), (&json!("deployment"), &json!("source")));
    assert_eq!(whole["traceId"], json!(id.to_string().replace('-', "")));
    assert_eq!((&source["traceId"], &source["parentSpanId"]), (&whole["traceId"], &whole["spanId"]));
    assert_eq!(source["status"], json!({ "code": 2, "message": "there is no such branch" }));
    serving.abort();
    plane.server.shutdown().await;
}
