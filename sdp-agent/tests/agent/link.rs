//! The agent against a scripted control plane: events, reconnects, refusals, nonsense.

use std::time::Duration;

use crate::support::*;
use sdp_agent::LinkState;
use sdp_core::{
    DeploymentState, ErrorCode, Problem,
    protocol::{AgentFrame, MAX_FRAME_BYTES, Outcome, ReplyBody, RequestBody, ServerFrame},
    testing::{Behaviour, MemoryDeployer, MemoryRepos},
};
use secrecy::ExposeSecret;
use tokio_tungstenite::tungstenite::Message;

fn repos() -> MemoryRepos {
    MemoryRepos::with_repo("eredar").branch("eredar", "main", &[]).branch("eredar", "feature/x", &[])
}

#[tokio::test]
async fn the_hello_tells_who_the_agent_is_and_what_it_can_do() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let agent = start(&server, dir.path(), parts(repos(), MemoryDeployer::default()));
    let connection = server.welcome(Log::new()).await;
    let hello = connection.hello();
    assert_eq!((hello.agent.as_str(), hello.token.0.expose_secret()), ("micro-92", TOKEN));
    assert_eq!((&*hello.inventory.advertise, &*hello.inventory.deployer), ("127.0.0.1", "memory"));
    assert_eq!(hello.inventory.repos[0].name.as_str(), "eredar");
    assert!(hello.held.is_empty());
    drop(connection);
    agent.shutdown().await;
}

#[tokio::test]
async fn a_deployments_events_arrive_and_are_forgotten_once_acknowledged() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let agent = start(&server, dir.path(), parts(repos(), MemoryDeployer::default()));
    let mut connection = server.welcome(Log::new()).await;
    let deployment = connection.deploy(&quick("eredar"), "main").await;
    connection.until_state(deployment, DeploymentState::Running).await;
    assert_eq!(states(&connection.log, deployment).first(), Some(&DeploymentState::Queued));
    let outbox = dir.path().join("outbox");
    eventually("an empty outbox", || files_below(&outbox).is_empty()).await;
    agent.shutdown().await;
}

#[tokio::test]
async fn after_a_lost_connection_events_go_on_without_gap_or_duplicate() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let deployer = MemoryDeployer::default();
    deployer.behave(Behaviour::BuildHangs);
    let agent = start(&server, dir.path(), parts(repos(), deployer));
    let mut connection = server.welcome(Log::new()).await;
    connection.acks = false;
    let deployment = connection.deploy(&quick("eredar"), "main").await;
    connection.until_building(deployment).await;
    let log = connection.log.clone();
    drop(connection);

    // The server has them on disk though it never said so.
    let mut connection = server.welcome(log).await;
    assert_eq!(connection.hello().held[0].deployment, deployment);
    assert_eq!(connection.hello().held[0].state, DeploymentState::Build);
    connection.call(RequestBody::Cancel { deployment }).await.unwrap();
    connection.until_state(deployment, DeploymentState::Cancelled).await;
    let log = connection.log.clone();
    drop(connection);

    // A server that lost its disk gets all that is still held, from the start.
    let mut connection = server.accept().await;
    if !connection.hello().held.is_empty() {
        connection.send(&ServerFrame::Welcome(welcome())).await;
        connection.until_state(deployment, DeploymentState::Cancelled).await;
        assert_eq!(connection.log, log);
    }
    drop(connection);
    agent.shutdown().await;
}

fn welcome() -> sdp_core::protocol::Welcome {
    sdp_core::protocol::Welcome { protocol: 1, server: "0".into(), acked: Default::default() }
}

#[tokio::test]
async fn deployments_go_on_while_the_server_is_away() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let deployer = MemoryDeployer::default();
    let agent = start(&server, dir.path(), parts(repos(), deployer.clone()));
    let mut connection = server.welcome(Log::new()).await;
    connection.acks = false;
    let deployment = connection.deploy(&quick("eredar"), "main").await;
    let log = connection.log.clone();
    drop(connection);
    eventually("the deployment to run", || deployer.answering().len() == 1).await;
    let mut connection = server.welcome(log).await;
    connection.until_state(deployment, DeploymentState::Running).await;
    drop(connection);
    agent.shutdown().await;
}

#[tokio::test]
async fn unacknowledged_events_survive_the_agent() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let agent = start(&server, dir.path(), parts(repos(), MemoryDeployer::default()));
    let mut connection = server.welcome(Log::new()).await;
    connection.acks = false;
    let deployment = connection.deploy(&quick("eredar"), "main").await;
    connection.until_state(deployment, DeploymentState::Running).await;
    let log = connection.log.clone();
    drop(connection);
    agent.shutdown().await;

    let agent = start(&server, dir.path(), parts(repos(), MemoryDeployer::default()));
    let mut connection = server.accept().await;
    let held = &connection.hello().held[0];
    assert_eq!((held.deployment, held.first, held.last), (deployment, 1, log[&deployment].len() as u64));
    connection.send(&ServerFrame::Welcome(welcome())).await;
    connection.until_state(deployment, DeploymentState::Running).await;
    assert_eq!(connection.log, log, "the same lines, byte for byte read the same");
    let outbox = dir.path().join("outbox");
    eventually("an empty outbox", || files_below(&outbox).is_empty()).await;
    agent.shutdown().await;
}

#[tokio::test]
async fn a_refusal_is_told_and_the_server_is_asked_again() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let agent = start(&server, dir.path(), parts(repos(), MemoryDeployer::default()));
    let mut state = agent.link();
    let mut connection = server.accept().await;
    let problem = Problem::new(ErrorCode::NotAllowed, "the token of `micro-92` is not valid");
    connection.send(&ServerFrame::Refused(problem.clone())).await;
    patiently("the refusal", state.wait_for(|state| *state == LinkState::Refused(problem.clone()))).await.unwrap();
    let connection = server.welcome(Log::new()).await;
    let connected = |state: &LinkState| matches!(state, LinkState::Connected { .. });
    patiently("the connection", state.wait_for(connected)).await.unwrap();
    drop(connection);
    agent.shutdown().await;
}

#[tokio::test]
async fn a_server_that_nothing_gets_through_to_is_told_and_dialled_again() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let mut parts = parts(repos(), MemoryDeployer::default());
    (parts.timing.first_pause, parts.timing.longest_pause) = (Duration::from_secs(1), Duration::from_secs(1));
    let agent = start(&server, dir.path(), parts);
    let mut state = agent.link();
    let told = |state: &LinkState| matches!(state, LinkState::Away { reason } if reason.contains("answered 403"));
    let rejecting = async {
        // The WebSocket, and the plain HTTP that would stand in for it.
        server.reject().await;
        server.reject().await;
    };
    let (_, told) = tokio::join!(rejecting, patiently("the reason", state.wait_for(told)));
    drop(told);
    drop(server.welcome(Log::new()).await);
    agent.shutdown().await;
}

#[tokio::test]
async fn a_protocol_that_the_agent_does_not_speak_is_refused_with_the_cure() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let agent = start(&server, dir.path(), parts(repos(), MemoryDeployer::default()));
    let mut state = agent.link();
    let mut connection = server.accept().await;
    let newer = sdp_core::protocol::Welcome { protocol: 9, ..welcome() };
    connection.send(&ServerFrame::Welcome(newer)).await;
    let told = |state: &LinkState| matches!(state, LinkState::Refused(problem) if problem.detail.contains("update"));
    patiently("the refusal", state.wait_for(told)).await.unwrap();
    agent.shutdown().await;
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left_and_dialled_again() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let mut parts = parts(repos(), MemoryDeployer::default());
    parts.timing.ping = Duration::from_millis(20);
    parts.timing.silence = Duration::from_millis(100);
    let agent = start(&server, dir.path(), parts);
    let silent = server.welcome(Log::new()).await;
    let again = server.welcome(Log::new()).await;
    drop((silent, again));
    agent.shutdown().await;
}

#[tokio::test]
async fn a_server_that_answers_pings_keeps_its_connection() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let mut parts = parts(repos(), MemoryDeployer::default());
    parts.timing.ping = Duration::from_millis(10);
    parts.timing.silence = Duration::from_secs(20);
    let agent = start(&server, dir.path(), parts);
    let mut connection = server.welcome(Log::new()).await;
    for _ in 0..3 {
        connection.call(RequestBody::Instances).await.unwrap();
    }
    assert!(matches!(*agent.link().borrow(), LinkState::Connected { .. }));
    drop(connection);
    agent.shutdown().await;
}

#[tokio::test]
async fn what_the_agent_does_not_know_or_cannot_read_is_answered_and_survived() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let agent = start(&server, dir.path(), parts(repos(), MemoryDeployer::default()));
    let mut connection = server.welcome(Log::new()).await;
    for (sent, answered) in [
        (Message::text(r#"{"type":"telepathy"}"#), "telepathy"),
        (Message::text("{"), "unreadable"),
        (Message::text(r#"{"type":"ack","seq":"many"}"#), "ack"),
        (Message::binary(vec![0xff, 0xfe]), "binary"),
    ] {
        connection.send_raw(sent).await;
        let answer = connection.frame().await;
        assert_eq!(answer, AgentFrame::Unsupported { frame: answered.into() });
    }
    connection.send(&ServerFrame::Unsupported { frame: "x".into() }).await;
    let problem = |frame: AgentFrame| match frame {
        AgentFrame::Reply(reply) => match reply.outcome {
            Outcome::Problem(problem) => (reply.id, problem.code),
            Outcome::Ok(body) => panic!("a success: {body:?}"),
        },
        other => panic!("not a reply: {other:?}"),
    };
    let request = r#"{"type":"request","id":901,"deadline_ms":1000,"body":{"op":"levitate"}}"#;
    connection.send_raw(Message::text(request)).await;
    assert_eq!(problem(connection.frame().await), (901, ErrorCode::Unsupported));
    let request = r#"{"type":"request","id":902,"deadline_ms":1000,"body":{"op":"branches","repo":"../x","limit":1}}"#;
    connection.send_raw(Message::text(request)).await;
    assert_eq!(problem(connection.frame().await), (902, ErrorCode::BadRequest));
    assert_eq!(connection.call(RequestBody::Instances).await, Ok(ReplyBody::Instances { instances: vec![] }));
    drop(connection);
    agent.shutdown().await;
}

#[tokio::test]
async fn a_frame_over_the_limit_costs_the_connection_and_nothing_else() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let agent = start(&server, dir.path(), parts(repos(), MemoryDeployer::default()));
    let mut connection = server.welcome(Log::new()).await;
    let sending = connection.send_unheeded(Message::text(" ".repeat(MAX_FRAME_BYTES + 1)));
    let ((), mut connection) = tokio::join!(sending, server.welcome(Log::new()));
    assert!(connection.call(RequestBody::Instances).await.is_ok());
    drop(connection);
    agent.shutdown().await;
}

#[tokio::test]
async fn a_data_directory_serves_one_agent_at_a_time() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let agent = start(&server, dir.path(), parts(repos(), MemoryDeployer::default()));
    let parts = || parts(repos(), MemoryDeployer::default());
    let error = sdp_agent::Agent::start_with(config(&server, dir.path(), ""), parts()).unwrap_err();
    assert!(error.to_string().contains("is in use"), "{error}");
    agent.shutdown().await;
    start(&server, dir.path(), parts()).shutdown().await;
}
