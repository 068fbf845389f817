//! What is left after a crash, and what an agent may not send.

use std::time::Duration;

use sdp_core::protocol::{AgentFrame, Hello, Outcome, ReplyBody, RequestBody, ServerFrame};
use sdp_core::{DeploymentId, ErrorCode};
use serde_json::json;

use crate::support::{Agent, Api, Plane, STATES, batch, held, hello, inventory, states, until};

#[tokio::test]
async fn what_was_logged_and_not_yet_in_the_database_is_there_after_a_restart() {
    let plane = Plane::new().await;
    let (mut agent, api, token) = plane.ready(inventory(&["eredar"])).await;
    let body = json!({ "repo": "eredar", "branch": "main" });
    let id = agent.accepts(&api, "/api/deployments", body).await.id;
    // As a crash between the log's sync and the database's commit leaves it.
    plane.server.state().logs().append(batch(id, 1, &states(&STATES[..3])).checked().unwrap()).await.unwrap();
    assert_eq!(api.state(id).await, "queued");
    drop(agent);

    let plane = plane.restarted().await;
    let hello = Hello { held: vec![held(id, 6)], ..hello("micro", &token) };
    let (mut agent, acked) = Agent::welcomed(plane.address(), hello).await;
    assert_eq!(acked[&id.to_string()], 3, "the agent sends the rest");
    let api = Api::sign_in(plane.address(), &mut agent, "ada").await;
    assert_eq!(api.state(id).await, "start");
    agent.events(id, 4, &states(&STATES[3..])).await;
    assert_eq!(api.state(id).await, "running");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn events_sent_again_are_acknowledged_again_and_kept_once() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let id = agent.accepts(&api, "/api/deployments", json!({ "repo": "eredar", "branch": "main" })).await.id;
    agent.events(id, 1, &states(&STATES[..3])).await;
    agent.send(AgentFrame::Events(batch(id, 1, &states(&STATES[..2])))).await;
    assert_eq!(agent.frame().await, ServerFrame::Ack { deployment: id, seq: 3 }, "cumulative");
    agent.events(id, 2, &states(&STATES[1..])).await;
    assert_eq!(api.follow(id, 1).await.len(), 7);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_gap_or_another_agents_deployment_ends_the_connection() {
    let plane = Plane::new().await;
    let (mut agent, api, token) = plane.ready(inventory(&["eredar"])).await;
    let id = agent.accepts(&api, "/api/deployments", json!({ "repo": "eredar", "branch": "main" })).await.id;

    let other_token = plane.enrol("other").await;
    let mut other = Agent::greet(plane.address(), hello("other", &other_token)).await;
    other.send(AgentFrame::Events(batch(id, 1, &states(&["source"])))).await;
    let problem = other.refusal().await;
    assert_eq!(problem.code, ErrorCode::NotAllowed, "{problem}");

    agent.send(AgentFrame::Events(batch(id, 5, &states(&["source"])))).await;
    agent.gone().await;
    let hello = Hello { held: vec![held(id, 5)], ..hello("micro", &token) };
    let (mut agent, acked) = Agent::welcomed(plane.address(), hello).await;
    assert_eq!(acked[&id.to_string()], 0, "nothing of either was kept");
    agent.events(id, 1, &states(&["source"])).await;
    until(|| api.state(id), |state| state == "source").await;
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_batch_whose_lines_are_no_events_is_refused_whole() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let id = agent.accepts(&api, "/api/deployments", json!({ "repo": "eredar", "branch": "main" })).await.id;
    let lines = format!("{}nonsense\n", String::from_utf8_lossy(batch(id, 1, &states(&["source"])).lines()));
    let batch = sdp_core::protocol::EventBatch::new(id, 1, lines.into()).unwrap();
    agent.send(AgentFrame::Events(batch)).await;
    let problem = agent.refusal().await;
    assert_eq!(problem.code, ErrorCode::BadRequest);
    assert!(problem.detail.contains("event 2"), "{problem}");
    assert_eq!(api.state(id).await, "queued");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn events_of_a_deployment_that_the_database_does_not_know_are_kept() {
    let plane = Plane::new().await;
    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    let id = DeploymentId::new();
    agent.events(id, 1, &states(&STATES)).await;
    assert_eq!(plane.server.state().logs().last_seq(id).await.unwrap(), 6);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_data_directory_has_one_server() {
    let plane = Plane::new().await;
    let config = sdp_server::ServerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: plane.dir.path().into(),
        ..Default::default()
    };
    let error = sdp_server::Server::bind(config).await.unwrap_err().to_string();
    assert!(error.contains("is in use"), "{error}");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_runs_no_more_is_marked_failed_after_a_second_look() {
    let plane = Plane::with(|config| config.agents.reconcile = Duration::from_millis(50)).await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let gone = agent.runs(&api, "/api/deployments").await;
    let looks = std::cell::Cell::new(0);
    let path = format!("/api/deployments/{}", gone.id);
    let answering = async {
        loop {
            let request = agent.request().await;
            let answer = match request.body {
                RequestBody::Instances => {
                    looks.set(looks.get() + 1);
                    ReplyBody::Instances { instances: Vec::new() }
                }
                RequestBody::Checkouts => ReplyBody::Checkouts { keys: Vec::new() },
                other => panic!("{other:?}"),
            };
            agent.reply(request.id, Outcome::Ok(answer)).await;
        }
    };
    tokio::select! {
        () = answering => {}
        failed = until(|| api.get(&path), |(_, it)| it["state"] == "failed") => {
            let reason = failed.1["failure"]["reason"].as_str().unwrap().to_owned();
            assert!(reason.contains("gone") && reason.contains("deploy again"), "{reason}");
        }
    }
    assert!(looks.get() >= 2);
    plane.server.shutdown().await;
}
