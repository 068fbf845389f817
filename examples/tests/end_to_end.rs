//! The platform's main job on real parts: control plane, agents, git over HTTP, containers, Apache.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sdp_core::{DeploymentState, ErrorCode, EventKind, RouteTarget, Stage, api::CreateDeployment, api::CreateSandbox};
use sdp_examples::{
    api::Api,
    content::{FEATURE, GATEWAY, SERVICE},
    playground::{Options, Playground, Runner},
    story,
};
use sdp_git::testing::GitHost;

/// A repo whose build is a command, for builds that hang.
fn slow_repo(dir: &Path, git: &GitHost) -> String {
    format!(
        "\n[[repo]]\nname = \"slow\"\npath = {:?}\nremote = \"{}\"\nrecipe = \"command\"\nimage = \"sdp-base:dev\"\n\
         build = [\"sh\", \"build.sh\"]\nrun = [\"sleep\", \"600\"]\n",
        dir.join("slow"),
        git.url("slow"),
    )
}

async fn playground(runner: Runner) -> Playground {
    if runner == Runner::Docker {
        let available = Runner::available().await;
        assert_eq!(available, Runner::Docker, "no Docker engine with the test images; .ci/setup makes both");
    }
    let started = Playground::start(Options { more_repos: slow_repo, ..Options::new(runner) }).await;
    started.unwrap_or_else(|error| panic!("{error}"))
}

/// Container names belong to the machine, so playgrounds with containers take turns.
static CONTAINERS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn create_sandbox(api: &Api, name: &str) {
    let create = CreateSandbox::new(name.parse().unwrap());
    api.post::<_, serde_json::Value>("/api/sandboxes", &create).await.unwrap();
}

fn deployment(repo: &str, branch: &str) -> CreateDeployment {
    CreateDeployment::new(repo.parse().unwrap(), branch.parse().unwrap())
}

async fn tell_the_story(runner: Runner) {
    let playground = playground(runner.clone()).await;
    let mut told = Vec::new();
    let answers = story::run(&playground, &mut told).await;
    let told = String::from_utf8(told).unwrap();
    let answers = answers.unwrap_or_else(|error| panic!("{error}\n{told}"));
    assert!(answers.before.contains("\"branch\":\"main\""), "{told}");
    assert!(answers.during.contains(&format!("\"branch\":\"{FEATURE}\"")), "{told}");
    assert_eq!(answers.after, answers.before, "{told}");
    the_password_is_nowhere(&playground).await;
    let deployers = [playground.deployer("micro").await.unwrap(), playground.deployer("gateway").await.unwrap()];
    let dir = playground.dir().to_owned();
    playground.shutdown().await.unwrap();
    assert!(!dir.exists(), "its files are removed");
    if runner == Runner::Docker {
        for deployer in deployers {
            assert!(deployer.list().await.unwrap().is_empty(), "its containers are removed");
        }
    }
}

/// Searches what a leak could reach: files, processes, containers, events.
async fn the_password_is_nowhere(playground: &Playground) {
    let password = playground.password().as_bytes();
    let mut searched = 0;
    let mut search = |what: &Path| {
        let Ok(bytes) = fs::read(what) else { return };
        searched += 1;
        assert!(!bytes.windows(password.len()).any(|window| window == password), "{}", what.display());
    };
    walk(playground.dir(), &mut search);
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            search(&entry.path().join(file));
        }
    }
    assert!(searched > 100, "there was something to search: {searched}");
    let output = std::process::Command::new("docker").args(["ps", "-aq"]).output();
    for id in
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default().split_whitespace()
    {
        let inspected = std::process::Command::new("docker").args(["inspect", id]).output().unwrap().stdout;
        assert!(!inspected.windows(password.len()).any(|window| window == password), "container {id}");
    }
}

fn walk(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path: PathBuf = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&path, visit),
            Ok(kind) if kind.is_file() => visit(&path),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stable_then_sandbox_then_stable_through_apache_and_containers() {
    let _turn = CONTAINERS.lock().await;
    tell_the_story(Runner::Docker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stable_then_sandbox_then_stable_without_docker() {
    tell_the_story(Runner::Process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_never_healthy_leaves_the_previous_one_serving() {
    let _turn = CONTAINERS.lock().await;
    let playground = playground(Runner::Docker).await;
    let api = playground.sign_in().await.unwrap();
    let mut quiet = Vec::new();
    create_sandbox(&api, "pay").await;
    story::deploy(&api, None, GATEWAY, "main", &mut quiet).await.unwrap();
    story::deploy(&api, Some("pay"), SERVICE, FEATURE, &mut quiet).await.unwrap();
    api.route("pay", SERVICE, RouteTarget::Sandbox).await.unwrap();
    let before = playground.ask_gateway(SERVICE).await.unwrap();
    assert!(before.contains(FEATURE), "{before}");

    let broken = "package main\nimport \"net/http\"\nimport \"os\"\nfunc main() {\n\
        http.HandleFunc(\"/\", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })\n\
        http.ListenAndServe(\":\"+os.Getenv(\"PORT\"), nil)\n}\n";
    let crashing = "package main\nfunc main() { panic(\"no configuration\") }\n";
    let go_mod = "module example.invalid/eredar\n\ngo 1.19\n";
    for (branch, source, word) in [("broken", broken, "503"), ("crashing", crashing, "no configuration")] {
        let files = [("main.go", source.as_bytes()), ("go.mod", go_mod.as_bytes())];
        playground.git().commit(SERVICE, branch, Some("main"), &files, branch).await.unwrap();
        let deployment = api.deploy(Some("pay"), &deployment(SERVICE, branch)).await.unwrap();
        let ended = api.follow(deployment.id, |_| ()).await.unwrap();
        let failure = ended.failure.unwrap();
        assert_eq!((ended.state, failure.stage), (DeploymentState::Failed, Some(Stage::Health)), "{branch}");
        assert_eq!((failure.code, failure.previous_restored), (ErrorCode::Unhealthy, Some(true)), "{branch}");
        assert!(failure.reason.contains(word), "{branch}: {}", failure.reason);
        assert_eq!(playground.ask_gateway(SERVICE).await.unwrap(), before, "{branch}");
    }
    let instances = playground.deployer("micro").await.unwrap().list().await.unwrap();
    assert_eq!(instances.len(), 1, "no half-made container is left: {instances:?}");
    playground.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_build_leaves_no_process() {
    let playground = playground(Runner::Process).await;
    let api = playground.sign_in().await.unwrap();
    let mark = format!("9{:06}", std::process::id());
    let script = format!("echo building\nsleep {mark} &\nsleep {mark}\n");
    playground.git().create_repo("slow").await.unwrap();
    playground.git().commit("slow", "main", None, &[("build.sh", script.as_bytes())], "slow").await.unwrap();

    let deployment = api.deploy(None, &deployment("slow", "main")).await.unwrap();
    let (seen, building) = tokio::sync::oneshot::channel();
    let mut seen = Some(seen);
    let follower = api.clone();
    let follow = tokio::spawn(async move {
        let tell = |event: &EventKind| {
            if matches!(event, EventKind::Log { line, .. } if line == "building")
                && let Some(seen) = seen.take()
            {
                let _ = seen.send(());
            }
        };
        follower.follow(deployment.id, tell).await
    });
    tokio::time::timeout(Duration::from_secs(60), building).await.unwrap().unwrap();
    assert!(!processes(&mark).is_empty(), "it builds");
    api.post::<_, serde_json::Value>(&format!("/api/deployments/{}/cancel", deployment.id), &()).await.unwrap();
    let ended = follow.await.unwrap().unwrap();
    assert_eq!(ended.state, DeploymentState::Cancelled);
    assert!(processes(&mark).is_empty(), "left behind: {:?}", processes(&mark));
    playground.shutdown().await.unwrap();
}

/// The command lines that have `mark`.
fn processes(mark: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&format!("sleep {mark}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_get_wrong_is_told_to_them_and_changes_nothing() {
    let playground = playground(Runner::Process).await;
    let refused = Api::login(playground.base(), "ada", "wrong").await.unwrap_err();
    assert!(refused.to_string().contains("ada"), "{refused}");
    let api = playground.sign_in().await.unwrap();
    create_sandbox(&api, "pay").await;
    for (repo, branch, word) in [("eredar", "no/such/branch", "no/such/branch"), ("nope", "main", "nope")] {
        let told = match api.deploy(Some("pay"), &deployment(repo, branch)).await {
            Err(error) => error.to_string(),
            Ok(deployment) => api.follow(deployment.id, |_| ()).await.unwrap().failure.unwrap().reason,
        };
        assert!(told.contains(word), "{told}");
    }
    for (body, word) in [
        (serde_json::json!({"repo": "../x", "branch": "main"}), "repo name"),
        (serde_json::json!({"repo": "eredar", "branch": "--upload-pack=x"}), "branch name"),
        (serde_json::json!({"repo": "eredar", "branch": "main", "host_port": 0}), "port"),
        (serde_json::json!({"repo": "eredar", "branch": "main", "brnach": 1}), "brnach"),
    ] {
        let refused = api.post::<_, serde_json::Value>("/api/deployments", &body).await.unwrap_err();
        assert!(refused.to_string().contains(word), "{refused}");
    }
    let refused = api.route("pay", SERVICE, RouteTarget::Sandbox).await.unwrap_err();
    assert!(refused.to_string().contains(SERVICE), "{refused}");
    playground.shutdown().await.unwrap();
}
