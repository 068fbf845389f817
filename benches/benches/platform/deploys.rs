//! Deploying, beside fetch + checkout + `docker rm -f` + `docker run -d` + waiting until it answers.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sdp_benches::{line, median, time};
use sdp_core::{
    Deployment, DeploymentState, EventKind,
    api::{CreateDeployment, Page},
};
use sdp_examples::{api::Api, content::USER, playground::Playground};
use sdp_git::testing::GitHost;

/// A repo that needs no build, so that everything but the build is measured.
const REPO: &str = "site";
/// Files of that repo besides the one that changes.
const FILES: usize = 200;
const IMAGE: &str = "sdp-base:dev";
/// How often the script asks for an answer, and SDP's health check too.
const INTERVAL: &str = "0.02";

/// The agent's section for the repo.
pub(super) fn site(folder: &Path, git: &GitHost) -> String {
    format!(
        "\n[[repo]]\nname = \"{REPO}\"\npath = {:?}\nremote = \"{}\"\nrecipe = \"command\"\nimage = \"{IMAGE}\"\n\
         run = [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/src\"]\ncontainer_port = 8080\n\
         health = {{ http = \"/index.html\", interval = \"20ms\" }}\n",
        folder.join("repos").join(REPO),
        git.url(REPO),
    )
}

async fn commit(git: &GitHost, round: usize) {
    let mut files: Vec<_> = (0..FILES).map(|n| (format!("files/{n}.txt"), vec![b'x'; 2_000])).collect();
    files.push(("index.html".into(), format!("round {round}\n").into_bytes()));
    let files: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    git.commit(REPO, "main", (round > 0).then_some("main"), &files, "round").await.unwrap();
}

/// The script's clone, container and port.
struct ByHand {
    clone: PathBuf,
    name: String,
    port: u16,
}

impl ByHand {
    fn new(playground: &Playground) -> Self {
        let url = playground.git().url(REPO);
        let url = url.replacen("http://", &format!("http://{USER}:{}@", playground.password()), 1);
        let clone = playground.dir().join("by-hand");
        let cloned = Command::new("git").args(["clone", "--quiet", &url]).arg(&clone).status().unwrap();
        assert!(cloned.success());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { clone, name: format!("by-hand-{port}"), port }
    }

    async fn run(&self, script: String) -> Duration {
        let dir = self.clone.clone();
        let work = move || {
            time(|| {
                let done = Command::new("sh").args(["-ec", &script]).current_dir(&dir).output().unwrap();
                assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
            })
        };
        tokio::task::spawn_blocking(work).await.unwrap()
    }

    async fn deploy(&self) -> Duration {
        let Self { clone, name, port } = self;
        self.run(format!(
            "git fetch --quiet --no-tags origin main\ngit checkout --quiet --force FETCH_HEAD\n\
             docker rm -f {name} >/dev/null 2>&1 || true\n\
             docker run -d --init --name {name} -p 127.0.0.1:{port}:8080 -v {clone}:/src -w /src {IMAGE} \
             httpd -f -p 8080 -h /src >/dev/null\n\
             for i in $(seq 1500); do curl -sf -o /dev/null http://127.0.0.1:{port}/index.html && exit 0; \
             sleep {INTERVAL}; done; exit 1",
            clone = clone.display()
        ))
        .await
    }

    /// Whether there would be anything to do.
    async fn check(&self) -> Duration {
        let name = &self.name;
        self.run(format!(
            "remote=$(git ls-remote origin refs/heads/main | cut -f1)\n[ \"$remote\" = \"$(git rev-parse HEAD)\" ]\n\
             [ \"$(docker inspect -f '{{{{.State.Running}}}}' {name})\" = true ]"
        ))
        .await
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        Command::new("docker").args(["rm", "-f", &self.name]).output().unwrap();
    }
}

/// How long a deployment took as its user sees it, and how long until the first line of its log came.
async fn deploy(api: &Api) -> (Duration, Duration) {
    let began = Instant::now();
    let body = CreateDeployment::new(REPO.parse().unwrap(), "main".parse().unwrap());
    let deployment = api.deploy(None, &body).await.unwrap();
    let mut first = None;
    let told = |event: &EventKind| {
        if matches!(event, EventKind::Log { .. }) {
            first.get_or_insert_with(|| began.elapsed());
        }
    };
    let ended = api.follow(deployment.id, told).await.unwrap();
    assert_eq!(ended.state, DeploymentState::Running, "{:?}", ended.failure);
    (began.elapsed(), first.unwrap())
}

/// How long the stages of the last deployment took.
async fn stages(api: &Api) -> String {
    let page: Page<Deployment> = api.get(&format!("/api/deployments?repo={REPO}&limit=1")).await.unwrap();
    let last = &page.items[0];
    let ms = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64() * 1e3;
    let mut text = String::from("the last one:");
    for record in &last.stages {
        let _ = write!(text, " {} {:.0} ms,", record.stage, ms(record.started_at, record.ended_at.unwrap()));
    }
    text + &format!(" in all {:.0} ms", ms(last.created_at, last.finished_at.unwrap()))
}

pub(super) async fn measure(playground: &Playground, pairs: usize) {
    let git = playground.git();
    git.create_repo(REPO).await.unwrap();
    commit(git, 0).await;
    let api = playground.sign_in().await.unwrap();
    let by_hand = ByHand::new(playground);
    deploy(&api).await;
    by_hand.deploy().await;

    let (mut ours, mut theirs, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=pairs {
        commit(git, round).await;
        // In turns first: what one leaves in the machine's caches helps the other.
        let (took, line) = if round % 2 == 0 {
            theirs.push(by_hand.deploy().await);
            deploy(&api).await
        } else {
            let took = deploy(&api).await;
            theirs.push(by_hand.deploy().await);
            took
        };
        ours.push(took);
        first.push(line);
    }
    println!("{}", line("deploy a new commit", median(ours), "script", median(theirs)));
    println!("  {}", stages(&api).await);

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        ours.push(deploy(&api).await.0);
        theirs.push(by_hand.check().await);
    }
    println!("{}", line("deploy what runs already", median(ours), "script's check", median(theirs)));
    println!("  {}", stages(&api).await);
    let slowest = first.iter().max().copied().unwrap_or_default();
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    println!(
        "first log line at a subscriber: {:.1} ms after the request, at most {:.1} ms",
        ms(median(first)),
        ms(slowest)
    );
}
