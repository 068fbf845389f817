//! What the agent does with deployments and instances, asked over the link.

use std::{path::Path, sync::Arc};

use crate::support::*;
use async_trait::async_trait;
use sdp_core::{
    Branch, BranchName, Checkout, CommitId, Credentials, Deployer, DeploymentState, ErrorCode, EventKind, EventSink,
    ExecCommand, InstanceKey, InstanceState, LogLine, LogOptions, LogStream, Override, OverrideKind, RepoError,
    RepoName, RepoSource, RepoSpec, RouteChanges, Stage, UserName, Verdict,
    protocol::{CredentialsFrame, OutputStep, ReplyBody, RequestBody},
    testing::{Behaviour, MemoryDeployer, MemoryRepos, MemoryRoutes, Ran},
};
use tokio_util::sync::CancellationToken;

fn repos() -> MemoryRepos {
    MemoryRepos::with_repo("eredar").branch("eredar", "main", &[]).branch("eredar", "feature/x", &[])
}

fn credentials(password: &str) -> CredentialsFrame {
    CredentialsFrame(Credentials::new(UserName::new("ada").unwrap(), password.into()))
}

#[tokio::test]
async fn a_deployment_is_cancelled_when_asked_and_again_is_fine() {
    let (server, dir, deployer) = (Server::start().await, tempfile::tempdir().unwrap(), MemoryDeployer::default());
    deployer.behave(Behaviour::BuildHangs);
    let agent = start(&server, dir.path(), parts(repos(), deployer));
    let mut connection = server.welcome(Log::new()).await;
    let deployment = connection.deploy(&quick("eredar"), "main").await;
    connection.until_building(deployment).await;
    connection.call(RequestBody::Cancel { deployment }).await.unwrap();
    connection.until_state(deployment, DeploymentState::Cancelled).await;
    assert_eq!(connection.call(RequestBody::Cancel { deployment }).await, Ok(ReplyBody::Done));
    let unknown = RequestBody::Cancel { deployment: sdp_core::DeploymentId::new() };
    assert_eq!(connection.call(unknown).await.unwrap_err().code, ErrorCode::NotFound);
    agent.shutdown().await;
}

#[tokio::test]
async fn what_was_replaced_serves_on_until_the_server_knows_of_the_new_one() {
    let (server, dir, deployer) = (Server::start().await, tempfile::tempdir().unwrap(), MemoryDeployer::default());
    let config = config(&server, dir.path(), "[deployer]\ndrain = '0s'\n");
    let agent = sdp_agent::Agent::start_with(config, parts(repos(), deployer.clone())).unwrap();
    let mut connection = server.welcome(Log::new()).await;
    let key = InstanceKey::in_sandbox("pay".parse().unwrap(), "eredar".parse().unwrap());
    let first = connection.deploy(&key, "main").await;
    connection.until_state(first, DeploymentState::Running).await;
    connection.acks = false;
    let second = connection.deploy(&key, "feature/x").await;
    connection.until_state(second, DeploymentState::Running).await;
    let of = async || deployer.list().await.unwrap().into_iter().map(|it| it.deployment).collect::<Vec<_>>();
    assert_eq!(of().await, [second, first], "the server may still send requests to the first");
    let seq = connection.log[&second].len() as u64;
    connection.send(&sdp_core::protocol::ServerFrame::Ack { deployment: second, seq }).await;
    patiently("the first to retire", async {
        while of().await != [second] {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
    agent.shutdown().await;
}

#[tokio::test]
async fn what_was_replaced_serves_on_until_it_is_asked_to_retire_where_the_server_does_that() {
    let (server, dir, deployer) = (Server::start().await, tempfile::tempdir().unwrap(), MemoryDeployer::default());
    let config = config(&server, dir.path(), "[deployer]\ndrain = '0s'\n");
    let agent = sdp_agent::Agent::start_with(config, parts(repos(), deployer.clone())).unwrap();
    let mut connection = server.welcome(Log::new()).await;
    let key = InstanceKey::in_sandbox("pay".parse().unwrap(), "eredar".parse().unwrap());
    let of = async || deployer.list().await.unwrap().into_iter().map(|it| it.deployment).collect::<Vec<_>>();
    let only = async |wanted: sdp_core::DeploymentId| {
        patiently("the previous one to retire", async {
            while of().await != [wanted] {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        })
        .await;
    };
    let deploy = async |connection: &mut Connection| {
        let request = sdp_core::DeployRequest { retire_on_request: true, force: true, ..request(&key, "main") };
        let deployment = request.deployment;
        let body = RequestBody::Deploy { request: Box::new(request), credentials: None };
        assert_eq!(connection.call(body).await, Ok(ReplyBody::Done));
        connection.until_state(deployment, DeploymentState::Running).await;
        deployment
    };
    let first = deploy(&mut connection).await;
    let second = deploy(&mut connection).await;
    assert_eq!(of().await, [second, first], "the server knows, and the gateway is behind");
    assert_eq!(connection.call(RequestBody::Retire { deployment: second }).await, Ok(ReplyBody::Done));
    only(second).await;
    let third = deploy(&mut connection).await;
    assert_eq!(of().await, [third, second]);
    // A newer deployment needs the place: nobody waits for ever.
    let fourth = deploy(&mut connection).await;
    assert_eq!(of().await, [fourth, third]);
    assert_eq!(connection.call(RequestBody::Retire { deployment: fourth }).await, Ok(ReplyBody::Done));
    only(fourth).await;
    agent.shutdown().await;
}

#[tokio::test]
async fn of_those_that_wait_only_the_newest_deployment_stays() {
    let (server, dir, deployer) = (Server::start().await, tempfile::tempdir().unwrap(), MemoryDeployer::default());
    deployer.behave(Behaviour::BuildHangs);
    let agent = start(&server, dir.path(), parts(repos(), deployer.clone()));
    let mut connection = server.welcome(Log::new()).await;
    let first = connection.deploy(&quick("eredar"), "main").await;
    connection.until_building(first).await;
    let second = connection.deploy(&quick("eredar"), "main").await;
    let third = connection.deploy(&quick("eredar"), "feature/x").await;
    connection.until_state(second, DeploymentState::Superseded).await;
    assert_eq!(states(&connection.log, second), [DeploymentState::Queued, DeploymentState::Superseded]);
    deployer.behave(Behaviour::Works);
    connection.call(RequestBody::Cancel { deployment: first }).await.unwrap();
    connection.until_state(third, DeploymentState::Running).await;
    assert_eq!(deployer.answering()[0].deployment, third);
    agent.shutdown().await;
}

#[tokio::test]
async fn one_that_waits_can_be_cancelled_and_others_run_beside_it() {
    let (server, dir, deployer) = (Server::start().await, tempfile::tempdir().unwrap(), MemoryDeployer::default());
    deployer.behave(Behaviour::BuildHangs);
    let agent = start(&server, dir.path(), parts(repos(), deployer.clone()));
    let mut connection = server.welcome(Log::new()).await;
    let first = connection.deploy(&quick("eredar"), "main").await;
    connection.until_building(first).await;
    deployer.behave(Behaviour::Works);
    let sandbox = InstanceKey::in_sandbox("pay".parse().unwrap(), "eredar".parse().unwrap());
    let beside = connection.deploy(&sandbox, "main").await;
    connection.until_state(beside, DeploymentState::Running).await;
    let waits = connection.deploy(&quick("eredar"), "main").await;
    connection.call(RequestBody::Cancel { deployment: waits }).await.unwrap();
    connection.until_state(waits, DeploymentState::Cancelled).await;
    assert_eq!(states(&connection.log, waits), [DeploymentState::Queued, DeploymentState::Cancelled]);
    agent.shutdown().await;
}

#[tokio::test]
async fn asking_again_for_the_same_deployment_changes_nothing() {
    let (server, dir, deployer) = (Server::start().await, tempfile::tempdir().unwrap(), MemoryDeployer::default());
    let agent = start(&server, dir.path(), parts(repos(), deployer.clone()));
    let mut connection = server.welcome(Log::new()).await;
    let request = request(&quick("eredar"), "main");
    let deployment = request.deployment;
    let body = || RequestBody::Deploy { request: Box::new(request.clone()), credentials: None };
    connection.call(body()).await.unwrap();
    connection.until_state(deployment, DeploymentState::Running).await;
    assert_eq!(connection.call(body()).await, Ok(ReplyBody::Done));
    assert_eq!(deployer.builds(), 1);
    agent.shutdown().await;
}

#[tokio::test]
async fn instances_are_listed_stopped_restarted_and_removed_with_their_checkout() {
    let (server, dir, deployer) = (Server::start().await, tempfile::tempdir().unwrap(), MemoryDeployer::default());
    let repos = repos();
    let agent = start(&server, dir.path(), parts(repos.clone(), deployer.clone()));
    let mut connection = server.welcome(Log::new()).await;
    let key = quick("eredar");
    let missing = connection.call(RequestBody::Stop { key: key.clone() }).await.unwrap_err();
    assert_eq!(missing.code, ErrorCode::NotFound);
    let deployment = connection.deploy(&key, "main").await;
    connection.until_state(deployment, DeploymentState::Running).await;
    connection.call(RequestBody::Stop { key: key.clone() }).await.unwrap();
    let Ok(ReplyBody::Instances { instances }) = connection.call(RequestBody::Instances).await else { panic!() };
    assert!(matches!(instances[0].state, InstanceState::Exited { .. }));
    connection.call(RequestBody::Restart { key: key.clone() }).await.unwrap();
    assert_eq!(deployer.answering().len(), 1);

    deployer.behave(Behaviour::BuildHangs);
    let under_way = connection.deploy(&key, "feature/x").await;
    connection.until_building(under_way).await;
    connection.call(RequestBody::Remove { key: key.clone() }).await.unwrap();
    connection.until_state(under_way, DeploymentState::Cancelled).await;
    assert!(deployer.answering().is_empty() && repos.checkout(&key).await.unwrap().is_none());
    agent.shutdown().await;
}

#[tokio::test]
async fn what_waits_longer_than_its_deadline_is_told_so_and_not_done_later() {
    let (server, dir, deployer) = (Server::start().await, tempfile::tempdir().unwrap(), MemoryDeployer::default());
    let agent = start(&server, dir.path(), parts(repos(), deployer.clone()));
    let mut connection = server.welcome(Log::new()).await;
    let key = quick("eredar");
    let deployment = connection.deploy(&key, "main").await;
    connection.until_state(deployment, DeploymentState::Running).await;
    deployer.behave(Behaviour::BuildHangs);
    let hangs = connection.deploy(&key, "main").await;
    connection.until_building(hangs).await;
    let late = connection.call_within(RequestBody::Stop { key: key.clone() }, 20).await.unwrap_err();
    assert_eq!(late.code, ErrorCode::Timeout);
    connection.call(RequestBody::Cancel { deployment: hangs }).await.unwrap();
    connection.until_state(hangs, DeploymentState::Cancelled).await;
    connection.call(RequestBody::Restart { key }).await.unwrap();
    assert_eq!(deployer.answering().len(), 1);
    agent.shutdown().await;
}

#[tokio::test]
async fn credentials_are_verified_and_branches_found_through_the_agent() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let agent = start(&server, dir.path(), parts(repos().accept("ada", "right"), MemoryDeployer::default()));
    let mut connection = server.welcome(Log::new()).await;
    let verify = |password| RequestBody::Verify { repo: None, credentials: credentials(password) };
    assert_eq!(connection.call(verify("right")).await, Ok(ReplyBody::Done));
    assert_eq!(connection.call(verify("wrong")).await.unwrap_err().code, ErrorCode::InvalidCredentials);
    let body = RequestBody::Branches {
        repo: "eredar".parse().unwrap(),
        credentials: Some(credentials("right")),
        query: Some("FEATURE".into()),
        limit: 10,
    };
    let Ok(ReplyBody::Branches { branches }) = connection.call(body).await else { panic!() };
    assert_eq!(branches.iter().map(|branch| branch.name.as_str()).collect::<Vec<_>>(), ["feature/x"]);
    agent.shutdown().await;
}

#[tokio::test]
async fn routes_are_read_and_changed_and_the_gateways_branch_is_told() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let repos = repos().repo("gateway").branch("gateway", "main", &[]);
    let routes = MemoryRoutes::new("main", [("eredar", "http://eredar.ocp.example")]);
    let more = "[[repo]]\nname = 'gateway'\npath = '/x'\nremote = 'https://g/x.git'\nrecipe = 'php'\n\
        [gateway]\nrepo = 'gateway'\nconfig = 'config.php'\n";
    let parts = parts(repos, MemoryDeployer::default()).routes(Arc::new(routes.clone()));
    let agent = sdp_agent::Agent::start_with(config(&server, dir.path(), more), parts).unwrap();
    let mut connection = server.welcome(Log::new()).await;
    assert_eq!(connection.hello().inventory.gateway.as_ref().unwrap().branch, None);

    let deployment = connection.deploy(&quick("gateway"), "main").await;
    connection.until(|connection| !connection.inventories.is_empty()).await;
    let gateway = connection.inventories[0].gateway.clone().unwrap();
    assert_eq!(gateway.branch.unwrap().as_str(), "main");
    connection.until_state(deployment, DeploymentState::Running).await;

    let url = "http://127.0.0.1:9001".parse().unwrap();
    let over = Override::new(url, OverrideKind::Sandbox, "pay".parse().unwrap());
    let changes = RouteChanges { services: [("eredar".parse().unwrap(), Some(over))].into(), ..Default::default() };
    let Ok(ReplyBody::Routes { table }) = connection.call(RequestBody::ApplyRoutes { changes, sandbox: None }).await
    else {
        panic!()
    };
    assert_eq!(table.routes[0].value, "http://127.0.0.1:9001");
    assert_eq!(connection.call(RequestBody::Routes { sandbox: None }).await, Ok(ReplyBody::Routes { table }));
    agent.shutdown().await;
}

#[tokio::test]
async fn an_agent_without_a_gateway_says_so_when_asked_for_routes() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let agent = start(&server, dir.path(), parts(repos(), MemoryDeployer::default()));
    let mut connection = server.welcome(Log::new()).await;
    let problem = connection.call(RequestBody::Routes { sandbox: None }).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::NotFound);
    assert!(problem.detail.contains("[gateway]"), "{problem}");
    agent.shutdown().await;
}

#[tokio::test]
async fn what_runs_is_measured_when_asked() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let agent = start(&server, dir.path(), parts(repos(), MemoryDeployer::default()));
    let mut connection = server.welcome(Log::new()).await;
    let key = quick("eredar");
    let nothing = connection.call(RequestBody::Stats { key: key.clone() }).await;
    assert_eq!(nothing.unwrap_err().code, ErrorCode::NotFound);
    let deployment = connection.deploy(&key, "main").await;
    connection.until_state(deployment, DeploymentState::Running).await;
    let Ok(ReplyBody::Stats { instance, stats }) = connection.call(RequestBody::Stats { key }).await else { panic!() };
    assert_eq!(instance.deployment, deployment);
    assert!(stats.memory_bytes > 0);
    agent.shutdown().await;
}

#[tokio::test]
async fn what_a_program_prints_is_read_until_it_ends() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let agent = start(&server, dir.path(), parts(repos(), MemoryDeployer::default()));
    let mut connection = server.welcome(Log::new()).await;
    let key = quick("eredar");
    let read = |step| RequestBody::Output { key: key.clone(), reader: 7, step };
    let nothing = connection.call(read(OutputStep::Begin(LogOptions::default()))).await;
    assert_eq!(nothing.unwrap_err().code, ErrorCode::NotFound, "nothing runs");
    let deployment = connection.deploy(&key, "main").await;
    connection.until_state(deployment, DeploymentState::Running).await;
    let unknown = connection.call(read(OutputStep::Next)).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::NotFound);
    assert!(unknown.detail.contains("begin again"), "{unknown}");
    let told = connection.call(read(OutputStep::Begin(LogOptions { tail: Some(1), follow: true }))).await;
    let Ok(ReplyBody::Output { lines, ended: true, exit_code: None }) = told else { panic!("{told:?}") };
    assert!(lines.len() == 1 && lines[0].line.contains("listens on"), "{lines:?}");
    assert_eq!(
        connection.call(read(OutputStep::Next)).await.unwrap_err().code,
        ErrorCode::NotFound,
        "it was told to its end"
    );
    let ended = connection.call(read(OutputStep::End)).await;
    assert!(matches!(ended, Ok(ReplyBody::Output { ended: true, .. })), "whoever it was: {ended:?}");
    agent.shutdown().await;
}

#[tokio::test]
async fn commands_run_only_where_the_operator_allows_it_and_end_when_nobody_reads() {
    let (server, dir, deployer) = (Server::start().await, tempfile::tempdir().unwrap(), MemoryDeployer::default());
    let key = quick("eredar");
    let exec = |reader, command: &[&str]| {
        let step = OutputStep::Exec(ExecCommand::new(command.iter().copied()).unwrap());
        RequestBody::Output { key: key.clone(), reader, step }
    };
    let agent = start(&server, dir.path(), parts(repos(), deployer.clone()));
    let mut connection = server.welcome(Log::new()).await;
    assert_eq!(connection.hello().inventory.exec, Some(false));
    let refused = connection.call(exec(1, &["migrate"])).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotAllowed);
    assert!(refused.detail.contains("micro-92") && refused.detail.contains("exec = true"), "{refused}");
    agent.shutdown().await;

    let config = config(&server, dir.path(), "[deployer]\nexec = true\n");
    let again = config.clone();
    let agent = sdp_agent::Agent::start_with(config, parts(repos(), deployer.clone())).unwrap();
    let mut connection = server.welcome(Log::new()).await;
    assert_eq!(connection.hello().inventory.exec, Some(true));
    let nothing = connection.call(exec(1, &["migrate"])).await;
    assert_eq!(nothing.unwrap_err().code, ErrorCode::NotFound, "nothing runs");
    let deployment = connection.deploy(&key, "main").await;
    connection.until_state(deployment, DeploymentState::Running).await;

    let line = |text: String| LogLine { stream: LogStream::Stdout, line: text };
    deployer.has_program("migrate", Ran { lines: vec![line(format!("with {TOKEN}"))], exit_code: Some(3) });
    let told = connection.call(exec(1, &["migrate", "--force"])).await;
    let Ok(ReplyBody::Output { lines, ended: true, exit_code: Some(3) }) = told else { panic!("{told:?}") };
    assert_eq!(lines, [line("with •••".into())], "what is known to be secret is masked as in a log");

    deployer.has_program("hang", Ran { lines: vec![line("begun".into())], exit_code: None });
    for (reader, number) in [(2, "two"), (3, "three")] {
        let told = connection.call(exec(reader, &["hang", number])).await;
        assert!(matches!(told, Ok(ReplyBody::Output { ended: false, exit_code: None, .. })), "{told:?}");
    }
    let end = RequestBody::Output { key: key.clone(), reader: 2, step: OutputStep::End };
    assert!(matches!(connection.call(end).await, Ok(ReplyBody::Output { ended: true, .. })));
    let left = || deployer.commands().into_iter().map(|command| command.to_string()).collect::<Vec<_>>();
    eventually("its end", || left() == ["hang three"]).await;
    agent.shutdown().await;
    assert_eq!(left(), [""; 0], "no command outlives the agent");

    // One that dies ends nothing.
    let begun = deployer.exec(&key, &ExecCommand::new(["hang", "left"]).unwrap()).await.unwrap();
    std::mem::forget(begun);
    assert_eq!(left(), ["hang left"]);
    let agent = sdp_agent::Agent::start_with(again, parts(repos(), deployer.clone())).unwrap();
    let mut connection = server.welcome(Log::new()).await;
    let told = connection.call(exec(4, &["hang", "four"])).await;
    assert!(matches!(told, Ok(ReplyBody::Output { ended: false, .. })), "{told:?}");
    assert_eq!(left(), ["hang four"], "what an earlier agent left is ended before others run");
    agent.shutdown().await;
}

#[tokio::test]
async fn the_machine_is_examined_when_asked_as_the_doctor_does_it() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let config = config(&server, dir.path(), "[deployer]\nkind = 'process'\n");
    let agent = sdp_agent::Agent::start_with(config, parts(repos(), MemoryDeployer::default())).unwrap();
    let mut connection = server.welcome(Log::new()).await;
    let Ok(ReplyBody::Disks { disks }) = connection.call(RequestBody::Disks).await else { panic!() };
    assert!(disks[0].total_bytes > disks[0].free_bytes && disks[0].free_bytes > 0, "{disks:?}");
    // The examination's own connections meet a server that admits nobody.
    let rejecting = async {
        loop {
            server.reject().await;
        }
    };
    let answer = tokio::select! {
        answer = connection.call(RequestBody::Examine) => answer,
        () = rejecting => unreachable!(),
    };
    let Ok(ReplyBody::Examined { examination }) = answer else { panic!("{answer:?}") };
    let verdict = |check: &str| {
        let finding = examination.findings.iter().find(|finding| finding.check == check);
        finding.map(|finding| finding.verdict).unwrap_or_else(|| panic!("{check}: {examination}"))
    };
    assert_eq!(verdict("data-dir"), Verdict::Ok);
    assert_eq!(verdict("websocket"), Verdict::Broken, "{examination}");
    assert!(!examination.to_string().contains(TOKEN));
    agent.shutdown().await;
}

#[tokio::test]
async fn a_stopping_agent_cancels_what_is_under_way_and_says_so() {
    let (server, dir, deployer) = (Server::start().await, tempfile::tempdir().unwrap(), MemoryDeployer::default());
    deployer.behave(Behaviour::BuildHangs);
    let mut parts = parts(repos(), deployer);
    parts.timing.farewell = std::time::Duration::from_secs(30);
    let agent = start(&server, dir.path(), parts);
    let mut connection = server.welcome(Log::new()).await;
    let deployment = connection.deploy(&quick("eredar"), "main").await;
    connection.until_building(deployment).await;
    let reading = connection.until_state(deployment, DeploymentState::Cancelled);
    tokio::join!(agent.shutdown(), reading);
    assert!(format!("{:?}", connection.log[&deployment]).contains("the agent is stopping"));
    assert!(files_below(&dir.path().join("outbox")).is_empty() && files_below(&dir.path().join("work")).is_empty());
}

/// Repos whose git prints the password, as no adapter should.
#[derive(Debug)]
struct Leaky(MemoryRepos);

#[async_trait]
impl RepoSource for Leaky {
    fn repos(&self) -> Vec<RepoSpec> {
        self.0.repos()
    }

    async fn verify(
        &self,
        repo: Option<&RepoName>,
        credentials: &Credentials,
        cancel: &CancellationToken,
    ) -> Result<(), RepoError> {
        self.0.verify(repo, credentials, cancel).await
    }

    async fn branches(
        &self,
        repo: &RepoName,
        credentials: Option<&Credentials>,
        _cancel: &CancellationToken,
    ) -> Result<Vec<Branch>, RepoError> {
        let source = format!("401 for {credentials:?} {}", credentials.unwrap().expose_password()).into();
        Err(RepoError::Git { repo: repo.clone(), source })
    }

    async fn prepare(
        &self,
        key: &InstanceKey,
        branch: &BranchName,
        credentials: Option<&Credentials>,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Checkout, RepoError> {
        let password = credentials.unwrap().expose_password();
        let encoded: String = url::form_urlencoded::byte_serialize(password.as_bytes()).collect();
        for line in [format!("trying {password}"), format!("http://ada:{encoded}@git.example/"), TOKEN.into()] {
            sink.accept(EventKind::note(Stage::Source, line)).await?;
        }
        self.0.prepare(key, branch, credentials, sink, cancel).await
    }

    async fn prepare_commit(
        &self,
        key: &InstanceKey,
        branch: &BranchName,
        commit: &CommitId,
        credentials: Option<&Credentials>,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Checkout, RepoError> {
        self.0.prepare_commit(key, branch, commit, credentials, sink, cancel).await
    }

    async fn rewind(&self, key: &InstanceKey, previous: &Checkout) -> Result<(), RepoError> {
        self.0.rewind(key, previous).await
    }

    async fn checkout(&self, key: &InstanceKey) -> Result<Option<Checkout>, RepoError> {
        self.0.checkout(key).await
    }

    async fn committed_file(&self, key: &InstanceKey, path: &Path) -> Result<Option<Vec<u8>>, RepoError> {
        self.0.committed_file(key, path).await
    }

    async fn discard(&self, key: &InstanceKey) -> Result<(), RepoError> {
        self.0.discard(key).await
    }
}

#[tokio::test]
async fn a_password_reaches_no_file_no_event_and_no_answer() {
    const PASSWORD: &str = "correct horse+battery/staple";
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let agent = start(&server, dir.path(), parts(Leaky(repos().accept("ada", PASSWORD)), MemoryDeployer::default()));
    let mut connection = server.welcome(Log::new()).await;
    connection.acks = false;
    let deployment = connection.deploy_with(&quick("eredar"), "main", Some(credentials(PASSWORD))).await;
    connection.until_state(deployment, DeploymentState::Running).await;
    let repo = "eredar".parse().unwrap();
    let body = RequestBody::Branches { repo, credentials: Some(credentials(PASSWORD)), query: None, limit: 1 };
    let problem = connection.call(body).await.unwrap_err();

    let mut texts: Vec<_> = files_below(dir.path()).iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(texts.iter().any(|text| !text.is_empty()), "the events are on disk");
    texts.push(format!("{problem:?} {:?}", connection.log).into_bytes());
    for text in texts {
        let text = String::from_utf8_lossy(&text).into_owned();
        for secret in [PASSWORD, "correct+horse%2Bbattery%2Fstaple", TOKEN] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    assert_eq!(format!("{:?}", connection.log).matches("•••").count(), 3);
    agent.shutdown().await;
}

#[tokio::test]
async fn finishing_waits_for_what_is_under_way_and_accepts_nothing_new() {
    let (server, dir, deployer) = (Server::start().await, tempfile::tempdir().unwrap(), MemoryDeployer::default());
    deployer.behave(Behaviour::BuildHangs);
    let agent = start(&server, dir.path(), parts(repos(), deployer.clone()));
    let mut connection = server.welcome(Log::new()).await;
    let under_way = connection.deploy(&quick("eredar"), "main").await;
    connection.until_building(under_way).await;
    let mut finishing = Box::pin(agent.finish());
    assert!(futures_util::poll!(finishing.as_mut()).is_pending());

    let late = request(&quick("eredar"), "feature/x");
    let refused = connection.call(RequestBody::Deploy { request: Box::new(late), credentials: None }).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::AgentAway);
    // What was accepted before may be asked for again, and everything else goes on.
    assert!(connection.call(RequestBody::Instances).await.is_ok());
    assert!(futures_util::poll!(finishing.as_mut()).is_pending());

    connection.call(RequestBody::Cancel { deployment: under_way }).await.unwrap();
    connection.until_state(under_way, DeploymentState::Cancelled).await;
    patiently("the end", finishing.as_mut()).await;
    drop(finishing);
    agent.shutdown().await;
}
