//! The pipeline over the doubles: what a deployment does, and what is left when it goes wrong.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use async_trait::async_trait;
use sdp_core::{
    BranchName, DeployRequest, Deployer, DeploymentState as S, ErrorCode, EventKind, EventSink, HostPort, InstanceKey,
    Override, OverrideKind, RepoSource, RouteChanges, RouteStore, SinkError, Stage, StageStatus,
    deploy::{Deadlines, Finished, Pipeline, PortPool},
    testing::{Behaviour, MemoryDeployer, MemoryRepos, MemoryRoutes, MemorySink},
};
use tokio_util::sync::CancellationToken;

struct Bench {
    repos: MemoryRepos,
    deployer: MemoryDeployer,
    routes: MemoryRoutes,
    pipeline: Pipeline,
}

fn bench() -> Bench {
    let repos = MemoryRepos::with_repo("eredar")
        .repo("gateway")
        .branch("eredar", "main", &[("a", "1")])
        .branch("eredar", "feature/x", &[("a", "2")])
        .branch("gateway", "main", &[("config.php", "…")]);
    let deployer = MemoryDeployer::default();
    let routes = MemoryRoutes::new("main", [("eredar", "http://ocp.example")]);
    let ports = Arc::new(PortPool::new(41_000..=41_099, Ipv4Addr::LOCALHOST.into()));
    let pipeline = Pipeline::new(Arc::new(repos.clone()), Arc::new(deployer.clone()), ports, "vm.example")
        .gateway("gateway".parse().unwrap(), Arc::new(routes.clone()));
    Bench { repos, deployer, routes, pipeline }
}

fn request(repo: &str, branch: &str) -> DeployRequest {
    DeployRequest::new(InstanceKey::quick(repo.parse().unwrap()), branch.parse().unwrap())
}

impl Bench {
    async fn deploy(&self, repo: &str, branch: &str) -> (Finished, MemorySink) {
        let sink = MemorySink::default();
        let finished = self.pipeline.run(&request(repo, branch), None, &sink, &CancellationToken::new()).await;
        assert_eq!(sink.states().last(), Some(&finished.state), "the last state told is the one answered");
        (finished, sink)
    }

    async fn branch_checked_out(&self, repo: &str) -> Option<BranchName> {
        let key = InstanceKey::quick(repo.parse().unwrap());
        self.repos.checkout(&key).await.unwrap().map(|checkout| checkout.branch)
    }
}

#[tokio::test]
async fn a_deployment_goes_through_every_stage_and_tells_where_it_answers() {
    let bench = bench();
    let (finished, sink) = bench.deploy("eredar", "feature/x").await;
    assert_eq!(finished.state, S::Running, "{:?}", finished.failure);
    assert_eq!(sink.states(), [S::Queued, S::Source, S::Build, S::Start, S::Health, S::Routes, S::Running]);
    let events = sink.events();
    let instance = finished.instance.unwrap();
    let url = format!("http://vm.example:{}", instance.host_port);
    assert!(events.iter().any(|event| matches!(&event.kind, EventKind::Endpoint { url: told, .. } if *told == url)));
    let commit = instance.commit;
    assert!(
        events.iter().any(|event| matches!(&event.kind, EventKind::Source { commit: told, .. } if *told == commit))
    );
    let skipped = EventKind::Stage { stage: Stage::Routes, status: StageStatus::Skipped };
    assert!(events.iter().any(|event| event.kind == skipped), "only the gateway has routes to apply");
}

#[tokio::test]
async fn redeploying_keeps_the_port_and_leaves_one_instance() {
    let bench = bench();
    let (first, _) = bench.deploy("eredar", "main").await;
    let (second, _) = bench.deploy("eredar", "feature/x").await;
    assert_eq!(first.instance.unwrap().host_port, second.instance.as_ref().unwrap().host_port);
    assert_eq!(bench.deployer.list().await.unwrap(), [second.instance.unwrap()]);
}

#[tokio::test]
async fn what_would_be_the_same_is_left_as_it_is_unless_it_is_unhealthy_or_forced() {
    let bench = bench();
    let run = async |request: DeployRequest| {
        let sink = MemorySink::default();
        (bench.pipeline.run(&request, None, &sink, &CancellationToken::new()).await, sink)
    };
    let (first, _) = run(request("eredar", "main")).await;
    let instance = first.instance.clone().unwrap();
    let (again, sink) = run(request("eredar", "main")).await;
    assert_eq!((again.state, again.kept, again.instance.as_ref()), (S::Running, true, Some(&instance)));
    assert_eq!(sink.states(), [S::Queued, S::Source, S::Build, S::Start, S::Health, S::Routes, S::Running]);
    let events = sink.events();
    let told = |port| move |event: &sdp_core::Event| matches!(event.kind, EventKind::Endpoint { host_port, .. } if host_port == port);
    assert!(events.iter().any(told(instance.host_port)));
    let skipped = |stage| EventKind::Stage { stage, status: StageStatus::Skipped };
    for stage in [Stage::Start, Stage::Health] {
        assert!(events.iter().any(|event| event.kind == skipped(stage)), "{stage}: {events:?}");
    }

    let elsewhere = HostPort::new(41_050).unwrap();
    let env = [("X".parse().unwrap(), "1".to_owned())].into();
    for changed in [
        DeployRequest { host_port: Some(elsewhere), ..request("eredar", "main") },
        DeployRequest { env, ..request("eredar", "main") },
        DeployRequest { force: true, ..request("eredar", "main") },
        request("eredar", "feature/x"),
    ] {
        let before = bench.deployer.list().await.unwrap();
        let (finished, _) = run(changed).await;
        assert_eq!((finished.state, finished.kept), (S::Running, false));
        assert_ne!(finished.instance.unwrap().id, before[0].id);
    }
    bench.deployer.behave(Behaviour::NeverHealthy);
    run(request("eredar", "main")).await;
    bench.deployer.behave(Behaviour::Works);
    bench.deployer.stop(&InstanceKey::quick("eredar".parse().unwrap())).await.unwrap();
    assert!(!run(request("eredar", "feature/x")).await.0.kept, "it does not run");
}

#[tokio::test]
async fn a_service_of_a_sandbox_is_replaced_without_a_gap_and_the_previous_one_retires_when_told() {
    let bench = bench();
    let deploy = async |branch: &str, behaviour: Behaviour| {
        bench.deployer.behave(behaviour);
        let key = InstanceKey::in_sandbox("pay".parse().unwrap(), "eredar".parse().unwrap());
        let (request, sink) = (DeployRequest { key, ..request("eredar", branch) }, MemorySink::default());
        let finished = bench.pipeline.run(&request, None, &sink, &CancellationToken::new()).await;
        (finished, sink)
    };
    let (first, _) = deploy("main", Behaviour::Works).await;
    let first = first.instance.unwrap();
    let (bad, _) = deploy("feature/x", Behaviour::NeverHealthy).await;
    assert_eq!((bad.state, bad.retiring), (S::Failed, None));
    assert_eq!(bench.deployer.list().await.unwrap(), std::slice::from_ref(&first));

    let (second, sink) = deploy("feature/x", Behaviour::Works).await;
    let current = second.instance.unwrap();
    assert_ne!(current.host_port, first.host_port);
    let no_gap =
        |event: &sdp_core::Event| matches!(&event.kind, EventKind::Log { line, .. } if line.contains("no gap"));
    assert!(sink.events().iter().any(no_gap));
    let ids = async || bench.deployer.list().await.unwrap().into_iter().map(|it| it.id).collect::<Vec<_>>();
    assert_eq!(ids().await, [current.id.clone(), first.id.clone()], "both are there until nobody is sent to the first");

    let (third, _) = deploy("main", Behaviour::Works).await;
    let newest = third.instance.unwrap().id;
    bench.pipeline.retire(&second.retiring.unwrap()).await.unwrap();
    assert_eq!(ids().await, [newest.clone(), current.id], "a deployment that was itself replaced ends nothing");
    bench.pipeline.retire(&third.retiring.unwrap()).await.unwrap();
    assert_eq!(ids().await, [newest]);
}

#[tokio::test]
async fn a_port_that_both_need_has_a_gap_and_the_log_says_how_long() {
    let bench = bench();
    bench.deploy("eredar", "main").await;
    let (finished, sink) = bench.deploy("eredar", "feature/x").await;
    assert_eq!(finished.retiring, None);
    let told = |event: &sdp_core::Event| matches!(&event.kind, EventKind::Log { line, .. } if line.contains("nobody served for at most"));
    assert!(sink.events().iter().any(told));
}

#[tokio::test]
async fn whatever_fails_the_previous_instance_and_its_checkout_are_put_back() {
    for (behaviour, stage, code) in [
        (Behaviour::BuildFails, Stage::Build, ErrorCode::BuildFailed),
        (Behaviour::StartFails, Stage::Start, ErrorCode::StartFailed),
        (Behaviour::Crashes, Stage::Health, ErrorCode::Unhealthy),
        (Behaviour::NeverHealthy, Stage::Health, ErrorCode::Unhealthy),
    ] {
        let bench = bench();
        let (good, _) = bench.deploy("eredar", "main").await;
        bench.deployer.behave(behaviour);
        let (bad, _) = bench.deploy("eredar", "feature/x").await;
        let failure = bad.failure.unwrap_or_else(|| panic!("{behaviour:?} did not fail"));
        assert_eq!((failure.stage, failure.code), (Some(stage), code), "{}", failure.reason);
        let replaced = stage == Stage::Health;
        assert_eq!(failure.previous_restored, replaced.then_some(true), "{behaviour:?}");
        assert_eq!(bench.deployer.answering(), [good.instance.unwrap()], "{behaviour:?}");
        assert_eq!(bench.branch_checked_out("eredar").await.unwrap().as_str(), "main", "{behaviour:?}");
    }
}

#[tokio::test]
async fn an_unhealthy_instance_is_told_with_its_last_probe_and_last_lines() {
    let bench = bench();
    bench.deployer.behave(Behaviour::NeverHealthy);
    let (finished, _) = bench.deploy("eredar", "main").await;
    let reason = finished.failure.unwrap().reason;
    assert!(reason.contains("told not to become healthy") && reason.contains("listens on"), "{reason}");
}

#[tokio::test]
async fn a_previous_instance_that_cannot_be_put_back_is_told_so() {
    let bench = bench();
    bench.deploy("eredar", "main").await;
    bench.deployer.behave(Behaviour::NeverHealthy);
    let sink = MemorySink::default();
    let (request, cancel) = (request("eredar", "feature/x"), CancellationToken::new());
    let run = bench.pipeline.run(&request, None, &sink, &cancel);
    let sabotage = async {
        while !sink.states().contains(&S::Health) {
            tokio::task::yield_now().await;
        }
        bench.deployer.behave(Behaviour::RevertFails);
    };
    let (finished, ()) = tokio::join!(run, sabotage);
    assert_eq!(finished.failure.unwrap().previous_restored, Some(false));
}

/// Deploys `feature/x` of the gateway over `main` with a stage that does not end by itself.
async fn hanging_in(
    stage: S,
    deadlines: Deadlines,
    meanwhile: impl AsyncFnOnce(&MemorySink, &CancellationToken),
) -> (Finished, MemorySink) {
    let bench = bench();
    bench.repos.clone().branch("gateway", "feature/x", &[("config.php", "…")]);
    let (good, _) = bench.deploy("gateway", "main").await;
    bench.repos.block_prepare(stage == S::Source);
    bench.routes.hang(stage == S::Routes);
    bench.deployer.behave(match stage {
        S::Build => Behaviour::BuildHangs,
        S::Start => Behaviour::StartHangs,
        S::Health => Behaviour::NeverHealthy,
        _ => Behaviour::Works,
    });
    let (sink, cancel, request) = (MemorySink::default(), CancellationToken::new(), request("gateway", "feature/x"));
    let pipeline = bench.pipeline.clone().deadlines(deadlines);
    let run = pipeline.run(&request, None, &sink, &cancel);
    let arrive = async {
        while !sink.states().contains(&stage) {
            tokio::task::yield_now().await;
        }
        meanwhile(&sink, &cancel).await;
        // Only what is under way hangs, not putting the previous overrides back.
        tokio::time::sleep(Duration::from_secs(7)).await;
        bench.routes.hang(false);
    };
    let (finished, ()) = tokio::join!(run, arrive);
    assert_eq!(bench.deployer.answering(), [good.instance.unwrap()], "{stage}");
    assert_eq!(bench.branch_checked_out("gateway").await.unwrap().as_str(), "main", "{stage}");
    assert_eq!(sink.states().last(), Some(&finished.state), "{stage}");
    (finished, sink)
}

const STAGES: [(S, Stage); 5] = [
    (S::Source, Stage::Source),
    (S::Build, Stage::Build),
    (S::Start, Stage::Start),
    (S::Health, Stage::Health),
    (S::Routes, Stage::Routes),
];

#[tokio::test(start_paused = true)]
async fn cancelling_works_in_every_stage_and_undoes_it() {
    for (state, stage) in STAGES {
        let cancelled = async |_: &MemorySink, cancel: &CancellationToken| cancel.cancel();
        let (finished, sink) = hanging_in(state, Deadlines::default(), cancelled).await;
        assert_eq!((finished.state, finished.failure), (S::Cancelled, None), "{stage}");
        let told = EventKind::Stage { stage, status: StageStatus::Cancelled };
        assert!(sink.events().iter().any(|event| event.kind == told), "{stage}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_before_the_first_stage_keeps_no_deployment_for_ever() {
    let bench = bench();
    bench.deployer.behave(Behaviour::EngineHangs);
    let (finished, sink) = bench.deploy("eredar", "main").await;
    assert_eq!(finished.failure.unwrap().code, ErrorCode::Timeout);
    assert_eq!(sink.states(), [S::Queued, S::Failed]);

    let (sink, cancel, request) = (MemorySink::default(), CancellationToken::new(), request("eredar", "main"));
    let run = bench.pipeline.run(&request, None, &sink, &cancel);
    let (finished, ()) = tokio::join!(run, async { cancel.cancel() });
    assert_eq!((finished.state, sink.states()), (S::Cancelled, vec![S::Queued, S::Cancelled]));
}

#[tokio::test(start_paused = true)]
async fn every_stage_has_a_deadline_and_is_undone_and_told_when_it_passes() {
    let limit = Duration::from_millis(500);
    let deadlines = Deadlines {
        admission: limit,
        source: limit,
        build: limit,
        start: limit,
        health: limit,
        routes: limit,
        grace: Duration::from_secs(5),
    };
    for (state, stage) in STAGES {
        let (finished, _) = hanging_in(state, deadlines.clone(), async |_, _| ()).await;
        let failure = finished.failure.unwrap();
        assert_eq!((failure.stage, failure.code), (Some(stage), ErrorCode::Timeout), "{}", failure.reason);
        assert_eq!(failure.reason, format!("stage {stage} took longer than 500ms"));
    }
}

#[tokio::test]
async fn what_is_cancelled_before_it_begins_touches_nothing() {
    let bench = bench();
    let (sink, cancel) = (MemorySink::default(), CancellationToken::new());
    cancel.cancel();
    let finished = bench.pipeline.run(&request("eredar", "main"), None, &sink, &cancel).await;
    assert_eq!(finished.state, S::Cancelled);
    assert_eq!((sink.states(), bench.deployer.builds()), (vec![S::Queued, S::Cancelled], 0));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_restarted_meanwhile_is_waited_for_and_what_it_ended_is_started_again() {
    let bench = bench();
    bench.deployer.behave(Behaviour::NeverHealthy);
    let (sink, cancel, request) = (MemorySink::default(), CancellationToken::new(), request("eredar", "main"));
    let run = bench.pipeline.run(&request, None, &sink, &cancel);
    let restart = async {
        while !sink.states().contains(&S::Health) {
            tokio::task::yield_now().await;
        }
        // Longer than the program may take: that time is not its own.
        bench.deployer.behave(Behaviour::EngineAway);
        tokio::time::sleep(Duration::from_secs(45)).await;
        bench.deployer.behave(Behaviour::Works);
        bench.deployer.make_healthy();
    };
    let (finished, ()) = tokio::join!(run, restart);
    assert_eq!(finished.state, S::Running, "{:?}", finished.failure);
    assert_eq!(bench.deployer.answering().len(), 1);
    assert!(sink.lines().iter().any(|line| line.contains("the container engine was restarted")), "{:?}", sink.lines());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_stays_away_ends_the_deployment_and_is_named_with_the_cure() {
    let bench = bench();
    bench.deployer.behave(Behaviour::NeverHealthy);
    let (sink, cancel, request) = (MemorySink::default(), CancellationToken::new(), request("eredar", "main"));
    let run = bench.pipeline.run(&request, None, &sink, &cancel);
    let stop = async {
        while !sink.states().contains(&S::Health) {
            tokio::task::yield_now().await;
        }
        bench.deployer.behave(Behaviour::EngineAway);
    };
    let failure = tokio::join!(run, stop).0.failure.unwrap();
    assert_eq!((failure.stage, failure.code), (Some(Stage::Health), ErrorCode::EngineUnavailable));
    assert!(failure.reason.contains("container engine") && failure.reason.contains("start it"), "{}", failure.reason);
}

#[tokio::test]
async fn what_can_be_known_before_is_refused_before_anything_is_touched() {
    let bench = bench();
    let (good, _) = bench.deploy("eredar", "main").await;
    let port: HostPort = good.instance.unwrap().host_port;

    let (unknown, sink) = bench.deploy("nope", "main").await;
    assert_eq!(unknown.failure.unwrap().code, ErrorCode::UnknownRepo);
    assert_eq!(sink.states(), [S::Queued, S::Failed]);

    let taken = DeployRequest { host_port: Some(port), ..request("gateway", "main") };
    let sink = MemorySink::default();
    let finished = bench.pipeline.run(&taken, None, &sink, &CancellationToken::new()).await;
    let failure = finished.failure.unwrap();
    assert_eq!((failure.stage, failure.code), (None, ErrorCode::PortTaken));
    assert!(failure.reason.contains("sdp-eredar"), "{}", failure.reason);

    let env = [("X".parse().unwrap(), "a\0b".to_owned())].into();
    let with_nul = DeployRequest { env, ..request("eredar", "main") };
    let finished = bench.pipeline.run(&with_nul, None, &MemorySink::default(), &CancellationToken::new()).await;
    assert_eq!(finished.failure.unwrap().code, ErrorCode::InvalidInput);
}

#[tokio::test]
async fn deploying_the_gateway_keeps_the_active_overrides() {
    let bench = bench();
    let url = "http://127.0.0.1:9".parse().unwrap();
    let over = Override::new(url, OverrideKind::Sandbox, "pay".parse().unwrap());
    let services = [("eredar".parse().unwrap(), Some(over))].into();
    bench.routes.apply(&RouteChanges { services, ..Default::default() }).await.unwrap();
    bench.routes.switch("main", [("eredar", "http://new-default.example")]);
    let (finished, sink) = bench.deploy("gateway", "main").await;
    assert_eq!(finished.state, S::Running);
    assert_eq!(bench.routes.file()["eredar"], "http://127.0.0.1:9");
    assert!(sink.events().iter().any(|event| matches!(&event.kind, EventKind::Route { .. })));
}

#[tokio::test]
async fn a_gateway_that_does_not_take_its_routes_is_put_back() {
    let bench = bench();
    let (good, _) = bench.deploy("gateway", "main").await;
    bench.routes.fail_reload(true);
    // Whether an instance was replaced or left as it was.
    for (force, restored) in [(true, Some(true)), (false, None)] {
        let again = DeployRequest { force, ..request("gateway", "main") };
        let bad = bench.pipeline.run(&again, None, &MemorySink::default(), &CancellationToken::new()).await;
        let failure = bad.failure.unwrap();
        assert_eq!((failure.stage, failure.code), (Some(Stage::Routes), ErrorCode::GatewayReloadFailed));
        assert_eq!(failure.previous_restored, restored);
    }
    assert_eq!(bench.deployer.answering(), [good.instance.unwrap()]);
}

/// Accepts a number of events, then no more.
#[derive(Debug)]
struct FullSink(MemorySink, usize);

#[async_trait]
impl EventSink for FullSink {
    async fn accept(&self, kind: EventKind) -> Result<u64, SinkError> {
        if self.0.events().len() >= self.1 {
            return Err(SinkError::new("no space left on device"));
        }
        self.0.accept(kind).await
    }
}

#[tokio::test]
async fn a_sink_that_stops_accepting_ends_the_deployment_wherever_it_is() {
    let total = {
        let bench = bench();
        bench.deploy("eredar", "main").await.1.events().len()
    };
    for room in 0..total {
        let bench = bench();
        let sink = FullSink(MemorySink::default(), room);
        let finished = bench.pipeline.run(&request("eredar", "main"), None, &sink, &CancellationToken::new()).await;
        if room + 2 < total {
            assert_eq!(finished.failure.map(|failure| failure.code), Some(ErrorCode::EventsUnavailable), "room {room}");
            assert!(bench.deployer.answering().is_empty(), "room {room}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn builds_wait_for_one_another_and_the_wait_counts_against_no_deadline() {
    let bench = bench();
    let pipeline = bench.pipeline.clone().builds(std::num::NonZeroUsize::MIN);
    let begin = |pipeline: &Pipeline, sandbox: &str| {
        let (pipeline, mut request, cancel) = (pipeline.clone(), request("eredar", "main"), CancellationToken::new());
        request.key = InstanceKey::in_sandbox(sandbox.parse().unwrap(), request.key.repo);
        let (sink, cancelled) = (Arc::new(MemorySink::default()), cancel.clone());
        let told = Arc::clone(&sink);
        let run = tokio::spawn(async move { pipeline.run(&request, None, &*told, &cancelled).await });
        (run, sink, cancel)
    };
    bench.deployer.behave(Behaviour::BuildHangs);
    let (first, _, cancel_first) = begin(&pipeline, "first");
    let building = || bench.deployer.builds() > 0;
    while !building() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.deployer.behave(Behaviour::Works);
    let short = Deadlines { build: Duration::from_millis(50), ..Deadlines::default() };
    let (second, told, _) = begin(&pipeline.clone().deadlines(short), "second");
    let (third, _, cancel_third) = begin(&pipeline, "third");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(told.states().last(), Some(&S::Build), "{:?}", told.lines());
    assert!(told.lines().iter().any(|line| line.contains("waiting") && line.contains("(1)")), "{:?}", told.lines());
    cancel_third.cancel();
    assert_eq!(third.await.unwrap().state, S::Cancelled, "a wait can be cancelled");
    cancel_first.cancel();
    let ended = [first.await.unwrap().state, second.await.unwrap().state];
    assert_eq!(ended, [S::Cancelled, S::Running], "{:?}", told.lines());
}

#[tokio::test]
async fn an_exact_commit_is_deployed_in_place_of_the_tip() {
    let bench = bench();
    let (first, _) = bench.deploy("eredar", "main").await;
    let commit = first.instance.unwrap().commit;
    bench.repos.push("eredar", "main", &[("a", "newer")]);
    let (newer, _) = bench.deploy("eredar", "main").await;
    assert_ne!(newer.instance.unwrap().commit, commit);
    for (wanted, outcome) in [(commit.clone(), Ok(commit)), ("f".repeat(40).parse().unwrap(), Err(Stage::Source))] {
        let request = DeployRequest { commit: Some(wanted), ..request("eredar", "main") };
        let finished = bench.pipeline.run(&request, None, &MemorySink::default(), &CancellationToken::new()).await;
        let ran = finished.instance.map(|instance| instance.commit);
        assert_eq!(ran.ok_or_else(|| finished.failure.unwrap().stage.unwrap()), outcome);
    }
}
