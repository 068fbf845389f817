//! What containers are made of, and what keeps them from being made.

use std::{net::TcpListener, path::PathBuf, process::Command};

use futures_util::{StreamExt, TryStreamExt};
use sdp_core::{
    DeployError, Deployer, DeploymentId, ExecCommand, ExecEvent, ExecEvents, HostPort, Instance, InstanceKey, LogLine,
    LogStream, Probe, Replacement,
    testing::{
        MemorySink,
        conformance::deployer::{JobFixture, Program, Wanted},
    },
};
use sdp_docker::{DockerConfig, DockerDeployer, ProcessConfig, ProcessDeployer};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::{Docker, Jobs, NAMES};

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_is_named_with_its_cure_before_anything_stops() {
    let _turn = NAMES.lock().await;
    let (_docker, jobs) = Docker::jobs("image").await;
    let good = jobs.make("one", Program::Healthy);
    let replacement = jobs.start(&good).await.unwrap();
    let mut job = jobs.make("one", Program::Healthy);
    job.repo.image = Some("no/such-image:1".into());
    let error = jobs.start(&job).await.unwrap_err();
    assert!(matches!(&error, DeployError::ImageMissing { image } if image == "no/such-image:1"), "{error}");
    assert!(error.to_string().contains("docker load"), "{error}");
    assert_eq!(jobs.deployer.inspect(&good.key).await.unwrap().id, replacement.current.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_and_names_of_others_are_refused_with_their_holder() {
    let _turn = NAMES.lock().await;
    let (_docker, jobs) = Docker::jobs("taken").await;
    let mut job = jobs.make("one", Program::Healthy);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    job.host_port = HostPort::new(listener.local_addr().unwrap().port()).unwrap();
    let error = jobs.start(&job).await.unwrap_err();
    assert!(matches!(&error, DeployError::PortTaken { holder, .. } if holder.contains("another program")), "{error}");

    // `a-b` + `c` and `a` + `b-c` are both called sdp-a-b-c.
    let key = |sandbox: &str, repo: &str| InstanceKey::in_sandbox(sandbox.parse().unwrap(), repo.parse().unwrap());
    let mut first = jobs.make("one", Program::Healthy);
    first.key = key("a-b", "c");
    jobs.start(&first).await.unwrap();
    let mut second = jobs.make("two", Program::Healthy);
    second.key = key("a", "b-c");
    let error = jobs.start(&second).await.unwrap_err();
    assert!(
        matches!(&error, DeployError::NameTaken { holder, .. } if holder.contains("sandbox a-b, repo c")),
        "{error}"
    );

    let (_other, others) = Docker::jobs("other").await;
    let mut foreign = others.make("two", Program::Healthy);
    foreign.key = key("a-b", "c");
    assert!(matches!(others.start(&foreign).await, Err(DeployError::NameTaken { .. })), "another agent's container");
    assert!(others.deployer.list().await.unwrap().is_empty(), "agents see their own only");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_deployer_finds_what_an_earlier_one_left_half_done() {
    let _turn = NAMES.lock().await;
    let (docker, jobs) = Docker::jobs("later").await;
    let first = jobs.make("one", Program::Healthy);
    let replacement = jobs.start(&first).await.unwrap();
    jobs.deployer.settle(&replacement).await.unwrap();
    let second = jobs.make("one", Program::NeverHealthy);
    jobs.start(&second).await.unwrap();

    let later = DockerDeployer::connect(DockerConfig::new(&docker.owner)).await.unwrap();
    let found = later.list().await.unwrap();
    let parked: Vec<_> = found.iter().map(|instance| (instance.deployment, instance.parked)).collect();
    assert_eq!(parked, [(second.deployment, false), (first.deployment, true)]);
    let [current, previous] = <[Instance; 2]>::try_from(found).unwrap();
    assert!(later.revert(&Replacement { current, previous: Some(previous), beside: false }).await.unwrap());
    let back = later.inspect(&first.key).await.unwrap();
    assert_eq!((back.deployment, back.name.as_str()), (first.deployment, "sdp-one"));
    assert_eq!(jobs.becomes(&back, &first).await, Probe::Healthy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_the_labels_variables_limits_and_restart_policy_that_were_asked_for() {
    let _turn = NAMES.lock().await;
    let (_docker, jobs) = Docker::jobs("limits").await;
    let mut job = jobs.make("one", Program::Healthy);
    job.repo.limits = serde_json::from_value(serde_json::json!({"cpus": 0.5, "memory_mib": 64})).unwrap();
    job.env.insert("GREETING".parse().unwrap(), "it's = \"fine\"".into());
    // Where a program listens is not the caller's to say.
    job.env.insert("PORT".parse().unwrap(), "1".into());
    let replacement = jobs.start(&job).await.unwrap();
    assert_eq!(jobs.becomes(&replacement.current, &job).await, Probe::Healthy);
    jobs.deployer.settle(&replacement).await.unwrap();
    let output = Command::new("docker").args(["inspect", "sdp-one"]).output().unwrap();
    let inspected: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let (config, host) = (&inspected[0]["Config"], &inspected[0]["HostConfig"]);
    assert_eq!(config["Labels"]["sdp.repo"], "one");
    assert_eq!(config["Labels"]["sdp.deployment"], job.deployment.to_string());
    assert_eq!(config["Labels"]["sdp.commit"], job.checkout.commit.to_string());
    let env = config["Env"].as_array().unwrap();
    assert!(env.contains(&"GREETING=it's = \"fine\"".into()) && !env.contains(&"PORT=1".into()));
    assert_eq!((&host["NanoCpus"], &host["Memory"]), (&500_000_000.into(), &(64u64 << 20).into()));
    assert_eq!(jobs.deployer.stats(&job.key).await.unwrap().memory_limit_bytes, Some(64 << 20));
    assert_eq!(host["RestartPolicy"]["Name"], "always");
    assert_eq!(host["PortBindings"]["8000/tcp"][0]["HostIp"], "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_go_service_is_built_once_per_tree_and_answers() {
    let _turn = NAMES.lock().await;
    let (_docker, jobs) = Docker::jobs("go").await;
    let mut job = jobs.make("one", Program::Healthy);
    std::fs::write(job.checkout.path.join("go.mod"), "module example.invalid/one\n\ngo 1.19\n").unwrap();
    let source = r#"package main
import ("net/http"; "os")
func main() { http.ListenAndServe(":"+os.Getenv("PORT"), http.FileServer(http.Dir("."))) }
"#;
    std::fs::write(job.checkout.path.join("main.go"), source).unwrap();
    job.repo.recipe = sdp_core::RecipeKind::Go;
    (job.repo.build, job.repo.run) = (None, None);
    let (sink, cancel) = (MemorySink::default(), CancellationToken::new());
    let artifact = jobs.deployer.build(&job, &sink, &cancel).await.unwrap();
    assert!(!artifact.reused);
    assert!(jobs.deployer.build(&job, &sink, &cancel).await.unwrap().reused);
    let replacement = jobs.deployer.start(&job, &artifact, &sink, &cancel).await.unwrap();
    assert_eq!(jobs.becomes(&replacement.current, &job).await, Probe::Healthy);

    let before = std::fs::metadata(artifact.path.as_ref().unwrap().join("one")).unwrap().modified().unwrap();
    job.checkout.tree = "other".into();
    let other = jobs.deployer.build(&job, &sink, &cancel).await.unwrap();
    assert_ne!(other.path, artifact.path, "what runs is not written to");
    let after = std::fs::metadata(artifact.path.unwrap().join("one")).unwrap().modified().unwrap();
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn php_is_served_under_its_prefix_by_process_and_container_alike() {
    let _turn = NAMES.lock().await;
    let (_docker, jobs) = Docker::jobs("php").await;
    let mut job = jobs.make("one", Program::Healthy);
    let path: PathBuf = job.checkout.path.clone();
    std::fs::write(path.join("index.php"), "<?php echo 'path ', $_SERVER['REQUEST_URI'];").unwrap();
    std::fs::write(
        path.join(".htaccess"),
        "RewriteEngine On\nRewriteCond %{REQUEST_FILENAME} !-f\nRewriteRule ^ index.php [L]\n",
    )
    .unwrap();
    job.repo = serde_json::from_value(serde_json::json!({
        "name": "one", "path": path, "remote": "https://git.example/x.git", "recipe": "php",
        "image": "sdp-apache-php:dev", "url_prefix": "/erangel/", "network": "host",
        "health": { "http": "/erangel/health", "timeout": "30s" },
    }))
    .unwrap();
    let process_dir = TempDir::new().unwrap();
    let process = ProcessDeployer::new(ProcessConfig::new(process_dir.path())).unwrap();
    let deployers: [&dyn Deployer; 2] = [&jobs.deployer, &process];
    for deployer in deployers {
        let (sink, cancel) = (MemorySink::default(), CancellationToken::new());
        let artifact = deployer.build(&job, &sink, &cancel).await.unwrap();
        let replacement = deployer.start(&job, &artifact, &sink, &cancel).await.unwrap();
        let mut probe = Probe::NotYet(String::new());
        for _ in 0..200 {
            probe = deployer.probe(&replacement.current, &job.repo.health.probe).await.unwrap();
            if !matches!(probe, Probe::NotYet(_)) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(probe, Probe::Healthy, "{}", deployer.kind());
        deployer.reload(&job.key).await.unwrap();
        let get = async |path: &str| {
            let url = format!("http://127.0.0.1:{}{path}", job.host_port);
            let response = reqwest::get(url).await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        };
        assert_eq!(get("/erangel/a/b?c=d").await, (200, "path /erangel/a/b?c=d".into()), "{}", deployer.kind());
        assert_eq!(get("/erangel/index.html").await, (200, "one".into()), "{}", deployer.kind());
        assert!(get("/erangel").await.1.starts_with("path /erangel"), "{}", deployer.kind());
        assert_eq!(get("/erangelic").await.0, 404, "{}", deployer.kind());
        assert_eq!(get("/elsewhere").await.0, 404, "{}", deployer.kind());
        deployer.remove(&job.key).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_ended_in_a_container_without_a_shell_too() {
    let _turn = NAMES.lock().await;
    let (_docker, jobs) = Docker::jobs("shellless").await;
    let mut job = jobs.make("one", Program::Healthy);
    job.repo.run = Some(["sh", "-c", "rm /bin/sh; exec sleep 600"].map(str::to_owned).into());
    jobs.start(&job).await.unwrap();
    let exec = async |command: &[&str]| {
        jobs.deployer.exec(&job.key, &ExecCommand::new(command.iter().copied()).unwrap()).await.unwrap()
    };
    let has_shell = async || {
        let events: Vec<_> = exec(&["sh", "-c", ":"]).await.try_collect().await.unwrap();
        events.last() != Some(&ExecEvent::Exited(127))
    };
    while has_shell().await {}
    let hangs = ExecCommand::new([
        "awk",
        "BEGIN { print \"begun\"; fflush(); while (1) {} }",
        &DeploymentId::new().to_string(),
    ])
    .unwrap();
    let mut events = jobs.deployer.exec(&job.key, &hangs).await.unwrap();
    events.next().await.unwrap().unwrap();
    assert!(jobs.runs(&hangs).await);
    drop(events);
    for _ in 0..600 {
        if !jobs.runs(&hangs).await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("it goes on");
}

/// Begins a command that prints a line, and then hangs.
async fn begin(jobs: &Jobs<DockerDeployer>, key: &InstanceKey, command: &ExecCommand) -> ExecEvents {
    let mut events = jobs.deployer.exec(key, command).await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert!(matches!(&first, ExecEvent::Line(line) if line.line == "begun"), "{first:?}");
    assert!(jobs.runs(command).await);
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_clears_its_variables_is_ended_too() {
    let _turn = NAMES.lock().await;
    let (_docker, jobs) = Docker::jobs("cleared").await;
    let job = jobs.make("one", Program::Healthy);
    jobs.start(&job).await.unwrap();
    for script in
        [r#"env -i sh -c 'echo begun; sleep 600; :' "$0"; :"#, r#"exec env -i sh -c 'echo begun; sleep 600; :' "$0""#]
    {
        let command = ExecCommand::new(["sh", "-c", script, &DeploymentId::new().to_string()]).unwrap();
        drop(begin(&jobs, &job.key, &command).await);
        jobs.deployer.commands_ended().await;
        assert!(!jobs.runs(&command).await, "{script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_a_deployer_that_died_are_ended_and_those_of_others_are_not() {
    let _turn = NAMES.lock().await;
    let (docker, jobs) = Docker::jobs("left").await;
    let (_other, others) = Docker::jobs("left-to-others").await;
    let (job, others_job) = (jobs.make("one", Program::Healthy), others.make("two", Program::Healthy));
    let instance = jobs.start(&job).await.unwrap().current;
    others.start(&others_job).await.unwrap();
    let [left, elsewhere, by_hand] = [(); 3].map(|()| jobs.command(Wanted::Hangs));
    // Who dies ends nothing.
    std::mem::forget(begin(&jobs, &job.key, &left).await);
    let kept = begin(&others, &others_job.key, &elsewhere).await;
    let args = ["exec", "--detach", &instance.id].into_iter().chain(by_hand.arguments().iter().map(String::as_str));
    assert!(Command::new("docker").args(args).output().unwrap().status.success());
    while !jobs.runs(&by_hand).await {}

    let next = DockerDeployer::connect(DockerConfig::new(&docker.owner)).await.unwrap();
    next.end_left_commands().await.unwrap();
    assert!(!jobs.runs(&left).await);
    assert!(jobs.runs(&elsewhere).await && jobs.runs(&by_hand).await);
    drop(kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_goes_away_under_a_command_is_told_as_what_it_is() {
    let _turn = NAMES.lock().await;
    let (_docker, jobs) = Docker::jobs("goes").await;
    let job = jobs.make("one", Program::Healthy);
    let began = jobs.start(&job).await.unwrap().current;
    let mut events = begin(&jobs, &job.key, &jobs.command(Wanted::Hangs)).await;
    let paused = Command::new("docker").args(["pause", &began.id]).output().unwrap();
    assert!(paused.status.success());
    let refused = jobs.deployer.exec(&job.key, &jobs.command(Wanted::Hangs)).await.map(drop);
    assert!(matches!(refused, Err(DeployError::Engine { .. })), "it runs all the same: {refused:?}");
    jobs.deployer.remove(&job.key).await.unwrap();
    match events.next().await.unwrap() {
        Ok(ExecEvent::Exited(137)) | Err(DeployError::NotFound { .. } | DeployError::NotRunning { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_prints_is_its_own_also_where_it_looks_like_the_engines() {
    let _turn = NAMES.lock().await;
    let (_docker, jobs) = Docker::jobs("looks").await;
    let job = jobs.make("one", Program::Healthy);
    jobs.start(&job).await.unwrap();
    let printed = "OCI runtime exec failed: executable file not found";
    let exec = async |command: &[&str]| {
        let command = ExecCommand::new(command.iter().copied()).unwrap();
        let events = jobs.deployer.exec(&job.key, &command).await.unwrap();
        events.try_collect::<Vec<_>>().await.unwrap()
    };
    let line = LogLine { stream: LogStream::Stdout, line: printed.into() };
    assert_eq!(exec(&["echo", printed]).await, [ExecEvent::Line(line), ExecEvent::Exited(0)]);
    assert_eq!(exec(&["/etc"]).await.last(), Some(&ExecEvent::Exited(126)), "a folder cannot be run");
    assert_eq!(exec(&["sh", "-c", "kill -9 $$"]).await, [ExecEvent::Exited(137)]);
    assert_eq!(exec(&["sh", "-c", "exec >&- 2>&-; sleep 1; exit 4"]).await, [ExecEvent::Exited(4)]);
    let many = exec(&["seq", "50000"]).await;
    assert_eq!(many.len(), 50_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_a_process_is_over_when_it_has_exited_whatever_it_has_left_behind() {
    let dir = TempDir::new().unwrap();
    let deployer = ProcessDeployer::new(ProcessConfig::new(dir.path())).unwrap();
    let jobs = Jobs::new(deployer.clone(), "/bin/busybox");
    let job = jobs.make("one", Program::Healthy);
    jobs.start(&job).await.unwrap();
    let mark = DeploymentId::new().to_string();
    let script = r#"sh -c 'sleep 600; :' "$0" & seq 30000; exit 2"#;
    let command = ExecCommand::new(["sh", "-c", script, &mark]).unwrap();
    let mut events = deployer.exec(&job.key, &command).await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    // Who reads slowly loses nothing.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let rest: Vec<_> = events.try_collect().await.unwrap();
    assert!(matches!(first, ExecEvent::Line(line) if line.line == "1"));
    assert_eq!((rest.len(), rest.last()), (30_000, Some(&ExecEvent::Exited(2))));
    assert!(jobs.runs(&command).await, "what it has left goes on");
    deployer.shutdown().await.unwrap();
    assert!(!jobs.runs(&command).await, "to the end of the instance");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_a_process_is_over_when_it_has_exited_also_where_what_it_has_left_prints_for_ever() {
    let dir = TempDir::new().unwrap();
    let deployer = ProcessDeployer::new(ProcessConfig::new(dir.path())).unwrap();
    let jobs = Jobs::new(deployer.clone(), "/bin/busybox");
    let job = jobs.make("one", Program::Healthy);
    jobs.start(&job).await.unwrap();
    let command = ExecCommand::new(["sh", "-c", "yes & exit 3"]).unwrap();
    let mut events = deployer.exec(&job.key, &command).await.unwrap();
    let exited = async {
        loop {
            if let ExecEvent::Exited(code) = events.next().await.unwrap().unwrap() {
                return code;
            }
        }
    };
    let exited = tokio::time::timeout(std::time::Duration::from_secs(60), exited).await;
    deployer.shutdown().await.unwrap();
    assert_eq!(exited, Ok(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_left_a_commands_group_of_processes_is_waited_for_too() {
    let dir = TempDir::new().unwrap();
    let deployer = ProcessDeployer::new(ProcessConfig::new(dir.path())).unwrap();
    let jobs = Jobs::new(deployer.clone(), "/bin/busybox");
    let job = jobs.make("one", Program::Healthy);
    jobs.start(&job).await.unwrap();
    let script = r#"setsid sh -c 'echo begun; sleep 600; :' "$0""#;
    let command = ExecCommand::new(["sh", "-c", script, &DeploymentId::new().to_string()]).unwrap();
    let mut events = deployer.exec(&job.key, &command).await.unwrap();
    events.next().await.unwrap().unwrap();
    drop(events);
    deployer.commands_ended().await;
    assert!(!jobs.runs(&command).await);
    deployer.shutdown().await.unwrap();
}
