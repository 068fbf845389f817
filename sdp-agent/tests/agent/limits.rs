//! What a machine has room for: builds at once, and space on its disks.

use std::num::NonZeroUsize;

use crate::support::*;
use sdp_agent::Agent;
use sdp_core::{
    DeploymentState, ErrorCode, EventKind, InstanceKey,
    protocol::{ReplyBody, RequestBody},
    testing::{Behaviour, MemoryDeployer, MemoryRepos},
};

fn repos() -> MemoryRepos {
    MemoryRepos::with_repo("eredar").branch("eredar", "main", &[])
}

fn in_sandbox(sandbox: &str) -> InstanceKey {
    InstanceKey::in_sandbox(sandbox.parse().unwrap(), "eredar".parse().unwrap())
}

#[tokio::test]
async fn more_builds_than_the_machine_may_run_wait_and_say_so() {
    let (server, dir, deployer) = (Server::start().await, tempfile::tempdir().unwrap(), MemoryDeployer::default());
    deployer.behave(Behaviour::BuildHangs);
    let mut config = config(&server, dir.path(), "");
    config.deployer.builds = Some(NonZeroUsize::MIN);
    let agent = Agent::start_with(config, parts(repos(), deployer.clone())).unwrap();
    let mut connection = server.welcome(Log::new()).await;
    let first = connection.deploy(&in_sandbox("one"), "main").await;
    connection.until_building(first).await;
    deployer.behave(Behaviour::Works);
    let second = connection.deploy(&in_sandbox("two"), "main").await;
    let waits = |connection: &Connection| {
        let waiting = |kind: &EventKind| matches!(kind, EventKind::Log { line, .. } if line.starts_with("waiting"));
        connection.log.get(&second).is_some_and(|log| log.iter().any(|event| waiting(&event.kind)))
    };
    connection.until(waits).await;
    assert_eq!(deployer.builds(), 1);
    connection.call(RequestBody::Cancel { deployment: first }).await.unwrap();
    connection.until_state(second, DeploymentState::Running).await;
    agent.shutdown().await;
}

#[tokio::test]
async fn a_deployment_is_refused_while_a_disk_is_nearly_full() {
    let (server, dir, deployer) = (Server::start().await, tempfile::tempdir().unwrap(), MemoryDeployer::default());
    let mut config = config(&server, dir.path(), "");
    config.deployer.min_free_mib = u64::MAX;
    let agent = Agent::start_with(config, parts(repos(), deployer.clone())).unwrap();
    let mut connection = server.welcome(Log::new()).await;
    let request = request(&in_sandbox("one"), "main");
    let deploy = RequestBody::Deploy { request: Box::new(request), credentials: None };
    let problem = connection.call(deploy).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::DiskFull);
    assert!(problem.detail.contains("min_free_mib"), "{problem}");
    assert_eq!((deployer.builds(), connection.log.len()), (0, 0));
    agent.shutdown().await;
}

#[tokio::test]
async fn what_is_checked_out_for_sandboxes_is_told_until_it_is_removed() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let agent = start(&server, dir.path(), parts(repos(), MemoryDeployer::default()));
    let mut connection = server.welcome(Log::new()).await;
    for key in [quick("eredar"), in_sandbox("one")] {
        let deployment = connection.deploy(&key, "main").await;
        connection.until_state(deployment, DeploymentState::Running).await;
    }
    let keys = vec![in_sandbox("one")];
    assert_eq!(connection.call(RequestBody::Checkouts).await, Ok(ReplyBody::Checkouts { keys }));
    connection.call(RequestBody::Remove { key: in_sandbox("one") }).await.unwrap();
    assert_eq!(connection.call(RequestBody::Checkouts).await, Ok(ReplyBody::Checkouts { keys: vec![] }));
    agent.shutdown().await;
}
