//! A pull request on real parts: opened, it has a sandbox that a real agent built from a real git host with the
//! credential that its operator configured; its Bitbucket is told how that is; pushed to, it is deployed again; merged,
//! everything is gone.

use sdp_core::{DeploymentState, api::SandboxDetail};
use sdp_examples::{
    content::{FEATURE, SERVICE, commit_service},
    playground::{Options, Playground, Runner},
    pull_requests::{Bitbucket, SANDBOX, Turn, ask, tip, worktrees},
};
use sdp_server::testing::Refusal;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_has_a_sandbox_from_its_opening_to_its_merge() {
    let bitbucket = Bitbucket::start("what webhooks are signed with", "what Bitbucket is asked with").await.unwrap();
    let options =
        Options { server_settings: bitbucket.settings("shop"), agents_sign_in: true, ..Options::new(Runner::Process) };
    let playground = Playground::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    let api = playground.sign_in().await.unwrap();
    let template = json!({ "name": "shop", "services": [{ "repo": SERVICE, "branch": "main" }] });
    api.post::<_, Value>("/api/templates", &template).await.unwrap();

    // Bitbucket is slow to wake: what it is told is told again.
    bitbucket.host().refuse([Refusal::Status(503, None), Refusal::Status(429, Some(0))]);
    let first = tip(&api).await.unwrap();
    bitbucket.tell(playground.base(), Turn::Opened, &first).await.unwrap();
    let url = bitbucket.good(&first).await.unwrap();
    assert!(ask(&url).await.unwrap().contains("Good day!"));
    let text = bitbucket.comment(&url).await.unwrap();
    assert!(text.starts_with("**SDP sandbox `pr-eredar-7`**") && text.contains(first.short()), "{text}");
    let states: Vec<_> = bitbucket.host().statuses().into_iter().map(|(_, body)| body["state"].clone()).collect();
    assert_eq!(states.first(), Some(&json!("INPROGRESS")), "{states:?}");

    let second = commit_service(playground.git(), SERVICE, FEATURE, "Prices of another commit").await.unwrap();
    bitbucket.tell(playground.base(), Turn::Updated, &second).await.unwrap();
    let url = bitbucket.good(&second).await.unwrap();
    assert!(ask(&url).await.unwrap().contains("another commit"));
    bitbucket.comment(second.short()).await.unwrap();
    let detail: SandboxDetail = api.get(&format!("/api/sandboxes/{SANDBOX}")).await.unwrap();
    let deployment = detail.deployments[0].clone();
    assert_eq!((deployment.state, deployment.user.as_str()), (DeploymentState::Running, "bitbucket"));

    bitbucket.tell(playground.base(), Turn::Merged, &second).await.unwrap();
    bitbucket.comment("was removed: the pull request is merged").await.unwrap();
    assert!(api.get::<SandboxDetail>(&format!("/api/sandboxes/{SANDBOX}")).await.is_err());
    let instances = playground.deployer("micro").await.unwrap().list().await.unwrap();
    assert!(instances.is_empty(), "{instances:?}");
    assert!(!worktrees(&playground.dir().join("micro")).exists(), "its worktrees");
    assert_eq!(api.deployment(deployment.id).await.unwrap().state, DeploymentState::Stopped, "its history stays");
    playground.shutdown().await.unwrap();
}
