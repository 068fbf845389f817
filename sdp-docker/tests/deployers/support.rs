//! Checkouts of busybox scripts, jobs for them, and deployers that clean up after themselves.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use sdp_core::{
    Checkout, DeployError, DeployJob, Deployer, DeploymentId, ExecCommand, HostPort, Instance, InstanceKey, Probe,
    Replacement, RepoSpec,
    testing::{
        MemorySink,
        conformance::deployer::{JobFixture, Program, Wanted},
    },
};
use sdp_docker::{DockerConfig, DockerDeployer, testing::PrivateEngine};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const BASE_IMAGE: &str = "sdp-base:dev";

/// A port that was free a moment ago.
pub(crate) fn free_port() -> HostPort {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    HostPort::new(listener.local_addr().unwrap().port()).unwrap()
}

/// A checkout of busybox scripts, and jobs for it.
pub(crate) struct Jobs<D> {
    pub(crate) deployer: D,
    pub(crate) dir: TempDir,
    pub(crate) ports: BTreeMap<String, HostPort>,
    pub(crate) trees: AtomicU32,
    /// Where the program finds busybox.
    pub(crate) busybox: &'static str,
}

impl<D: Deployer> Jobs<D> {
    pub(crate) fn new(deployer: D, busybox: &'static str) -> Self {
        let ports = ["one", "two", "three", "four"].map(|repo| (repo.to_owned(), free_port())).into();
        Self { deployer, dir: TempDir::new().unwrap(), ports, trees: AtomicU32::new(0), busybox }
    }

    pub(crate) fn make(&self, repo: &str, program: Program) -> DeployJob {
        let path = self.dir.path().join(repo);
        std::fs::create_dir_all(path.join(".sdp")).unwrap();
        let build = match program {
            Program::BuildFails => "echo broken; exit 1".to_owned(),
            Program::BuildHangs => "echo hanging; sleep 600".to_owned(),
            _ => "echo building; touch $SDP_OUT/built".to_owned(),
        };
        let busybox = self.busybox;
        let run = match program {
            Program::Crashes => "echo crashing; exit 3".to_owned(),
            Program::NeverHealthy => format!("echo up; exec {busybox} sleep 600"),
            _ => format!("echo up on $PORT; exec {busybox} httpd -f -p $PORT -h ."),
        };
        std::fs::write(path.join("index.html"), repo).unwrap();
        let spec: RepoSpec = serde_json::from_value(serde_json::json!({
            "name": repo, "path": path, "remote": "https://git.example/x.git", "recipe": "command",
            "image": BASE_IMAGE, "container_port": 8000,
            "build": ["sh", "-c", build], "run": ["sh", "-c", run],
            "health": { "http": "/index.html" },
        }))
        .unwrap();
        let tree = self.trees.fetch_add(1, Ordering::Relaxed);
        DeployJob {
            deployment: DeploymentId::new(),
            key: InstanceKey::quick(repo.parse().unwrap()),
            repo: spec,
            checkout: Checkout {
                path,
                branch: "main".parse().unwrap(),
                commit: format!("{tree:040x}").parse().unwrap(),
                tree: format!("{tree:040x}"),
            },
            host_port: self.ports[repo],
            env: BTreeMap::new(),
        }
    }

    /// A job in a sandbox, for a repo of its own in it.
    pub(crate) fn in_sandbox(&self, sandbox: &str, repo: &str) -> DeployJob {
        let mut job = self.make(repo, Program::Healthy);
        job.key = InstanceKey::in_sandbox(sandbox.parse().unwrap(), repo.parse().unwrap());
        job
    }

    pub(crate) async fn start(&self, job: &DeployJob) -> Result<Replacement, DeployError> {
        let (sink, cancel) = (MemorySink::default(), CancellationToken::new());
        let artifact = self.deployer.build(job, &sink, &cancel).await?;
        self.deployer.start(job, &artifact, &sink, &cancel).await
    }

    pub(crate) async fn becomes(&self, instance: &Instance, job: &DeployJob) -> Probe {
        for _ in 0..300 {
            match self.deployer.probe(instance, &job.repo.health.probe).await.unwrap() {
                Probe::NotYet(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                probe => return probe,
            }
        }
        panic!("neither healthy nor dead");
    }
}

#[async_trait]
impl<D: Deployer> JobFixture for Jobs<D> {
    fn deployer(&self) -> &dyn Deployer {
        &self.deployer
    }

    async fn job(&self, repo: &str, program: Program) -> DeployJob {
        self.make(repo, program)
    }

    fn another_port(&self) -> HostPort {
        free_port()
    }

    fn command(&self, wanted: Wanted) -> ExecCommand {
        let mark = DeploymentId::new().to_string();
        let script = match wanted {
            Wanted::PrintsAndFails => "echo out; echo err >&2; exit 3",
            Wanted::IsAbsent => return ExecCommand::new(["no-such-program"]).unwrap(),
            // What it starts has the mark among its arguments too.
            Wanted::Hangs => r#"echo begun; sh -c 'sleep 600; :' "$0" & sleep 600; :"#,
        };
        ExecCommand::new(["sh", "-c", script, &mark]).unwrap()
    }

    async fn runs(&self, command: &ExecCommand) -> bool {
        let Some(mark) = command.arguments().last().map(String::as_bytes) else { return false };
        let has_mark = |process: std::fs::DirEntry| {
            let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).any(|argument| argument == mark)
        };
        std::fs::read_dir("/proc").unwrap().flatten().any(has_mark)
    }
}

/// A docker deployer of its own; its containers are removed with it, also when a test fails.
pub(crate) struct Docker {
    pub(crate) owner: String,
}

impl Docker {
    pub(crate) async fn jobs(name: &str) -> (Self, Jobs<DockerDeployer>) {
        let owner = format!("test-{name}-{}", std::process::id());
        let config = DockerConfig { stop_timeout: std::time::Duration::from_secs(1), ..DockerConfig::new(&owner) };
        let deployer = DockerDeployer::connect(config).await.expect("a Docker engine; .ci/setup starts one");
        let missing = deployer.missing_images(&[BASE_IMAGE]).await.unwrap();
        assert!(missing.is_empty(), "image {BASE_IMAGE} is missing; .ci/setup makes it");
        (Self { owner }, Jobs::new(deployer, "/bin/busybox"))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let filter = format!("label=sdp.owner={}", self.owner);
        let ids = Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().unwrap();
        for id in String::from_utf8_lossy(&ids.stdout).split_whitespace() {
            let _ = Command::new("docker").args(["rm", "-f", id]).output();
        }
        let _ = Command::new("docker").args(["network", "prune", "--force", "--filter", &filter]).output();
    }
}

/// An engine of the test's own, with the base image.
pub(crate) fn private_engine() -> PrivateEngine {
    let engine = PrivateEngine::start().expect("a private engine; .ci/setup installs what it needs");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/image-base");
    engine.make_image(script.as_ref(), BASE_IMAGE).unwrap();
    engine
}

/// A deployer on such an engine.
pub(crate) fn config(engine: &PrivateEngine, owner: &str) -> DockerConfig {
    let stop_timeout = std::time::Duration::from_secs(1);
    DockerConfig { socket: engine.socket(), stop_timeout, ..DockerConfig::new(owner) }
}

/// What `docker` prints, asked of an engine.
pub(crate) fn docker(engine: &PrivateEngine, args: &[&str]) -> String {
    let host = format!("unix://{}", engine.socket().display());
    let output = Command::new("docker").env("DOCKER_HOST", host).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Container names are the machine's: tests that use the same ones take turns.
pub(crate) static NAMES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
