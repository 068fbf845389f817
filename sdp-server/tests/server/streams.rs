//! A deployment's log as a document and as a live stream.

use futures_util::StreamExt;
use reqwest::Method;
use sdp_core::protocol::AgentFrame;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::support::{Agent, Api, Plane, batch, drain, held, hello, inventory, patiently, states, until};

fn log(line: impl std::fmt::Display) -> Value {
    json!({ "type": "log", "stage": "build", "stream": "stdout", "line": line.to_string() })
}

#[tokio::test]
async fn a_log_is_read_from_anywhere_for_people_and_for_programs() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let id = agent.accepts(&api, "/api/deployments", json!({ "repo": "eredar", "branch": "main" })).await.id;
    let mut events = states(&["source", "build"]);
    events.extend((3..=9).map(|n| log(format!("line {n}"))));
    agent.events(id, 1, &events).await;
    let bearer = format!("Bearer {}", api.token);
    let read = async |query: &str| {
        let path = format!("/api/deployments/{id}/log{query}");
        let answer = api.raw(Method::GET, &path, &[("authorization", &bearer)], String::new()).await;
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (kind, answer.text().await.unwrap())
    };
    let (kind, text) = read("").await;
    assert_eq!(kind, "text/plain; charset=utf-8");
    assert_eq!(text.lines().count(), 9);
    assert_eq!(text.lines().next().unwrap(), "2026-01-02T03:04:05.000Z        = source");
    assert_eq!(text.lines().last().unwrap(), "2026-01-02T03:04:05.000Z build  | line 9");
    assert_eq!(read("?tail=2").await.1.lines().collect::<Vec<_>>(), text.lines().skip(7).collect::<Vec<_>>());
    assert_eq!(read("?from=9").await.1.lines().count(), 1);
    assert_eq!(read("?from=10").await.1, "");
    let (kind, ndjson) = read("?format=ndjson&from=2").await;
    assert_eq!(kind, "application/x-ndjson");
    let seqs: Vec<_> = ndjson.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].clone()).collect();
    assert_eq!(seqs, (2..=9).map(Value::from).collect::<Vec<_>>());
    assert_eq!(api.get(&format!("/api/deployments/{id}/log?format=xml")).await.1["field"], "format");
    assert_eq!(api.get(&format!("/api/deployments/{id}/log?tail=-1")).await.1["field"], "tail");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn who_follows_sees_every_event_once_whenever_and_from_wherever_it_joined() {
    const EVENTS: u64 = 2_000;
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let id = agent.accepts(&api, "/api/deployments", json!({ "repo": "eredar", "branch": "main" })).await.id;
    let tell = async {
        agent.events(id, 1, &states(&["source", "build"])).await;
        for first in (3..EVENTS).step_by(50) {
            let lines: Vec<_> = (first..(first + 50).min(EVENTS)).map(log).collect();
            agent.events(id, first, &lines).await;
        }
        agent.events(id, EVENTS, &states(&["cancelled"])).await;
    };
    let follow = async |from: u64, after: u64| {
        // Joins once the log has come that far.
        let path = format!("/api/deployments/{id}/log?format=ndjson&from={after}");
        let bearer = format!("Bearer {}", api.token);
        let ask = || async {
            api.raw(Method::GET, &path, &[("authorization", &bearer)], String::new()).await.text().await.unwrap()
        };
        crate::support::until(ask, |text| after == 0 || !text.is_empty()).await;
        (from, api.follow(id, from).await)
    };
    let ((), a, b, c, d) = tokio::join!(tell, follow(1, 0), follow(1, 900), follow(1_500, 200), follow(700, 1_900));
    for (from, lines) in [a, b, c, d] {
        let seqs: Vec<_> = lines.iter().filter_map(|line| line["seq"].as_u64()).collect();
        assert!(seqs.iter().copied().eq(from..=EVENTS), "from {from}: {} events", seqs.len());
        assert_eq!(lines.last().unwrap(), &json!({ "type": "end", "state": "cancelled", "last": EVENTS }));
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_stopping_server_tells_followers_to_come_again() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let id = agent.accepts(&api, "/api/deployments", json!({ "repo": "eredar", "branch": "main" })).await.id;
    agent.events(id, 1, &states(&["source"])).await;
    let mut stream = api.stream(id, "").await;
    let first = patiently(stream.next()).await.unwrap().unwrap();
    assert!(matches!(&first, Message::Text(text) if text.contains("source")), "{first:?}");
    let ((lines, close), ()) = tokio::join!(drain(&mut stream), plane.server.shutdown());
    assert_eq!(lines, [] as [Value; 0]);
    assert_eq!(close.unwrap().code, CloseCode::Restart);
    patiently(agent.gone()).await;
}

#[tokio::test]
async fn a_follower_that_never_reads_holds_nobody_up() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let id = agent.accepts(&api, "/api/deployments", json!({ "repo": "eredar", "branch": "main" })).await.id;
    let asleep = api.stream(id, "").await;
    agent.events(id, 1, &states(&["source", "build"])).await;
    for at in 0..20 {
        let lines: Vec<_> = (0..10).map(|_| log("x".repeat(100_000))).collect();
        agent.events(id, 3 + at * 10, &lines).await;
    }
    agent.send(AgentFrame::Events(batch(id, 203, &states(&["cancelled"])))).await;
    assert_eq!(api.follow(id, 203).await.len(), 2);
    drop(asleep);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_stream_of_nothing_is_not_found() {
    let plane = Plane::new().await;
    let (_agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let bearer = format!("Bearer {}", api.token);
    let id = sdp_core::DeploymentId::new();
    let path = format!("/ws/deployments/{id}");
    assert_eq!(api.socket(&path, &[("authorization", &bearer)]).await.err(), Some(404));
    assert_eq!(api.get(&path).await.0, 404, "which comes before that it is no upgrade");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn logs_beyond_the_limit_are_removed_but_for_those_of_deployments_under_way() {
    let plane = Plane::with(|config| config.logs.total_mib = 0).await;
    let (mut agent, api, token) = plane.ready(inventory(&["eredar"])).await;
    let ended = agent.runs(&api, "/api/deployments").await.id;
    let body = json!({ "repo": "eredar", "branch": "main" });
    let active = agent.accepts(&api, "/api/deployments", body).await.id;
    agent.events(active, 1, &states(&["source", "build"])).await;

    // Old logs are looked for when the server starts.
    let plane = plane.restarted().await;
    let mut hello = hello("micro", &token);
    hello.held = vec![held(active, 2)];
    let mut agent = Agent::greet(plane.address(), hello).await;
    let api = Api::sign_in(plane.address(), &mut agent, "ada").await;
    let log = format!("/api/deployments/{ended}/log");
    let (_, problem) = until(|| api.get(&log), |(status, _)| *status == 404).await;
    assert!(problem["detail"].as_str().unwrap().contains("removed"), "{problem}");
    let bearer = format!("Bearer {}", api.token);
    let stream = api.socket(&format!("/ws/deployments/{ended}"), &[("authorization", &bearer)]).await;
    assert_eq!(stream.err(), Some(404));
    assert_eq!(api.get(&format!("/api/deployments/{ended}")).await.1["state"], "running");
    assert_eq!(api.get(&format!("/api/deployments/{active}/log?format=ndjson")).await.0, 200);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_an_agent_told_last_before_it_was_gone_is_kept_and_told() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let id = agent.accepts(&api, "/api/deployments", json!({ "repo": "eredar", "branch": "main" })).await.id;
    let mut stream = api.stream(id, "").await;
    agent.events(id, 1, &states(&["source", "build"])).await;
    agent.send(AgentFrame::Events(batch(id, 3, &states(&["cancelled"])))).await;
    drop(agent);
    let (lines, _) = patiently(drain(&mut stream)).await;
    assert_eq!(lines.last().unwrap(), &json!({ "type": "end", "state": "cancelled", "last": 3 }));
    plane.server.shutdown().await;
}
