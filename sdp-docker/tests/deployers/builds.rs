//! Builds that the checkouts of a repo share.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use sdp_core::{
    Artifact, Checkout, DeployError, DeployJob, Deployer, DeploymentId, HostPort, InstanceKey, Probe, Replacement,
    testing::MemorySink,
};
use sdp_docker::{ProcessConfig, ProcessDeployer};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::{Docker, Jobs, NAMES, free_port};

/// What a build of these tests runs: it counts itself, and makes a page.
const BUILD: &str = "echo x >> ../built; cp page $SDP_OUT/index.html";

/// A process deployer of its own, and checkouts for it.
struct Processes {
    jobs: Jobs<ProcessDeployer>,
    _dir: TempDir,
}

impl Processes {
    fn keeping(keep_builds: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let config = ProcessConfig { keep_builds, ..ProcessConfig::new(dir.path()) };
        Self { jobs: Jobs::new(ProcessDeployer::new(config).unwrap(), "/bin/busybox"), _dir: dir }
    }
}

/// A sandbox's checkout of repo `one`: of every tree, `page` is what it holds.
fn job<D: Deployer>(jobs: &Jobs<D>, sandbox: &str, tree: &str, port: HostPort) -> DeployJob {
    let mut job = jobs.in_sandbox(sandbox, "one");
    let path = jobs.dir.path().join(sandbox);
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("page"), tree).unwrap();
    job.checkout = Checkout { path, tree: tree.into(), ..job.checkout };
    job.host_port = port;
    job.repo.build = Some(["sh", "-c", BUILD].map(str::to_owned).to_vec());
    let serve = format!("exec {} httpd -f -p $PORT -h $SDP_OUT", jobs.busybox);
    job.repo.run = Some(["sh", "-c", &serve].map(str::to_owned).to_vec());
    job
}

async fn build<D: Deployer>(jobs: &Jobs<D>, job: &DeployJob) -> (Artifact, Vec<String>) {
    let sink = MemorySink::default();
    let artifact = jobs.deployer.build(job, &sink, &CancellationToken::new()).await.unwrap();
    (artifact, sink.lines())
}

/// Deploys a job until it answers, and answers what it says.
async fn deploy<D: Deployer>(jobs: &Jobs<D>, job: &DeployJob) -> (Replacement, bool, String) {
    let (sink, cancel) = (MemorySink::default(), CancellationToken::new());
    let artifact = jobs.deployer.build(job, &sink, &cancel).await.unwrap();
    let replacement = jobs.deployer.start(job, &artifact, &sink, &cancel).await.unwrap();
    assert_eq!(jobs.becomes(&replacement.current, job).await, Probe::Healthy);
    jobs.deployer.settle(&replacement).await.unwrap();
    let said = page(job).await;
    (replacement, artifact.reused, said)
}

async fn page(job: &DeployJob) -> String {
    reqwest::get(format!("http://127.0.0.1:{}/index.html", job.host_port)).await.unwrap().text().await.unwrap()
}

fn builds_run<D>(jobs: &Jobs<D>) -> usize {
    fs::read_to_string(jobs.dir.path().join("built")).unwrap_or_default().lines().count()
}

/// The names in the store of repo `one`.
fn store<D>(jobs: &Jobs<D>) -> Vec<PathBuf> {
    let entries = fs::read_dir(jobs.dir.path().join("one/.sdp/builds")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

async fn checkouts_of_one_tree_are_built_once<D: Deployer>(jobs: &Jobs<D>) {
    let one = job(jobs, "s1", "tree-a", free_port());
    let two = job(jobs, "s2", "tree-a", free_port());
    let other = job(jobs, "s3", "tree-b", free_port());
    let mut answers = Vec::new();
    for job in [&one, &two, &other] {
        let (_, reused, said) = deploy(jobs, job).await;
        answers.push((reused, said));
    }
    assert_eq!(answers, [(false, "tree-a".into()), (true, "tree-a".into()), (false, "tree-b".into())]);
    assert_eq!(builds_run(jobs), 2);

    // Another environment is another build; the first sandbox goes, and the second does not notice.
    let mut with_env = one.clone();
    with_env.env.insert("MODE".parse().unwrap(), "test".into());
    assert!(!build(jobs, &with_env).await.0.reused);
    jobs.deployer.remove(&one.key).await.unwrap();
    fs::remove_dir_all(&one.checkout.path).unwrap();
    jobs.deployer.restart(&two.key).await.unwrap();
    let now = jobs.deployer.inspect(&two.key).await.unwrap();
    assert_eq!(jobs.becomes(&now, &two).await, Probe::Healthy);
    assert_eq!(page(&two).await, "tree-a");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_of_one_tree_share_its_build() {
    let Processes { jobs, _dir } = Processes::keeping(10);
    checkouts_of_one_tree_are_built_once(&jobs).await;
    jobs.deployer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_one_tree_share_its_build_and_cannot_write_to_it() {
    let _turn = NAMES.lock().await;
    let (_docker, jobs) = Docker::jobs("builds").await;
    checkouts_of_one_tree_are_built_once(&jobs).await;
    let write = ["exec", "sdp-s2-one", "sh", "-c", "echo mine > $SDP_OUT/index.html || echo more > $SDP_OUT/more"];
    assert!(!Command::new("docker").args(write).output().unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_a_tree_is_built_waits_for_it_and_can_be_cancelled() {
    let Processes { jobs, _dir } = Processes::keeping(10);
    let wait = format!("echo begun; until [ -e ../go ]; do sleep 0.02; done; {BUILD}");
    let make = |sandbox: &str| {
        let mut job = job(&jobs, sandbox, "tree", free_port());
        job.repo.build = Some(["sh", "-c", &wait].map(str::to_owned).to_vec());
        job
    };
    let (first, second, third) = (make("s1"), make("s2"), make("s3"));
    let sinks = [MemorySink::default(), MemorySink::default(), MemorySink::default()];
    let (never, cancel) = (CancellationToken::new(), CancellationToken::new());
    let tells = async |sink: &MemorySink, line: &str| {
        while !sink.lines().iter().any(|told| told.contains(line)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let later = async {
        tells(&sinks[0], "begun").await;
        let wait_for_it = async { jobs.deployer.build(&second, &sinks[1], &never).await };
        let give_up = async { jobs.deployer.build(&third, &sinks[2], &cancel).await };
        let script = async {
            tells(&sinks[1], "is being built already").await;
            tells(&sinks[2], "is being built already").await;
            cancel.cancel();
            fs::write(jobs.dir.path().join("go"), "").unwrap();
        };
        tokio::join!(wait_for_it, give_up, script)
    };
    let all = async { tokio::join!(jobs.deployer.build(&first, &sinks[0], &never), later) };
    let (built, (waited, gave_up, ())) = tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    assert!(matches!(gave_up, Err(DeployError::Cancelled)), "{gave_up:?}");
    let (built, waited) = (built.unwrap(), waited.unwrap());
    assert_eq!((built.reused, waited.reused, built.path), (false, true, waited.path));
    assert_eq!(builds_run(&jobs), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_is_the_next_ones_to_try() {
    let Processes { jobs, _dir } = Processes::keeping(10);
    let mut job = job(&jobs, "s1", "tree", free_port());
    let script = format!("[ -e ../fixed ] || exit 1; {BUILD}");
    job.repo.build = Some(["sh", "-c", &script].map(str::to_owned).to_vec());
    let (sink, cancel) = (MemorySink::default(), CancellationToken::new());
    assert!(matches!(jobs.deployer.build(&job, &sink, &cancel).await, Err(DeployError::Build { .. })));
    assert!(store(&jobs).is_empty(), "{:?}", store(&jobs));
    fs::write(jobs.dir.path().join("fixed"), "").unwrap();
    assert!(!build(&jobs, &job).await.0.reused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_leaves_its_folder_empty_is_run_in_each_checkout() {
    let Processes { jobs, _dir } = Processes::keeping(10);
    for sandbox in ["s1", "s2"] {
        let mut job = job(&jobs, sandbox, "tree", free_port());
        job.repo.build = Some(["sh", "-c", "echo made > made-here"].map(str::to_owned).to_vec());
        assert_eq!(build(&jobs, &job).await.0, Artifact { path: None, reused: false });
        assert!(job.checkout.path.join("made-here").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_build_is_told_of_and_built_again_while_what_runs_from_it_goes_on() {
    let _turn = NAMES.lock().await;
    let (_docker, jobs) = Docker::jobs("damaged").await;
    let first = job(&jobs, "s1", "tree", free_port());
    let (replacement, _, _) = deploy(&jobs, &first).await;
    let (artifact, _) = build(&jobs, &first).await;
    let out = artifact.path.unwrap();
    fs::write(out.join("of-somebody"), "who knows").unwrap();

    let second = job(&jobs, "s2", "tree", free_port());
    let (again, lines) = build(&jobs, &second).await;
    assert!(!again.reused && lines.iter().any(|line| line.contains("of-somebody was added")), "{lines:?}");
    assert_eq!((again.path.as_deref(), builds_run(&jobs)), (Some(out.as_path()), 2));
    deploy(&jobs, &second).await;
    assert_eq!(page(&first).await, "tree", "from the folder that was set aside");
    assert_eq!(jobs.deployer.inspect(&first.key).await.unwrap().id, replacement.current.id);
    jobs.deployer.restart(&first.key).await.unwrap();
    let now = jobs.deployer.inspect(&first.key).await.unwrap();
    assert_eq!(jobs.becomes(&now, &first).await, Probe::Healthy);
    assert_eq!(page(&first).await, "tree", "and from the new one");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_any_sandbox_runs_is_never_pruned_and_the_last_good_ones_stay() {
    let Processes { jobs, _dir } = Processes::keeping(2);
    let old = job(&jobs, "old", "tree-old", free_port());
    deploy(&jobs, &old).await;
    let stopped = job(&jobs, "stopped", "tree-stopped", free_port());
    deploy(&jobs, &stopped).await;
    jobs.deployer.stop(&stopped.key).await.unwrap();
    let port = free_port();
    for n in 0..5 {
        deploy(&jobs, &job(&jobs, "busy", &format!("tree-{n}"), port)).await;
    }
    // In use: old, stopped, tree-4. Besides those the last two good ones: 3 and 2.
    assert_eq!(store(&jobs).len(), 5, "{:?}", store(&jobs));
    for (sandbox, tree) in [("a", "tree-old"), ("b", "tree-stopped"), ("c", "tree-4"), ("d", "tree-3"), ("e", "tree-2")]
    {
        assert!(build(&jobs, &job(&jobs, sandbox, tree, free_port())).await.0.reused, "{tree}");
    }
    assert!(!build(&jobs, &job(&jobs, "f", "tree-1", free_port())).await.0.reused);
    assert_eq!(page(&old).await, "tree-old");
    jobs.deployer.shutdown().await.unwrap();
}

/// Set for the process that is to die; names its folder.
const DIES_IN: &str = "SDP_TEST_DIES_IN";

/// The job of a build that kills whoever runs it, after it has made everything.
fn deadly(jobs: &Jobs<ProcessDeployer>, checkout: &Path) -> DeployJob {
    let mut job = job(jobs, "s1", "tree", jobs.ports["one"]);
    job.deployment = DeploymentId::new();
    job.key = InstanceKey::quick("one".parse().unwrap());
    (job.repo.path, job.checkout.path) = (checkout.to_owned(), checkout.to_owned());
    let script = "echo whole > $SDP_OUT/program; [ -e safe ] || kill -9 $PPID";
    job.repo.build = Some(["sh", "-c", script].map(str::to_owned).to_vec());
    job
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the next test, as a process of its own"]
async fn dies_after_its_build() {
    let Processes { jobs, _dir } = Processes::keeping(10);
    let Some(checkout) = std::env::var_os(DIES_IN) else { panic!("not run by hand") };
    build(&jobs, &deadly(&jobs, Path::new(&checkout))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_build_and_its_keeping_leaves_nothing_that_passes_for_a_build() {
    let Processes { jobs, _dir } = Processes::keeping(10);
    let checkout = jobs.dir.path().join("one");
    fs::create_dir_all(&checkout).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "builds::dies_after_its_build", "--include-ignored"]).env(DIES_IN, &checkout);
    assert_eq!(command.output().unwrap().status.signal(), Some(9));
    let left = store(&jobs);
    assert!(left.len() == 1 && left[0].to_string_lossy().ends_with(".building"), "{left:?}");

    fs::write(checkout.join("safe"), "").unwrap();
    let job = deadly(&jobs, &checkout);
    let (artifact, lines) = build(&jobs, &job).await;
    assert!(!artifact.reused && !lines.iter().any(|line| line.contains("already")), "{lines:?}");
    assert_eq!(fs::read_to_string(artifact.path.unwrap().join("program")).unwrap(), "whole\n");
    assert_eq!(store(&jobs).len(), 1, "and what the crash left is gone: {:?}", store(&jobs));
    assert!(build(&jobs, &job).await.0.reused);
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_of_many_sandboxes_at_once_are_one() {
    let Processes { jobs, _dir } = Processes::keeping(10);
    let all: Vec<_> = (0..10).map(|n| job(&jobs, &format!("s{n}"), "tree", free_port())).collect();
    let built = futures_util::future::join_all(all.iter().map(|job| build(&jobs, job))).await;
    assert_eq!(built.iter().filter(|(artifact, _)| !artifact.reused).count(), 1);
    assert_eq!((builds_run(&jobs), store(&jobs).len()), (1, 1));
}
