//! Agents' connections: who is let in, who replaces whom, and what it means when one goes away.

use std::time::Duration;

use futures_util::SinkExt;
use sdp_core::protocol::{AgentFrame, Frame, Hello, MAX_FRAME_BYTES, ServerFrame, WireMessage};
use sdp_core::{DeploymentId, ErrorCode};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Agent, Api, Plane, done, hello, inventory, states, until};

fn text(hello: Hello) -> String {
    match AgentFrame::Hello(Box::new(hello)).encode() {
        WireMessage::Text(text) => text,
        WireMessage::Binary(_) => panic!("a hello is text"),
    }
}

#[tokio::test]
async fn what_is_no_valid_hello_is_refused_with_a_reason() {
    let plane = Plane::new().await;
    let token = plane.enrol("micro").await;
    for (message, code) in [
        (text(hello("micro", &"sdpa_wrong".into())), ErrorCode::NotAllowed),
        (text(hello("other", &token)), ErrorCode::NotAllowed),
        (text(Hello { protocol: 9, oldest_protocol: 8, ..hello("micro", &token) }), ErrorCode::Unsupported),
        ("not json".into(), ErrorCode::BadRequest),
        (r#"{"type":"telepathy"}"#.into(), ErrorCode::BadRequest),
    ] {
        let mut agent = Agent::dial(plane.address()).await;
        agent.0.send(Message::text(message)).await.unwrap();
        let problem = agent.refusal().await;
        assert_eq!(problem.code, code, "{problem}");
        agent.gone().await;
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn an_agent_without_a_hello_is_told_so_in_time() {
    let plane = Plane::with(|config| config.agents.hello = Duration::from_millis(50)).await;
    let mut agent = Agent::dial(plane.address()).await;
    assert_eq!(agent.refusal().await.code, ErrorCode::Timeout);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_frame_of_a_newer_version_is_answered_and_one_too_large_ends_the_connection() {
    let plane = Plane::new().await;
    let token = plane.enrol("micro").await;
    let mut agent = Agent::greet(plane.address(), hello("micro", &token)).await;
    agent.0.send(Message::text(r#"{"type":"telepathy","thought":1}"#)).await.unwrap();
    assert_eq!(agent.frame().await, ServerFrame::Unsupported { frame: "telepathy".into() });

    // The server does not read it to its end, so that writing it may fail.
    let _ = agent.0.send(Message::text("x".repeat(MAX_FRAME_BYTES + 1))).await;
    agent.gone().await;
    Agent::greet(plane.address(), hello("micro", &token)).await;
    plane.server.shutdown().await;
}

#[tokio::test]
async fn the_newest_connection_of_an_agent_replaces_the_older_one() {
    let plane = Plane::new().await;
    let (mut older, api, token) = plane.ready(inventory(&["eredar"])).await;
    let mut newer = Agent::greet(plane.address(), hello("micro", &token)).await;
    older.gone().await;
    let (status, _) = newer
        .during(api.get("/api/repos/eredar/branches"), |_| crate::support::refused(ErrorCode::GitFailed, "no"))
        .await;
    assert_eq!(status, 502, "the newer one was asked");
    assert_eq!(api.get("/api/agents/micro").await.1["connected"], true);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_request_in_flight_fails_as_soon_as_its_agent_is_gone() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let ((status, problem), ()) = tokio::join!(api.get("/api/repos/eredar/branches"), async {
        agent.request().await;
        drop(agent);
    });
    assert_eq!(
        (status, problem["code"].as_str(), problem["holder"].as_str()),
        (503, Some("agent-away"), Some("micro"))
    );
    assert!(problem["detail"].as_str().unwrap().contains("went away before it answered"), "{problem}");

    until(|| api.get("/api/agents/micro"), |(_, agent)| agent["connected"] == false).await;
    let (status, problem) = api.get("/api/repos/eredar/branches").await;
    assert_eq!(status, 503);
    assert!(problem["detail"].as_str().unwrap().contains("last seen 20"), "{problem}");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn an_agent_that_does_not_answer_in_time_is_a_timeout() {
    let plane = Plane::with(|config| config.agents.request = Duration::from_millis(100)).await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let ((status, problem), request) = tokio::join!(api.get("/api/repos/eredar/branches"), agent.request());
    assert_eq!((status, problem["code"].as_str()), (504, Some("timeout")), "{problem}");
    assert_eq!(request.deadline_ms, 100, "the agent is told how long it has");
    // Its late answer harms nobody.
    agent.reply(request.id, done(&request.body)).await;
    agent.events(DeploymentId::new(), 1, &states(&["source"])).await;
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_half_open_connection_is_noticed() {
    let plane = Plane::with(|config| {
        config.agents.ping = Duration::from_millis(50);
        config.agents.silence = Duration::from_millis(400);
    })
    .await;
    let (agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    // Nobody reads from its socket, so that no ping is answered, and nothing closes it either.
    let asleep = agent;
    let (_, gone) = until(|| api.get("/api/agents/micro"), |(_, agent)| agent["connected"] == false).await;
    assert!(gone["last_seen"].is_string());
    drop(asleep);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_connection_that_answers_pings_stays() {
    let plane = Plane::with(|config| {
        config.agents.ping = Duration::from_millis(20);
        config.agents.silence = Duration::from_millis(400);
    })
    .await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let silence = tokio::time::sleep(Duration::from_millis(1200));
    agent.during(silence, done).await;
    assert_eq!(api.get("/api/agents/micro").await.1["connected"], true);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_revoked_agent_is_shown_the_door() {
    let plane = Plane::with(|config| config.agents.ping = Duration::from_millis(20)).await;
    let (mut agent, _, token) = plane.ready(inventory(&["eredar"])).await;
    assert!(plane.server.state().store().remove_agent(&"micro".parse().unwrap()).await.unwrap());
    assert_eq!(agent.refusal().await.code, ErrorCode::NotAllowed);
    agent.gone().await;
    let mut again = Agent::dial(plane.address()).await;
    again.send(AgentFrame::Hello(Box::new(hello("micro", &token)))).await;
    assert_eq!(again.refusal().await.code, ErrorCode::NotAllowed);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn an_agents_inventory_is_what_it_told_last_and_is_kept() {
    let plane = Plane::new().await;
    let (mut agent, api, token) = plane.ready(inventory(&["eredar"])).await;
    agent.send(AgentFrame::Inventory(Box::new(inventory(&["eredar", "illidan"])))).await;
    let both = |(_, repos): &(u16, serde_json::Value)| repos.as_array().is_some_and(|repos| repos.len() == 2);
    until(|| api.get("/api/repos"), both).await;
    drop((agent, api));

    let plane = plane.restarted().await;
    let mut other = Agent::greet(plane.address(), hello("other", &plane.enrol("other").await)).await;
    let api = Api::sign_in(plane.address(), &mut other, "ada").await;
    let (_, repos) = api.get("/api/repos").await;
    let agents: Vec<_> = repos.as_array().unwrap().iter().map(|repo| (&repo["name"], &repo["agents"])).collect();
    assert_eq!(agents, [(&json!("eredar"), &json!(["micro", "other"])), (&json!("illidan"), &json!(["micro"]))]);
    drop(token);
    plane.server.shutdown().await;
}
