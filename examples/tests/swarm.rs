//! Three machines that are one swarm: what is built on the manager runs on a worker, and is found there.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{
    path::Path,
    process::{Command, Stdio},
};

use sdp_core::{DeploymentState, InstanceState, api::CreateSandbox};
use sdp_docker::testing::PrivateEngine;
use sdp_examples::{
    content::{FEATURE, SERVICE},
    playground::{Options, Playground, Runner},
    story,
};

const IMAGE: &str = "sdp-base:dev";
const IMAGE_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/image-base");

fn docker(engine: &PrivateEngine, args: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.env("DOCKER_HOST", format!("unix://{}", engine.socket().display())).args(args);
    command
}

/// What `docker` prints, asked of an engine.
fn ask(engine: &PrivateEngine, args: &[&str]) -> String {
    let output = docker(engine, args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Gives an engine another's image, with the same id.
fn copy_image(from: &PrivateEngine, to: &PrivateEngine) {
    let mut saved = docker(from, &["save", IMAGE]).stdout(Stdio::piped()).spawn().unwrap();
    let loaded = docker(to, &["load"]).stdin(saved.stdout.take().unwrap()).output().unwrap();
    assert!(saved.wait().unwrap().success() && loaded.status.success());
}

#[test]
fn a_service_of_a_sandbox_runs_on_another_machine_of_the_swarm_and_its_route_leads_there() {
    let start = |_| PrivateEngine::start().expect("a private engine; .ci/setup installs what it needs");
    let [manager, first, second] = [0, 1, 2].map(start);
    let addresses = PrivateEngine::link(&[&manager, &first, &second]).unwrap();
    manager.make_image(Path::new(IMAGE_SCRIPT), IMAGE).unwrap();
    let at = addresses[0].to_string();
    ask(&manager, &["swarm", "init", "--advertise-addr", &at]);
    let token = ask(&manager, &["swarm", "join-token", "-q", "worker"]);
    for (worker, address) in [&first, &second].into_iter().zip(&addresses[1..]) {
        copy_image(&manager, worker);
        ask(
            worker,
            &["swarm", "join", "--token", &token, "--advertise-addr", &address.to_string(), &format!("{at}:2377")],
        );
        let node = ask(worker, &["info", "-f", "{{.Swarm.NodeID}}"]);
        ask(&manager, &["node", "update", "--label-add", "sandboxes=yes", &node]);
    }
    manager.run(async || {
        let runner = Runner::Swarm(manager.socket(), "sandboxes");
        let options = Options::new(runner);
        let playground = Playground::start(options).await.unwrap_or_else(|error| panic!("{error}"));
        let api = playground.sign_in().await.unwrap();
        let create = CreateSandbox::new("pay".parse().unwrap());
        api.post::<_, serde_json::Value>("/api/sandboxes", &create).await.unwrap();
        for branch in ["main", FEATURE] {
            let mut quiet = Vec::new();
            let deployment = story::deploy(&api, Some("pay"), SERVICE, branch, &mut quiet).await.unwrap();
            assert_eq!(deployment.state, DeploymentState::Running);
            let url = deployment.url.unwrap();
            let host = url.strip_prefix("http://").and_then(|rest| rest.split(':').next()).unwrap().to_owned();
            assert!(addresses[1..].iter().any(|worker| worker.to_string() == host), "{url} is no worker");
            let answer = reqwest::get(url.as_str()).await.unwrap().text().await.unwrap();
            assert!(answer.contains(branch), "{answer}");
        }
        let deployer = playground.deployer("micro").await.unwrap();
        let [instance] = <[_; 1]>::try_from(deployer.list().await.unwrap()).unwrap();
        assert_eq!(instance.state, InstanceState::Running);
        playground.shutdown().await.unwrap();
        assert!(deployer.list().await.unwrap().is_empty(), "its services are removed");
    });
}
