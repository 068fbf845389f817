//! The suite of [`Deployer`].

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::{
    deployer::{Artifact, DeployError, DeployJob, Deployer, ExecEvent, LogLine, LogOptions, Probe, Replacement},
    model::{
        command::ExecCommand,
        event::LogStream,
        ids::HostPort,
        instance::{Instance, InstanceState},
    },
    testing::MemorySink,
};

/// A program that the suite asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Builds, writes a line, and becomes healthy.
    Healthy,
    /// Does not build.
    BuildFails,
    /// Its build does not end.
    BuildHangs,
    /// Builds, and exits at once with 3 when it runs.
    Crashes,
    /// Builds and runs, and never becomes healthy.
    NeverHealthy,
}

/// A command that the suite asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Prints `out` to standard output and `err` to standard error, and exits with 3.
    PrintsAndFails,
    /// Has a program that is not there.
    IsAbsent,
    /// Prints `begun`, and does not end.
    Hangs,
}

/// Makes jobs for the deployer under test.
#[async_trait]
pub trait JobFixture: Sync {
    /// The deployer under test; nothing of the suite's runs on its machine yet.
    fn deployer(&self) -> &dyn Deployer;

    /// A quick deploy of repo `one` or `two` that behaves like `program`, each time a new
    /// deployment. The host port is the same for each job of one repo, and no one else's.
    async fn job(&self, repo: &str, program: Program) -> DeployJob;

    /// A free host port that none of the jobs has.
    fn another_port(&self) -> HostPort;

    /// A command that does so where the program of any job runs; each time another one.
    fn command(&self, wanted: Wanted) -> ExecCommand;

    /// Whether a command still runs, or something that it has started.
    async fn runs(&self, command: &ExecCommand) -> bool;
}

/// Runs the whole suite.
pub async fn suite(jobs: &dyn JobFixture) {
    what_is_deployed_runs_and_is_found(jobs).await;
    a_replaced_instance_is_parked_until_settled(jobs).await;
    a_reverted_replacement_puts_the_previous_back(jobs).await;
    on_another_port_the_previous_may_serve_on(jobs).await;
    what_would_be_made_again_is_recognised(jobs).await;
    a_crash_is_found_by_the_first_probes(jobs).await;
    an_unhealthy_program_is_not_called_healthy(jobs).await;
    a_failed_build_touches_nothing_that_runs(jobs).await;
    a_hanging_build_ends_soon_after_its_cancel(jobs).await;
    a_taken_port_is_refused_with_its_holder(jobs).await;
    a_cancelled_start_leaves_the_previous_serving(jobs).await;
    stop_restart_and_logs(jobs).await;
    commands_print_and_exit(jobs).await;
    a_command_that_is_let_go_is_ended(jobs).await;
    what_is_removed_is_gone(jobs).await;
}

async fn build(jobs: &dyn JobFixture, job: &DeployJob) -> Result<Artifact, DeployError> {
    jobs.deployer().build(job, &MemorySink::default(), &CancellationToken::new()).await
}

async fn start(jobs: &dyn JobFixture, job: &DeployJob) -> Replacement {
    let artifact = build(jobs, job).await.expect("built");
    let started = jobs.deployer().start(job, &artifact, &MemorySink::default(), &CancellationToken::new()).await;
    started.unwrap_or_else(|error| panic!("{}", crate::problem::chain(&error)))
}

/// Probes until something else than `NotYet` comes, for at most 30 s.
async fn outcome(jobs: &dyn JobFixture, job: &DeployJob, instance: &Instance) -> Probe {
    let mut last = Probe::NotYet("never probed".into());
    for _ in 0..300 {
        last = jobs.deployer().probe(instance, &job.repo.health.probe).await.expect("probed");
        if !matches!(last, Probe::NotYet(_)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    last
}

async fn deploy(jobs: &dyn JobFixture, repo: &str) -> (DeployJob, Instance) {
    let job = jobs.job(repo, Program::Healthy).await;
    let replacement = start(jobs, &job).await;
    assert_eq!(outcome(jobs, &job, &replacement.current).await, Probe::Healthy);
    jobs.deployer().settle(&replacement).await.expect("settled");
    (job, replacement.current)
}

async fn what_is_deployed_runs_and_is_found(jobs: &dyn JobFixture) {
    let (job, instance) = deploy(jobs, "one").await;
    assert!(instance.name.starts_with("sdp-one"), "{}", instance.name);
    let found = jobs.deployer().inspect(&job.key).await.expect("found");
    assert_eq!((found.id, found.deployment), (instance.id, job.deployment));
    assert_eq!((found.branch, found.commit), (job.checkout.branch, job.checkout.commit));
    assert_eq!((found.host_port, found.state), (job.host_port, InstanceState::Running));
    assert!(found.started_at.is_some());
    jobs.deployer().end_build(job.deployment).await.expect("no build is left");
    let kept = jobs.deployer().inspect(&job.key).await.expect("found").state;
    assert_eq!(kept, InstanceState::Running, "an instance is no build");
    let stats = jobs.deployer().stats(&job.key).await.expect("stats");
    assert!(stats.memory_bytes > 0);
    let limit = job.repo.limits.memory_mib.map(|mib| mib << 20);
    assert_eq!(stats.memory_limit_bytes, limit, "the limit that is set, if one is");
}

async fn a_replaced_instance_is_parked_until_settled(jobs: &dyn JobFixture) {
    let before = jobs.deployer().list().await.expect("listed");
    let job = jobs.job("one", Program::Healthy).await;
    let replacement = start(jobs, &job).await;
    let previous = replacement.previous.as_ref().expect("there was one");
    assert_eq!(previous.id, before[0].id);
    let listed = jobs.deployer().list().await.expect("listed");
    assert_eq!(listed.iter().filter(|instance| instance.parked).count(), 1, "{listed:?}");
    assert_eq!(jobs.deployer().inspect(&job.key).await.expect("found").id, replacement.current.id);
    for _ in 0..2 {
        jobs.deployer().settle(&replacement).await.expect("settled, twice is fine");
        let listed = jobs.deployer().list().await.expect("listed");
        assert_eq!(listed.iter().map(|instance| &instance.id).collect::<Vec<_>>(), [&replacement.current.id]);
    }
}

async fn what_would_be_made_again_is_recognised(jobs: &dyn JobFixture) {
    let (_, instance) = deploy(jobs, "one").await;
    let mut same = jobs.job("one", Program::Healthy).await;
    same.host_port = jobs.another_port();
    let artifact = build(jobs, &same).await.expect("built");
    let unchanged = async |job: &DeployJob| jobs.deployer().unchanged(job, &artifact).await.expect("looked");
    let Some(found) = unchanged(&same).await else {
        // It replaces always, which is allowed.
        return;
    };
    assert_eq!((&found.id, found.host_port), (&instance.id, instance.host_port), "whatever port would be picked");
    let mut other = same.clone();
    other.env.insert("ANOTHER".parse().expect("a name"), "1".into());
    assert_eq!(unchanged(&other).await, None, "other variables");
    let mut other = same.clone();
    other.checkout.commit = "f".repeat(40).parse().expect("a commit");
    assert_eq!(unchanged(&other).await, None, "another commit");
    jobs.deployer().stop(&same.key).await.expect("stopped");
    assert_eq!(unchanged(&same).await, None, "it does not run");
    jobs.deployer().restart(&same.key).await.expect("restarted");
    assert_eq!(unchanged(&same).await.map(|instance| instance.id), Some(instance.id));
    let absent = jobs.job("two", Program::Healthy).await;
    assert_eq!(unchanged(&absent).await, None);
}

async fn on_another_port_the_previous_may_serve_on(jobs: &dyn JobFixture) {
    let (job, first) = deploy(jobs, "one").await;
    for (program, healthy) in [(Program::NeverHealthy, false), (Program::Healthy, true)] {
        let mut next = jobs.job("one", program).await;
        next.host_port = jobs.another_port();
        let replacement = start(jobs, &next).await;
        let previous = replacement.previous.as_ref().expect("there was one");
        assert_eq!((&previous.id, replacement.current.host_port), (&first.id, next.host_port));
        if replacement.beside {
            let answer = jobs.deployer().probe(previous, &job.repo.health.probe).await;
            assert_eq!(answer.expect("probed"), Probe::Healthy, "it serves on");
        }
        if healthy {
            assert_eq!(outcome(jobs, &next, &replacement.current).await, Probe::Healthy);
            let alone = Replacement { previous: None, ..replacement.clone() };
            jobs.deployer().settle(&alone).await.expect("settled");
            jobs.deployer().stop(&job.key).await.expect("stopped");
            for _ in 0..2 {
                jobs.deployer().retire(previous).await.expect("retired, twice is fine");
                let listed = jobs.deployer().list().await.expect("listed");
                assert_eq!(listed.iter().map(|instance| &instance.id).collect::<Vec<_>>(), [&replacement.current.id]);
                assert_ne!(listed[0].state, InstanceState::Running, "what was stopped stays stopped");
            }
        } else {
            assert!(jobs.deployer().revert(&replacement).await.expect("reverted"));
            let now = jobs.deployer().inspect(&job.key).await.expect("found");
            assert_eq!((&now.id, &now.name, now.parked), (&first.id, &first.name, false));
            assert!(!replacement.beside || now.started_at == first.started_at, "it was never stopped");
            assert_eq!(outcome(jobs, &job, &now).await, Probe::Healthy);
        }
    }
    jobs.deployer().remove(&job.key).await.expect("removed");
    deploy(jobs, "one").await;
}

async fn a_reverted_replacement_puts_the_previous_back(jobs: &dyn JobFixture) {
    let (job, first) = deploy(jobs, "one").await;
    let bad = jobs.job("one", Program::NeverHealthy).await;
    let replacement = start(jobs, &bad).await;
    for _ in 0..2 {
        assert!(jobs.deployer().revert(&replacement).await.expect("reverted, twice is fine"));
    }
    let found = jobs.deployer().inspect(&job.key).await.expect("found");
    assert_eq!((found.deployment, &found.name, found.parked), (first.deployment, &first.name, false));
    assert_eq!(jobs.deployer().list().await.expect("listed").len(), 1);
    assert_eq!(outcome(jobs, &job, &found).await, Probe::Healthy, "and it answers");

    let alone = jobs.job("two", Program::NeverHealthy).await;
    let replacement = start(jobs, &alone).await;
    assert!(!jobs.deployer().revert(&replacement).await.expect("reverted"), "there was none before");
    assert!(matches!(jobs.deployer().inspect(&alone.key).await, Err(DeployError::NotFound { .. })));
}

async fn a_crash_is_found_by_the_first_probes(jobs: &dyn JobFixture) {
    let job = jobs.job("two", Program::Crashes).await;
    let replacement = start(jobs, &job).await;
    match outcome(jobs, &job, &replacement.current).await {
        Probe::Dead { exit_code, .. } => assert_eq!(exit_code, 3),
        other => panic!("expected it dead, got {other:?}"),
    }
    jobs.deployer().revert(&replacement).await.expect("reverted");
}

async fn an_unhealthy_program_is_not_called_healthy(jobs: &dyn JobFixture) {
    let job = jobs.job("two", Program::NeverHealthy).await;
    let replacement = start(jobs, &job).await;
    for _ in 0..3 {
        let probe = jobs.deployer().probe(&replacement.current, &job.repo.health.probe).await.expect("probed");
        assert!(matches!(&probe, Probe::NotYet(reason) if !reason.is_empty()), "{probe:?}");
    }
    jobs.deployer().revert(&replacement).await.expect("reverted");
}

async fn a_failed_build_touches_nothing_that_runs(jobs: &dyn JobFixture) {
    let (good, instance) = deploy(jobs, "one").await;
    let job = jobs.job("one", Program::BuildFails).await;
    let error = build(jobs, &job).await.expect_err("it does not build");
    assert!(matches!(error, DeployError::Build { .. }), "{error:?}");
    let found = jobs.deployer().inspect(&good.key).await.expect("found");
    assert_eq!((found.id, found.state), (instance.id.clone(), InstanceState::Running));
}

async fn a_hanging_build_ends_soon_after_its_cancel(jobs: &dyn JobFixture) {
    let job = jobs.job("one", Program::BuildHangs).await;
    let (sink, cancel) = (MemorySink::default(), CancellationToken::new());
    let build = jobs.deployer().build(&job, &sink, &cancel);
    let stop = async {
        while sink.lines().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cancel.cancel();
    };
    let both = async { tokio::join!(build, stop).0 };
    let built = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it returns");
    assert!(matches!(built, Err(DeployError::Cancelled)), "{built:?}");
}

async fn a_taken_port_is_refused_with_its_holder(jobs: &dyn JobFixture) {
    let (one, instance) = deploy(jobs, "one").await;
    let mut two = jobs.job("two", Program::Healthy).await;
    let artifact = build(jobs, &two).await.expect("built");
    two.host_port = one.host_port;
    let started = jobs.deployer().start(&two, &artifact, &MemorySink::default(), &CancellationToken::new()).await;
    match started {
        Err(DeployError::PortTaken { port, holder }) => {
            assert_eq!(port, one.host_port);
            assert!(holder.contains("one"), "it names the holder: {holder}");
        }
        other => panic!("expected PortTaken, got {other:?}"),
    }
    assert_eq!(jobs.deployer().inspect(&one.key).await.expect("found").id, instance.id);
    assert!(matches!(jobs.deployer().inspect(&two.key).await, Err(DeployError::NotFound { .. })));
}

async fn a_cancelled_start_leaves_the_previous_serving(jobs: &dyn JobFixture) {
    let (one, instance) = deploy(jobs, "one").await;
    let job = jobs.job("one", Program::Healthy).await;
    let artifact = build(jobs, &job).await.expect("built");
    let cancel = CancellationToken::new();
    cancel.cancel();
    let started = jobs.deployer().start(&job, &artifact, &MemorySink::default(), &cancel).await;
    assert!(matches!(started, Err(DeployError::Cancelled)), "{started:?}");
    let found = jobs.deployer().inspect(&one.key).await.expect("found");
    assert_eq!(found.deployment, instance.deployment);
    assert_eq!(outcome(jobs, &one, &found).await, Probe::Healthy);
    assert_eq!(jobs.deployer().list().await.expect("listed").len(), 1);
}

async fn stop_restart_and_logs(jobs: &dyn JobFixture) {
    let (job, _) = deploy(jobs, "one").await;
    let options = LogOptions { tail: Some(1), follow: false };
    let lines: Vec<_> = jobs.deployer().logs(&job.key, options).await.expect("logs").collect().await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    let options = LogOptions { tail: None, follow: true };
    let mut followed = jobs.deployer().logs(&job.key, options).await.expect("logs");
    followed.next().await.expect("a line").expect("which can be read");
    for _ in 0..2 {
        jobs.deployer().stop(&job.key).await.expect("stopped, twice is fine");
        let state = jobs.deployer().inspect(&job.key).await.expect("kept").state;
        assert!(matches!(state, InstanceState::Exited { .. }), "{state:?}");
    }
    let rest = tokio::time::timeout(Duration::from_secs(60), followed.collect::<Vec<_>>()).await;
    assert!(rest.expect("it ends with the program").iter().all(Result::is_ok));
    jobs.deployer().restart(&job.key).await.expect("restarted");
    let found = jobs.deployer().inspect(&job.key).await.expect("found");
    assert_eq!(outcome(jobs, &job, &found).await, Probe::Healthy);
    jobs.deployer().reload(&job.key).await.expect("reloaded");
}

/// What a command prints, and its exit code.
async fn run(jobs: &dyn JobFixture, job: &DeployJob, command: &ExecCommand) -> (Vec<LogLine>, i64) {
    let mut events = jobs.deployer().exec(&job.key, command).await.expect("run");
    let mut lines = Vec::new();
    while let Some(event) = events.next().await {
        match event.expect("which can be read") {
            ExecEvent::Line(line) => lines.push(line),
            ExecEvent::Exited(code) => {
                assert!(events.next().await.is_none(), "nothing comes after the exit code");
                return (lines, code);
            }
        }
    }
    panic!("{command} never exited: {lines:?}");
}

async fn commands_print_and_exit(jobs: &dyn JobFixture) {
    let (job, _) = deploy(jobs, "one").await;
    let (mut lines, code) = run(jobs, &job, &jobs.command(Wanted::PrintsAndFails)).await;
    lines.sort_by_key(|line| line.stream == LogStream::Stderr);
    let told: Vec<_> = lines.iter().map(|line| (line.stream, line.line.as_str())).collect();
    assert_eq!((told, code), (vec![(LogStream::Stdout, "out"), (LogStream::Stderr, "err")], 3));

    let (lines, code) = run(jobs, &job, &jobs.command(Wanted::IsAbsent)).await;
    assert_eq!(code, 127, "{lines:?}");
    assert!(matches!(&lines[..], [LogLine { stream: LogStream::Stderr, .. }]), "it says why: {lines:?}");

    jobs.deployer().stop(&job.key).await.expect("stopped");
    let refused = jobs.deployer().exec(&job.key, &jobs.command(Wanted::Hangs)).await;
    assert!(matches!(refused, Err(DeployError::NotRunning { .. })), "{:?}", refused.err());
    jobs.deployer().restart(&job.key).await.expect("restarted");
}

async fn a_command_that_is_let_go_is_ended(jobs: &dyn JobFixture) {
    let (job, instance) = deploy(jobs, "one").await;
    let (kept, gone) = (jobs.command(Wanted::Hangs), jobs.command(Wanted::Hangs));
    let begin = async |command| {
        let mut events = jobs.deployer().exec(&job.key, command).await.expect("run");
        let first = events.next().await.expect("a line").expect("which can be read");
        assert!(matches!(&first, ExecEvent::Line(line) if line.line == "begun"), "{first:?}");
        events
    };
    let (kept_events, gone_events) = (begin(&kept).await, begin(&gone).await);
    assert!(jobs.runs(&kept).await && jobs.runs(&gone).await);
    drop(gone_events);
    until_ended(jobs, &gone).await;
    assert!(jobs.runs(&kept).await, "the other one goes on");
    drop(kept_events);
    let ended = tokio::time::timeout(Duration::from_secs(60), jobs.deployer().commands_ended()).await;
    assert!(ended.is_ok(), "it is waited for without an end");
    assert!(!jobs.runs(&kept).await, "it goes on after those that were let go have ended");
    let found = jobs.deployer().inspect(&job.key).await.expect("found");
    assert_eq!((found.id, found.state), (instance.id, InstanceState::Running), "and so does the instance");
}

/// Waits for at most 60 s.
async fn until_ended(jobs: &dyn JobFixture, command: &ExecCommand) {
    for _ in 0..600 {
        if !jobs.runs(command).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{command} goes on");
}

async fn what_is_removed_is_gone(jobs: &dyn JobFixture) {
    let (job, _) = deploy(jobs, "one").await;
    for _ in 0..2 {
        jobs.deployer().remove(&job.key).await.expect("removed, twice is fine");
    }
    assert!(jobs.deployer().list().await.expect("listed").is_empty());
    for error in [
        jobs.deployer().inspect(&job.key).await.map(drop),
        jobs.deployer().stop(&job.key).await,
        jobs.deployer().restart(&job.key).await,
        jobs.deployer().reload(&job.key).await,
        jobs.deployer().logs(&job.key, LogOptions::default()).await.map(drop),
        jobs.deployer().exec(&job.key, &jobs.command(Wanted::IsAbsent)).await.map(drop),
        jobs.deployer().stats(&job.key).await.map(drop),
    ] {
        assert!(matches!(&error, Err(DeployError::NotFound { key }) if *key == job.key), "{error:?}");
    }
}
