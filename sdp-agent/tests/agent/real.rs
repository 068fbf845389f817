//! The agent on its real parts: git over authenticated HTTP, and processes of this host.

use std::path::Path;

use sdp_agent::Agent;
use sdp_core::{
    Credentials, DeploymentState, ErrorCode, EventKind, InstanceState, Stage, StageStatus, UserName,
    protocol::{CredentialsFrame, ReplyBody, RequestBody},
};
use sdp_git::testing::GitHost;

use crate::support::*;

const PASSWORD: &str = "correct-horse/battery+staple";

fn credentials(password: &str) -> CredentialsFrame {
    CredentialsFrame(Credentials::new(UserName::new("ada").unwrap(), password.into()))
}

/// A git host whose `main` becomes healthy and whose `feature/x` does not.
async fn host() -> GitHost {
    let host = GitHost::start(&[("ada", PASSWORD)]).await.unwrap();
    host.create_repo("eredar").await.unwrap();
    let main: [(&str, &[u8]); 2] = [("branch.txt", b"main"), ("healthy", b"")];
    host.commit("eredar", "main", None, &main, "works").await.unwrap();
    host.commit("eredar", "feature/x", Some("main"), &[("branch.txt", b"feature/x")], "breaks").await.unwrap();
    host
}

fn repo(host: &GitHost, path: &Path, health: &str) -> String {
    format!(
        "[deployer]\nkind = 'process'\n[[repo]]\nname = 'eredar'\nservice = 'eredar'\npath = '{}'\nremote = '{}'\n\
        recipe = 'command'\nbuild = ['cat', 'branch.txt']\nrun = ['sleep', '120']\n\
        health = {{ command = {health}, interval = '10ms', timeout = '1h' }}\n",
        path.display(),
        host.url("eredar")
    )
}

#[tokio::test]
async fn branches_are_deployed_from_real_git_as_real_processes_and_the_password_stays_nowhere() {
    let (host, server, dir) = (host().await, Server::start().await, tempfile::tempdir().unwrap());
    let repo = repo(&host, &dir.path().join("eredar"), "['true']");
    let data = dir.path().join("data");
    let agent = Agent::start(config(&server, &data, &repo)).await.unwrap();
    let mut connection = server.welcome(Log::new()).await;

    let verify = |password| RequestBody::Verify { repo: None, credentials: credentials(password) };
    assert_eq!(connection.call(verify(PASSWORD)).await, Ok(ReplyBody::Done));
    assert_eq!(connection.call(verify("wrong")).await.unwrap_err().code, ErrorCode::InvalidCredentials);

    for branch in ["main", "feature/x"] {
        let deployment = connection.deploy_with(&quick("eredar"), branch, Some(credentials(PASSWORD))).await;
        connection
            .until(|connection| states(&connection.log, deployment).last().is_some_and(|state| !state.is_active()))
            .await;
        assert_eq!(
            states(&connection.log, deployment).last(),
            Some(&DeploymentState::Running),
            "{:?}",
            connection.log[&deployment]
        );
        let built = format!("{:?}", connection.log[&deployment]);
        assert!(built.contains(&format!("line: \"{branch}\"")), "{built}");
    }
    let Ok(ReplyBody::Instances { instances }) = connection.call(RequestBody::Instances).await else { panic!() };
    assert_eq!(instances.len(), 1, "one instance of a repo: {instances:?}");
    assert_eq!((instances[0].branch.as_str(), &instances[0].state), ("feature/x", &InstanceState::Running));

    for path in files_below(dir.path()) {
        let bytes = std::fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(PASSWORD) && !text.contains("correct-horse"), "{}", path.display());
    }
    connection.call(RequestBody::Remove { key: quick("eredar") }).await.unwrap();
    assert_eq!(connection.call(RequestBody::Instances).await, Ok(ReplyBody::Instances { instances: vec![] }));
    assert!(!dir.path().join("eredar").exists(), "the checkout is removed");
    agent.shutdown().await;
}

#[tokio::test]
async fn after_a_kill_in_the_middle_the_previous_process_serves_again() {
    let (host, server, dir) = (host().await, Server::start().await, tempfile::tempdir().unwrap());
    let checkout = dir.path().join("eredar");
    let (data, file) = (dir.path().join("data"), dir.path().join("sdp-agent.toml"));
    let repo = repo(&host, &checkout, "['test', '-f', 'healthy']");
    std::fs::write(&file, config_text(&server, &data, &repo)).unwrap();
    let mut daemon = tokio::process::Command::new(env!("CARGO_BIN_EXE_sdp-agent"));
    daemon.arg("--config").arg(&file).env(sdp_agent::config::TOKEN_ENV, TOKEN).kill_on_drop(true);
    let mut daemon = daemon.stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut connection = server.welcome(Log::new()).await;
    let good = connection.deploy_with(&quick("eredar"), "main", Some(credentials(PASSWORD))).await;
    connection.until_state(good, DeploymentState::Running).await;
    let bad = connection.deploy_with(&quick("eredar"), "feature/x", Some(credentials(PASSWORD))).await;
    connection.until_state(bad, DeploymentState::Health).await;
    assert_eq!(std::fs::read_to_string(checkout.join("branch.txt")).unwrap(), "feature/x");
    let log = connection.log.clone();
    daemon.kill().await.unwrap();

    let agent = Agent::start(config(&server, &data, &repo)).await.unwrap();
    let mut connection = server.welcome(log).await;
    connection.until_state(bad, DeploymentState::Failed).await;
    assert_eq!(failure(&connection.log, bad).previous_restored, Some(true));
    let Ok(ReplyBody::Instances { instances }) = connection.call(RequestBody::Instances).await else { panic!() };
    let found: Vec<_> = instances.iter().map(|instance| (instance.deployment, &instance.state)).collect();
    assert_eq!(found, [(good, &InstanceState::Running)]);
    assert_eq!(std::fs::read_to_string(checkout.join("branch.txt")).unwrap(), "main");
    connection.call(RequestBody::Remove { key: quick("eredar") }).await.unwrap();
    agent.shutdown().await;
}

#[tokio::test]
async fn a_crash_between_a_build_and_its_keeping_is_told_and_the_next_deployment_builds_again() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let host = GitHost::start(&[("ada", PASSWORD)]).await.unwrap();
    host.create_repo("eredar").await.unwrap();
    // It makes everything, and its last act is to kill the agent.
    let script = "until [ -e ../go ]; do sleep 0.02; done; cp build.sh $SDP_OUT/; [ -e ../safe ] || kill -9 $PPID";
    host.commit("eredar", "main", None, &[("build.sh", script.as_bytes())], "kills").await.unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("sdp-agent.toml"));
    let repo =
        repo(&host, &dir.path().join("eredar"), "['true']").replace("['cat', 'branch.txt']", "['sh', 'build.sh']");
    std::fs::write(&file, config_text(&server, &data, &repo)).unwrap();
    let mut daemon = tokio::process::Command::new(env!("CARGO_BIN_EXE_sdp-agent"));
    daemon.arg("--config").arg(&file).env(sdp_agent::config::TOKEN_ENV, TOKEN).kill_on_drop(true);
    let mut daemon = daemon.stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut connection = server.welcome(Log::new()).await;
    let killed = connection.deploy_with(&quick("eredar"), "main", Some(credentials(PASSWORD))).await;
    std::fs::write(dir.path().join("go"), "").unwrap();
    patiently("the agent's end", daemon.wait()).await.unwrap();

    let store = || std::fs::read_dir(dir.path().join("eredar/.sdp/builds")).unwrap().map(|entry| entry.unwrap().path());
    let left: Vec<_> = store().collect();
    assert!(left.len() == 1 && left[0].extension().unwrap() == "building", "{left:?}");
    std::fs::write(dir.path().join("safe"), "").unwrap();
    let agent = Agent::start(config(&server, &data, &repo)).await.unwrap();
    let mut connection = server.welcome(Log::new()).await;
    connection.until_state(killed, DeploymentState::Failed).await;
    assert_eq!(failure(&connection.log, killed).stage, Some(Stage::Build));
    let status = |log: &Log, deployment| {
        let built = log[&deployment].iter().find_map(|event| match event.kind {
            EventKind::Stage { stage: Stage::Build, status } if status != StageStatus::Started => Some(status),
            _ => None,
        });
        built.unwrap()
    };
    for wanted in [StageStatus::Done, StageStatus::Skipped] {
        let again = connection.deploy_with(&quick("eredar"), "main", Some(credentials(PASSWORD))).await;
        connection.until_state(again, DeploymentState::Running).await;
        assert_eq!(status(&connection.log, again), wanted);
    }
    assert_eq!(store().count(), 1, "what the crash left is gone");
    connection.call(RequestBody::Remove { key: quick("eredar") }).await.unwrap();
    agent.shutdown().await;
}
