//! The container engine restarted under a running agent, in the middle of deployments: every one
//! ends truthfully, nothing is left over, nothing is lost.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{fs, path::Path, process::Command, sync::Arc, time::Duration};

use sdp_core::{
    Deployer, Deployment, DeploymentState, Event, EventKind, Instance, InstanceKey, InstanceState,
    api::{CreateDeployment, CreateSandbox},
};
use sdp_docker::testing::{PrivateEngine, Stop};
use sdp_examples::{
    api::Api,
    judge::{LINES, judge},
    playground::{Options, Playground, Runner},
};
use sdp_git::testing::GitHost;

const IMAGE: &str = "sdp-base:dev";
const IMAGE_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/image-base");

/// Long enough for the slowest machine: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A repo that takes about a second to build and another to become healthy.
fn slow_repo(dir: &Path, git: &GitHost) -> String {
    format!(
        "\n[[repo]]\nname = \"slow\"\npath = {:?}\nremote = \"{}\"\nrecipe = \"command\"\nimage = \"{IMAGE}\"\n\
         build = [\"sh\", \"build.sh\"]\nrun = [\"sh\", \"-c\", \"sleep 1; exec httpd -f -p $PORT -h .\"]\n\
         health = {{ http = \"/round\", timeout = \"20s\" }}\n",
        dir.join("slow"),
        git.url("slow"),
    )
}

/// A playground on an engine of its own.
struct Rig {
    engine: Arc<PrivateEngine>,
    playground: Playground,
    api: Api,
    deployer: Arc<dyn Deployer>,
    rounds: usize,
}

fn key() -> InstanceKey {
    InstanceKey::in_sandbox("pay".parse().unwrap(), "slow".parse().unwrap())
}

async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let seen = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

impl Rig {
    async fn start(engine: Arc<PrivateEngine>) -> Self {
        let options = Options {
            more_repos: slow_repo,
            server_settings: "[agents]\nreconcile = \"500ms\"\n".into(),
            ..Options::new(Runner::Engine(engine.socket()))
        };
        let playground = Playground::start(options).await.unwrap_or_else(|error| panic!("{error}"));
        playground.git().create_repo("slow").await.unwrap();
        let api = playground.sign_in().await.unwrap();
        let create = CreateSandbox::new("pay".parse().unwrap());
        api.post::<_, serde_json::Value>("/api/sandboxes", &create).await.unwrap();
        let deployer = playground.deployer("micro").await.unwrap();
        Self { engine, playground, api, deployer, rounds: 0 }
    }

    /// Asks for a deployment of a commit that was never built.
    async fn deploy(&mut self) -> Deployment {
        self.rounds += 1;
        let script = format!("for i in $(seq {LINES}); do echo line $i; sleep 0.02; done\n");
        let files = [("build.sh", script.into_bytes()), ("round", self.rounds.to_string().into_bytes())];
        let files: Vec<_> = files.iter().map(|(path, bytes)| (*path, bytes.as_slice())).collect();
        let parent = (self.rounds > 1).then_some("main");
        self.playground.git().commit("slow", "main", parent, &files, "another round").await.unwrap();
        let body = CreateDeployment::new("slow".parse().unwrap(), "main".parse().unwrap());
        self.api.deploy(Some("pay"), &body).await.unwrap()
    }

    async fn reaches(&self, deployment: &Deployment, state: DeploymentState) {
        eventually("a state", async || {
            self.events(deployment).iter().any(|event| event.kind == EventKind::state(state)).then_some(())
        })
        .await;
    }

    async fn strike(&self, how: Stop) {
        let engine = Arc::clone(&self.engine);
        let strike = move || engine.stop(how).and_then(|()| engine.resume());
        tokio::task::spawn_blocking(strike).await.unwrap().unwrap();
    }

    async fn ended(&self, deployment: &Deployment) -> Deployment {
        let ended = async || Some(self.api.deployment(deployment.id).await.unwrap()).filter(|it| !it.state.is_active());
        eventually("the deployment's end", ended).await
    }

    /// What is in the deployment's log, from the server's own file.
    fn events(&self, deployment: &Deployment) -> Vec<Event> {
        let path = self.playground.dir().join("server").join("logs").join(format!("{}.log", deployment.id));
        let text = fs::read_to_string(path).unwrap_or_default();
        // The last line may be half written.
        text.lines().map_while(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until exactly one container is left, which runs.
    async fn the_only_one(&self) -> Instance {
        eventually("one running container", async || {
            let found = self.deployer.list().await.unwrap();
            let [one] = <[Instance; 1]>::try_from(found).ok()?;
            (one.state == InstanceState::Running && one.key == key() && !one.parked).then_some(one)
        })
        .await
    }
}

/// Deploys, strikes when the deployment is in `state`, and judges what came of it.
async fn round(rig: &mut Rig, state: DeploymentState, how: Stop) {
    let before = rig.the_only_one().await;
    let deployment = rig.deploy().await;
    rig.reaches(&deployment, state).await;
    rig.strike(how).await;
    let ended = rig.ended(&deployment).await;
    let place = format!("{state}, {how:?}");
    let events = rig.events(&deployment);
    judge(&ended, &events, &mut |complaint| panic!("{place}: {complaint}\n{events:#?}"));
    let serves = match (&ended.state, &ended.failure) {
        (DeploymentState::Running, None) => deployment.id,
        (DeploymentState::Failed, Some(failure)) => {
            assert!(failure.reason.contains("container engine"), "{place}: {}", failure.reason);
            before.deployment
        }
        other => panic!("{place}: {other:?}"),
    };
    assert_eq!(rig.the_only_one().await.deployment, serves, "{place}");
}

#[test]
fn deployments_outlive_an_engine_that_is_restarted_or_killed_at_any_stage() {
    let engine = PrivateEngine::start().expect("a private engine; .ci/setup installs what it needs");
    let engine = Arc::new(engine);
    engine.make_image(Path::new(IMAGE_SCRIPT), IMAGE).unwrap();
    let inside = Arc::clone(&engine);
    engine.run(async move || {
        let mut rig = Rig::start(inside).await;
        let first = rig.deploy().await;
        assert_eq!(rig.ended(&first).await.state, DeploymentState::Running);
        for how in [Stop::Gracefully, Stop::Abruptly] {
            for state in
                [DeploymentState::Build, DeploymentState::Start, DeploymentState::Health, DeploymentState::Running]
            {
                round(&mut rig, state, how).await;
            }
        }
        one_that_does_not_come_back_is_noticed(&mut rig).await;
        let last = rig.deploy().await;
        assert_eq!(rig.ended(&last).await.state, DeploymentState::Running, "the agent goes on");
        rig.playground.shutdown().await.unwrap();
        assert!(rig.deployer.list().await.unwrap().is_empty(), "its containers are removed");
    });
}

async fn one_that_does_not_come_back_is_noticed(rig: &mut Rig) {
    let container = rig.the_only_one().await;
    let host = format!("unix://{}", rig.engine.socket().display());
    let update = ["update", "--restart=no", &container.id];
    assert!(Command::new("docker").env("DOCKER_HOST", host).args(update).output().unwrap().status.success());
    rig.strike(Stop::Gracefully).await;
    let noticed = eventually("the loss to be noticed", async || {
        let deployment = rig.api.deployment(container.deployment).await.unwrap();
        (deployment.state == DeploymentState::Failed).then_some(deployment)
    });
    let reason = noticed.await.failure.unwrap().reason;
    assert!(reason.contains("its program ended") && reason.contains("deploy again"), "{reason}");
}
