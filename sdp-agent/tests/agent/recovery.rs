//! An agent that is killed, and the one that comes after it.

use std::sync::Arc;

use crate::support::*;
use sdp_agent::{Agent, Outbox};
use sdp_core::{
    Artifact, DeployJob, Deployer, DeploymentId, DeploymentState, ErrorCode, EventKind, EventSink, HostPort,
    Replacement, RepoSource, Stage, StageStatus,
    protocol::RequestBody,
    testing::{Behaviour, MemoryDeployer, MemoryRepos, MemoryRoutes, MemorySink},
};

fn repos() -> MemoryRepos {
    let spec = serde_json::json!({
        "name": "eredar", "path": "/memory", "remote": "https://git.example/x.git", "recipe": "command",
        "health": { "tcp": true, "timeout": "1h", "interval": "5ms" },
    });
    let repos = MemoryRepos::default().spec(serde_json::from_value(spec).unwrap());
    repos.branch("eredar", "main", &[]).branch("eredar", "feature/x", &[])
}

/// Runs `main`, then kills an agent that deploys `feature/x` and hangs in `stage`; answers how the
/// next agent ends it.
async fn killed_in(stage: DeploymentState, behaviour: Behaviour) -> (MemoryRepos, MemoryDeployer, sdp_core::Failure) {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let (repos, deployer) = (repos(), MemoryDeployer::default());
    let agent = Mortal::start(config(&server, dir.path(), ""), parts(repos.clone(), deployer.clone())).await;
    let mut connection = server.welcome(Log::new()).await;
    let good = connection.deploy(&quick("eredar"), "main").await;
    connection.until_state(good, DeploymentState::Running).await;
    deployer.behave(behaviour);
    let bad = connection.deploy(&quick("eredar"), "feature/x").await;
    connection.until_state(bad, stage).await;
    let queued = connection.deploy(&quick("eredar"), "main").await;
    let log = connection.log.clone();
    agent.kill().await;

    deployer.behave(Behaviour::Works);
    let agent = start(&server, dir.path(), parts(repos.clone(), deployer.clone()));
    let mut connection = server.welcome(log).await;
    for deployment in [bad, queued] {
        connection.until_state(deployment, DeploymentState::Failed).await;
    }
    assert_eq!(states(&connection.log, queued), [DeploymentState::Queued, DeploymentState::Failed]);
    let answering = deployer.answering();
    assert_eq!(answering.iter().map(|instance| instance.deployment).collect::<Vec<_>>(), [good]);
    let checkout = repos.checkout(&quick("eredar")).await.unwrap().unwrap();
    assert_eq!(checkout.branch.as_str(), "main", "the checkout is put back");
    let again = connection.deploy(&quick("eredar"), "feature/x").await;
    connection.until_state(again, DeploymentState::Running).await;
    let failure = failure(&connection.log, bad);
    agent.shutdown().await;
    assert!(files_below(&dir.path().join("work")).is_empty());
    (repos, deployer, failure)
}

#[tokio::test]
async fn one_killed_while_building_is_ended_as_failed_and_what_served_still_does() {
    let (_, _, failure) = killed_in(DeploymentState::Build, Behaviour::BuildHangs).await;
    assert_eq!((failure.stage, failure.code), (Some(Stage::Build), ErrorCode::AgentAway));
    assert_eq!(failure.previous_restored, None);
    assert!(failure.reason.contains("the agent was restarted"), "{failure:?}");
}

#[tokio::test]
async fn one_killed_before_it_was_healthy_gives_its_place_back() {
    let (_, _, failure) = killed_in(DeploymentState::Health, Behaviour::NeverHealthy).await;
    assert_eq!((failure.stage, failure.previous_restored), (Some(Stage::Health), Some(true)));
}

#[tokio::test]
async fn a_parked_instance_that_nobody_stands_in_for_serves_again() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let (repos, deployer) = (repos(), MemoryDeployer::default());
    let agent = start(&server, dir.path(), parts(repos.clone(), deployer.clone()));
    let mut connection = server.welcome(Log::new()).await;
    let good = connection.deploy(&quick("eredar"), "main").await;
    connection.until_state(good, DeploymentState::Running).await;
    let running = deployer.answering().remove(0);
    drop(connection);
    agent.shutdown().await;

    // As after a kill between parking it and making the next one.
    let job = DeployJob {
        deployment: DeploymentId::new(),
        key: running.key.clone(),
        repo: repos.repos().remove(0),
        checkout: repos.checkout(&running.key).await.unwrap().unwrap(),
        host_port: running.host_port,
        env: Default::default(),
    };
    let artifact = Artifact { path: None, reused: false };
    let sink = MemorySink::default();
    let Replacement { current, previous, .. } =
        deployer.start(&job, &artifact, &sink, &Default::default()).await.unwrap();
    assert!(previous.unwrap().parked);
    deployer.revert(&Replacement { current, previous: None, beside: false }).await.unwrap();
    assert!(deployer.answering().is_empty());

    let agent = start(&server, dir.path(), parts(repos, deployer.clone()));
    eventually("the parked one to serve", || deployer.answering().len() == 1).await;
    agent.shutdown().await;
}

#[tokio::test]
async fn a_gateway_killed_in_the_middle_gets_its_overrides_again() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let (repos, deployer) = (repos(), MemoryDeployer::default());
    let routes = MemoryRoutes::new("main", [("eredar", "http://eredar.ocp.example")]);
    let more = "[[repo]]\nname = 'eredar'\npath = '/x'\nremote = 'https://g/x.git'\nrecipe = 'php'\n\
        [gateway]\nrepo = 'eredar'\nconfig = 'config.php'\n";
    let parts = || parts(repos.clone(), deployer.clone()).routes(Arc::new(routes.clone()));
    let agent = Mortal::start(config(&server, dir.path(), more), parts()).await;
    let mut connection = server.welcome(Log::new()).await;
    let good = connection.deploy(&quick("eredar"), "main").await;
    connection.until_state(good, DeploymentState::Running).await;
    deployer.behave(Behaviour::NeverHealthy);
    let bad = connection.deploy(&quick("eredar"), "feature/x").await;
    connection.until_state(bad, DeploymentState::Health).await;
    let log = connection.log.clone();
    let reloads = routes.reloads();
    agent.kill().await;

    let agent = sdp_agent::Agent::start_with(config(&server, dir.path(), more), parts()).unwrap();
    let mut connection = server.welcome(log).await;
    connection.until_state(bad, DeploymentState::Failed).await;
    assert!(routes.reloads() > reloads);
    agent.shutdown().await;
}

#[tokio::test]
async fn one_killed_after_its_last_stage_is_ended_as_running_and_the_one_before_serves_on_until_nobody_is_sent_there() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let (repos, deployer) = (repos(), MemoryDeployer::default());
    let (first, deployment, key) = (DeploymentId::new(), DeploymentId::new(), quick("eredar"));
    let sink = MemorySink::default();
    let checkout = repos.prepare(&key, &"main".parse().unwrap(), None, &sink, &Default::default()).await.unwrap();
    let job = DeployJob {
        deployment: first,
        key,
        repo: repos.repos().remove(0),
        checkout,
        host_port: HostPort::new(20_000).unwrap(),
        env: Default::default(),
    };
    let artifact = Artifact { path: None, reused: false };
    let before = deployer.start(&job, &artifact, &sink, &Default::default()).await.unwrap();
    deployer.settle(&before).await.unwrap();
    let job = DeployJob { deployment, host_port: HostPort::new(20_001).unwrap(), ..job };
    let replacement = deployer.start(&job, &artifact, &sink, &Default::default()).await.unwrap();
    assert!(replacement.beside);
    let outbox = Outbox::open(dir.path().join("outbox")).unwrap();
    let events = outbox.sink(deployment).unwrap();
    for state in [DeploymentState::Queued, DeploymentState::Routes] {
        events.accept(EventKind::state(state)).await.unwrap();
    }
    for status in [StageStatus::Started, StageStatus::Skipped] {
        events.accept(EventKind::Stage { stage: Stage::Routes, status }).await.unwrap();
    }
    drop((events, outbox));
    let record = serde_json::json!({
        "deployment": deployment, "key": job.key, "branch": "main", "retire_on_request": true,
    });
    std::fs::create_dir(dir.path().join("work")).unwrap();
    std::fs::write(dir.path().join("work").join(format!("{deployment}.json")), record.to_string()).unwrap();

    let config = config(&server, dir.path(), "[deployer]\ndrain = '0s'\n");
    let agent = Agent::start_with(config, parts(repos, deployer.clone())).unwrap();
    let mut connection = server.welcome(Log::new()).await;
    connection.until_state(deployment, DeploymentState::Running).await;
    // Past every clean-up: a request about the instances is answered in turn.
    connection.call(RequestBody::Instances).await.unwrap();
    assert_eq!(deployer.list().await.unwrap().len(), 2, "the gateway may be behind");
    connection.call(RequestBody::Retire { deployment }).await.unwrap();
    patiently("the one before to retire", async {
        while deployer.list().await.unwrap().len() > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(deployer.answering()[0].deployment, deployment);
    agent.shutdown().await;
}

/// Cancels a deployment that stands in for `main` while the engine is away; answers the agent and
/// the deployment that should serve again.
async fn cancelled_without_engine(server: &Server, dir: &std::path::Path) -> (Agent, MemoryDeployer, DeploymentId) {
    let deployer = MemoryDeployer::default();
    let agent = start(server, dir, parts(repos(), deployer.clone()));
    let mut connection = server.welcome(Log::new()).await;
    let good = connection.deploy(&quick("eredar"), "main").await;
    connection.until_state(good, DeploymentState::Running).await;
    deployer.behave(Behaviour::NeverHealthy);
    let bad = connection.deploy(&quick("eredar"), "feature/x").await;
    connection.until_state(bad, DeploymentState::Health).await;
    deployer.behave(Behaviour::EngineAway);
    connection.call(RequestBody::Cancel { deployment: bad }).await.unwrap();
    connection.until_state(bad, DeploymentState::Cancelled).await;
    let told = format!("{:?}", connection.log[&bad]);
    assert!(told.contains("the previous instance could not be put back: the container engine does not answer"));
    (agent, deployer, good)
}

async fn serves_alone(deployer: &MemoryDeployer, deployment: DeploymentId) {
    deployer.behave(Behaviour::Works);
    let alone = || deployer.answering().iter().map(|it| it.deployment).eq([deployment]);
    eventually("the previous one to serve", alone).await;
    assert_eq!(deployer.list().await.unwrap().len(), 1, "nothing else is left");
}

#[tokio::test]
async fn what_an_engine_that_is_away_keeps_from_being_undone_is_undone_when_it_is_back() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let (agent, deployer, good) = cancelled_without_engine(&server, dir.path()).await;
    serves_alone(&deployer, good).await;
    eventually("the record's end", || files_below(&dir.path().join("work")).is_empty()).await;
    agent.shutdown().await;
}

#[tokio::test]
async fn an_agent_that_ends_before_the_engine_is_back_leaves_it_to_the_next() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let (agent, deployer, good) = cancelled_without_engine(&server, dir.path()).await;
    agent.shutdown().await;
    assert_eq!(files_below(&dir.path().join("work")).len(), 1);
    let agent = start(&server, dir.path(), parts(repos(), deployer.clone()));
    serves_alone(&deployer, good).await;
    agent.shutdown().await;
}
