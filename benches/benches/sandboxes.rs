//! What the 1st, 2nd and 10th sandbox of one repo cost, and a deployment of what runs already: time and
//! disk, beside a clone and a build each.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops where it cannot go on, and prints")]

use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use sdp_benches::time;
use sdp_core::{
    Credentials, DeployRequest, DeploymentState, InstanceKey,
    deploy::{Pipeline, PortPool},
    testing::MemorySink,
};
use sdp_docker::{ProcessConfig, ProcessDeployer};
use sdp_git::{GitConfig, GitRepos, testing::GitHost};
use tokio_util::sync::CancellationToken;

/// Files besides the program's own, and commits before the one that is deployed.
const FILES: usize = 2_000;
const COMMITS: usize = 20;

const PROGRAM: &str = r#"package main
import ("net/http"; "os")
func main() { http.ListenAndServe(os.Getenv("HOST")+":"+os.Getenv("PORT"), http.FileServer(http.Dir("."))) }
"#;

/// What is on the disk below a folder, each inode once.
fn disk(folder: &Path, seen: &mut BTreeSet<u64>) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| {
        let metadata = entry.metadata().unwrap();
        let own = if seen.insert(metadata.ino()) { metadata.blocks() * 512 } else { 0 };
        own + if metadata.is_dir() { disk(&entry.path(), seen) } else { 0 }
    });
    sizes.sum()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn line(what: &str, took: Duration, bytes: u64, note: &str) {
    println!("{what:<38} {:>8.0} ms  {:>7.2} MiB   {note}", took.as_secs_f64() * 1e3, mib(bytes));
}

struct Bench {
    pipeline: Pipeline,
    dir: PathBuf,
    ada: Credentials,
}

impl Bench {
    fn disk(&self) -> u64 {
        let mut seen = BTreeSet::new();
        disk(&self.dir.join("eredar"), &mut seen) + disk(&self.dir.join("worktrees"), &mut seen)
    }

    /// Deploys into a sandbox: how long it took, what it added to the disk, and what of its build.
    async fn deploy(&self, sandbox: &str) -> (Duration, u64, &'static str) {
        let (before, sink) = (self.disk(), MemorySink::default());
        let request = DeployRequest::new(
            InstanceKey::in_sandbox(sandbox.parse().unwrap(), "eredar".parse().unwrap()),
            "main".parse().unwrap(),
        );
        let began = Instant::now();
        let finished = self.pipeline.run(&request, Some(self.ada.clone()), &sink, &CancellationToken::new()).await;
        let took = began.elapsed();
        assert_eq!(finished.state, DeploymentState::Running, "{:?}", finished.failure);
        let built = sink.lines().iter().any(|line| line.starts_with("$ go build"));
        (took, self.disk().saturating_sub(before), if built { "built" } else { "not built" })
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let host = GitHost::start(&[("ada", "secret")]).await.unwrap();
        host.create_repo("eredar").await.unwrap();
        let files: Vec<_> = (0..FILES)
            .map(|n| (format!("dir{}/file{n}.txt", n % 50), format!("{:032x}\n", n * 2_654_435_761).repeat(60)))
            .collect();
        let mut parent = None;
        for round in 0..COMMITS as u64 {
            // History that a clone brings along and a worktree does not.
            let text: String = (0..8_192u64)
                .map(|n| format!("{:016x}\n", (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 + round)))
                .collect();
            let mut all: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_bytes())).collect();
            let own =
                [("round.txt", &*text), ("main.go", PROGRAM), ("go.mod", "module example.invalid/eredar\n\ngo 1.19\n")];
            all.extend(own.map(|(path, text)| (path, text.as_bytes())));
            host.commit("eredar", "main", parent, &all, "round").await.unwrap();
            parent = Some("main");
        }

        let dir = tempfile::tempdir().unwrap();
        let spec = serde_json::json!({
            "name": "eredar", "path": dir.path().join("eredar"), "remote": host.url("eredar"), "recipe": "go",
            "health": { "http": "/", "interval": "5ms" },
        });
        let config = GitConfig::new(vec![serde_json::from_value(spec).unwrap()], dir.path().join("worktrees"));
        let deployer = ProcessDeployer::new(ProcessConfig::new(dir.path().join("processes"))).unwrap();
        let ports = Arc::new(PortPool::new(30_000..=31_999, Ipv4Addr::LOCALHOST.into()));
        let repos = Arc::new(GitRepos::new(config).unwrap());
        let pipeline = Pipeline::new(repos, Arc::new(deployer.clone()), ports, "127.0.0.1");
        let ada = Credentials::new("ada".parse().unwrap(), "secret".into());
        let bench = Bench { pipeline, dir: dir.path().to_owned(), ada };
        for n in 1..=10 {
            let (took, bytes, built) = bench.deploy(&format!("s{n}")).await;
            if [1, 2, 10].contains(&n) {
                line(&format!("sandbox {n}"), took, bytes, built);
            }
        }
        let (took, bytes, built) = bench.deploy("s10").await;
        line("the same once more", took, bytes, built);
        deployer.shutdown().await.unwrap();

        // The Go toolchain's own cache is warm by now.
        let url = host.url("eredar").replacen("http://", "http://ada:secret@", 1);
        let by_hand = dir.path().join("by-hand");
        let run = {
            let by_hand = by_hand.clone();
            move || {
                let git = Command::new("git").args(["clone", "--quiet", &url]).arg(&by_hand).status().unwrap();
                let mut go = Command::new("go");
                go.current_dir(&by_hand).env("CGO_ENABLED", "0").args(["build", "-trimpath", "-o", "eredar", "."]);
                assert!(git.success() && go.status().unwrap().success());
            }
        };
        let took = tokio::task::spawn_blocking(|| time(run)).await.unwrap();
        line("by hand: git clone, go build", took, disk(&by_hand, &mut BTreeSet::new()), "without start and health");
    });
}
