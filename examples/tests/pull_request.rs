//! A pull request on real parts: opened, it has a sandbox that a real agent built from a real git host with the
//! credential that its operator configured; its Bitbucket is told how that is; pushed to, it is deployed again; merged,
//! everything is gone.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{fs, path::Path, time::Duration};

use sdp_core::{Branch, CommitId, DeploymentState, api::SandboxDetail};
use sdp_examples::{
    api::Api,
    content::{FEATURE, SERVICE},
    playground::{Options, Playground, Runner},
};
use sdp_server::{
    bitbucket::{BitbucketKind, sign},
    testing::{BitbucketHost, Refusal, pull_request},
};
use serde_json::{Value, json};

const SECRET: &str = "what webhooks are signed with";
const TOKEN: &str = "what Bitbucket is asked with";
const SANDBOX: &str = "pr-eredar-7";

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(Duration::from_secs(90), async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Sends a webhook as Data Center does.
async fn deliver(playground: &Playground, key: &str, id: &str, state: &str, commit: &CommitId, at: i64) {
    let body =
        pull_request(BitbucketKind::DataCenter, "SHOP/eredar", 7, state, FEATURE, commit.as_str(), at).to_string();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client
        .post(format!("{}/api/webhooks/bitbucket/corp", playground.base()))
        .header("content-type", "application/json")
        .header("x-event-key", key)
        .header("x-request-id", id)
        .header("x-hub-signature", sign(&SECRET.into(), &[body.as_bytes()]))
        .body(body);
    let answer = request.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (202, r#"{"status":"queued"}"#));
}

/// Waits until the build of a commit is good, and gives where it answers.
async fn good(bitbucket: &BitbucketHost, commit: &CommitId) -> String {
    let found = eventually("a good build status", async || {
        let last = bitbucket.statuses().into_iter().rfind(|(of, _)| of == commit.as_str())?.1;
        assert_ne!(last["state"], "FAILED", "{last}");
        (last["state"] == "SUCCESSFUL").then_some(last)
    });
    found.await["url"].as_str().unwrap().into()
}

async fn comment(bitbucket: &BitbucketHost, word: &str) -> String {
    let found = eventually(word, async || {
        let comments = bitbucket.comments();
        assert!(comments.len() <= 1, "one comment that is kept up to date: {comments:?}");
        comments.into_iter().map(|(_, text)| text).find(|text| text.contains(word))
    });
    found.await
}

async fn ask(url: &str) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(url).send().await.unwrap().text().await.unwrap()
}

async fn tip(api: &Api) -> CommitId {
    let branches: Vec<Branch> = api.get(&format!("/api/repos/{SERVICE}/branches")).await.unwrap();
    branches.into_iter().find(|branch| branch.name.as_str() == FEATURE).unwrap().commit
}

async fn push(playground: &Playground, message: &str) -> CommitId {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/go-service");
    let [program, module] = ["main.go", "go.mod"].map(|name| fs::read(fixture.join(name)).unwrap());
    let about = format!(
        "package main\n\nconst (\n\tservice = \"{SERVICE}\"\n\tbranch  = \"{FEATURE}\"\n\tmessage = \"{message}\"\n)\n"
    );
    let files = [("main.go", &*program), ("go.mod", &*module), ("about.go", about.as_bytes())];
    playground.git().commit(SERVICE, FEATURE, Some(FEATURE), &files, message).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_has_a_sandbox_from_its_opening_to_its_merge() {
    let bitbucket = BitbucketHost::start(BitbucketKind::DataCenter, TOKEN).await.unwrap();
    let secrets = tempfile::tempdir().unwrap();
    let (secret, token) = (secrets.path().join("secret"), secrets.path().join("token"));
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let settings = format!(
        "[sandboxes]\nupkeep = \"100ms\"\n[deliveries]\nfirst = \"100ms\"\n\
        [[bitbucket]]\nname = \"corp\"\nkind = \"data-center\"\nurl = \"{}\"\nsecret_file = {secret:?}\n\
        token_file = {token:?}\n\
        [[bitbucket.repo]]\nslug = \"SHOP/eredar\"\nrepo = \"{SERVICE}\"\ntemplate = \"shop\"\nexpires_in = \"1h\"\n",
        bitbucket.url()
    );
    let options = Options { server_settings: settings, agents_sign_in: true, ..Options::new(Runner::Process) };
    let playground = Playground::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    let api = playground.sign_in().await.unwrap();
    let template = json!({ "name": "shop", "services": [{ "repo": SERVICE, "branch": "main" }] });
    api.post::<_, Value>("/api/templates", &template).await.unwrap();

    // Bitbucket is slow to wake: what it is told is told again.
    bitbucket.refuse([Refusal::Status(503, None), Refusal::Status(429, Some(0))]);
    let first = tip(&api).await;
    deliver(&playground, "pr:opened", "1", "OPEN", &first, 100).await;
    let url = good(&bitbucket, &first).await;
    assert!(ask(&url).await.contains("Good day!"));
    let text = comment(&bitbucket, &url).await;
    assert!(text.starts_with("**SDP sandbox `pr-eredar-7`**") && text.contains(first.short()), "{text}");
    let states: Vec<_> = bitbucket.statuses().into_iter().map(|(_, body)| body["state"].clone()).collect();
    assert_eq!(states.first(), Some(&json!("INPROGRESS")), "{states:?}");

    let second = push(&playground, "Prices of another commit").await;
    deliver(&playground, "pr:from_ref_updated", "2", "OPEN", &second, 200).await;
    let url = good(&bitbucket, &second).await;
    assert!(ask(&url).await.contains("another commit"));
    comment(&bitbucket, second.short()).await;
    let detail: SandboxDetail = api.get(&format!("/api/sandboxes/{SANDBOX}")).await.unwrap();
    let deployment = detail.deployments[0].clone();
    assert_eq!((deployment.state, deployment.user.as_str()), (DeploymentState::Running, "bitbucket"));

    deliver(&playground, "pr:merged", "3", "MERGED", &second, 300).await;
    comment(&bitbucket, "was removed: the pull request is merged").await;
    assert!(api.get::<SandboxDetail>(&format!("/api/sandboxes/{SANDBOX}")).await.is_err());
    let instances = playground.deployer("micro").await.unwrap().list().await.unwrap();
    assert!(instances.is_empty(), "{instances:?}");
    assert!(!playground.dir().join("micro/data/worktrees").join(SANDBOX).exists(), "its worktrees");
    assert_eq!(api.deployment(deployment.id).await.unwrap().state, DeploymentState::Stopped, "its history stays");
    playground.shutdown().await.unwrap();
}
