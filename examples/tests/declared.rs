//! A sandbox by its document on real parts: applied, it is built, runs and is routed to; changed, only what differs is
//! done; emptied, nothing of it is left.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::time::Duration;

use sdp_core::{
    DeploymentState, Manifest,
    api::declared::{AppliedSandbox, SandboxChanges},
};
use sdp_examples::{
    api::Api,
    content::{FEATURE, GATEWAY, SERVICE},
    playground::{Options, Playground, Runner},
    story,
};

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn apply(api: &Api, document: &Manifest) -> AppliedSandbox {
    let applied = api.send(reqwest::Method::PUT, "/api/sandboxes/pay", Some(document)).await;
    applied.unwrap_or_else(|error| panic!("{error}"))
}

async fn applied(api: &Api, document: &Manifest) -> Vec<String> {
    let applied = apply(api, document).await;
    assert!(applied.refused.is_empty(), "{:?}", applied.refused);
    for deployment in applied.deployments {
        let mut log = Vec::new();
        let ended = api.follow(deployment.id, |event| log.push(event.to_string())).await.unwrap();
        assert_eq!(ended.state, DeploymentState::Running, "{log:#?}");
    }
    applied.changes.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_brought_about_and_taken_back() {
    let settings = "[sandboxes]\nupkeep = \"100ms\"\n".into();
    let options = Options { server_settings: settings, ..Options::new(Runner::Process) };
    let playground = Playground::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    let api = playground.sign_in().await.unwrap();
    story::deploy(&api, None, GATEWAY, "main", &mut Vec::new()).await.unwrap();
    let stable = playground.ask_gateway(SERVICE).await.unwrap();

    let text = format!("services:\n- repo: {SERVICE}\n  branch: {FEATURE}\nroutes: {{{SERVICE}: sandbox}}\n");
    let document = Manifest::from_yaml(&text).unwrap();
    assert_eq!(applied(&api, &document).await.len(), 3, "made, a service, a route");
    let routed = async || playground.ask_gateway(SERVICE).await.ok().filter(|answer| answer.contains(FEATURE));
    eventually("the route that the document wants", routed).await;
    assert_eq!(applied(&api, &document).await, [""; 0]);

    let exported = Manifest::from_yaml(&api.text("/api/sandboxes/pay/export").await.unwrap()).unwrap();
    assert_eq!(exported.services, document.services);
    let diff: SandboxChanges = api.post("/api/sandboxes/pay/diff", &exported).await.unwrap();
    assert_eq!(diff.changes, []);

    let more = Manifest::from_yaml(&format!("{text}expires_in: 3d\n").replace(FEATURE, "main")).unwrap();
    let changes = applied(&api, &more).await;
    assert!(changes[0].starts_with("expires at ") && changes[1..] == ["eredar changed, on main"], "{changes:?}");
    let main = async || playground.ask_gateway(SERVICE).await.ok().filter(|answer| answer.contains("\"main\""));
    eventually("the other branch behind the route", main).await;

    assert_eq!(applied(&api, &Manifest::default()).await, ["eredar removed", "eredar to the stable cluster"]);
    assert_eq!(playground.ask_gateway(SERVICE).await.unwrap(), stable, "its route is gone");
    let gone = async || playground.deployer("micro").await.unwrap().list().await.unwrap().is_empty().then_some(());
    eventually("what was taken out to be gone", gone).await;
    assert!(!playground.dir().join("micro/data/worktrees/pay").join(SERVICE).exists(), "its worktree");
    assert!(apply(&api, &Manifest::default()).await.changes.is_empty());
    playground.shutdown().await.unwrap();
}
