//! Pull requests of a Bitbucket: sandboxes for them, build statuses and comments on them.

use std::{cell::Cell, time::Duration};

use reqwest::Method;
use sdp_core::{
    DeploymentId, ErrorCode,
    protocol::{Hello, RequestBody},
};
use sdp_server::{
    ServerConfig,
    bitbucket::{BitbucketConfig, BitbucketKind, sign},
    testing::{BitbucketHost, Refusal, pull_request},
};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::support::{Agent, Api, Plane, STATES, done, hello, inventory, on_disk, refused, states, until};
use BitbucketKind::{Cloud, DataCenter};

const SECRET: &str = "webhook-s3cret-canary";
const TOKEN: &str = "access-t0ken-canary";
const FIRST: &str = "ef8755f06ee4b28c96a847a95cb8ec8ed6ddd1ca";
const SECOND: &str = "0123456789abcdef0123456789abcdef01234567";
const SLUG: &str = "SHOP/eredar";

/// A server that knows a Bitbucket, with everything quick.
fn knows(config: &mut ServerConfig, kind: BitbucketKind, url: &str, more: &str) {
    let kind = if kind == Cloud { "cloud" } else { "data-center" };
    let text = format!(
        "name = 'corp'\nkind = '{kind}'\nurl = '{url}'\n\
        [[repo]]\nslug = '{SLUG}'\nrepo = 'eredar'\ntemplate = 'checkout'\n{more}"
    );
    let bitbucket: BitbucketConfig = toml::from_str(&text).unwrap();
    let (secret, token) = (Some(SECRET.into()), Some(TOKEN.into()));
    config.bitbucket = vec![BitbucketConfig { secret, token, ..bitbucket }];
    config.deliveries.first = Duration::from_millis(10);
    config.deliveries.longest = Duration::from_millis(50);
    config.deliveries.timeout = Duration::from_millis(500);
    config.sandboxes.upkeep = Duration::from_millis(20);
}

async fn plane(kind: BitbucketKind, more: &str) -> (BitbucketHost, Plane) {
    let host = BitbucketHost::start(kind, TOKEN).await.unwrap();
    let url = host.url();
    let plane = Plane::with(|config| knows(config, kind, &url, more)).await;
    (host, plane)
}

async fn ready(plane: &Plane) -> (Agent, Api, SecretString) {
    let (agent, api, token) = plane.ready(inventory(&["eredar", "illidan"])).await;
    let services = json!([{ "repo": "eredar", "branch": "main" }, { "repo": "illidan", "branch": "main" }]);
    assert_eq!(api.post("/api/templates", json!({ "name": "checkout", "services": services })).await.0, 201);
    (agent, api, token)
}

/// Sends a webhook as Bitbucket does.
async fn deliver(api: &Api, key: &str, id: &str, body: &Value) -> (u16, Value) {
    let signature = sign(&SECRET.into(), &[body.to_string().as_bytes()]);
    send(
        api,
        &[("x-event-key", key), ("x-request-uuid", id), ("x-request-id", id), ("x-hub-signature", &signature)],
        body,
    )
    .await
}

async fn send(api: &Api, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
    let mut headers = headers.to_vec();
    headers.push(("content-type", "application/json"));
    let answer = api.raw(Method::POST, "/api/webhooks/bitbucket/corp", &headers, body.to_string()).await;
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

fn told(kind: BitbucketKind, state: &str, commit: &str, at: i64) -> Value {
    pull_request(kind, SLUG, 7, state, "feature/x", commit, at)
}

/// Lets the agent take `new` deployments into a sandbox, and gives all there are: repo and id, the newest first.
async fn begun(agent: &mut Agent, api: &Api, sandbox: &str, new: usize) -> Vec<(String, DeploymentId)> {
    let taken = Cell::new(0);
    let take = |body: &RequestBody| {
        taken.set(taken.get() + usize::from(matches!(body, RequestBody::Deploy { .. })));
        done(body)
    };
    agent.during(until(|| async { taken.get() }, |taken| *taken == new), take).await;
    let (_, page) = api.get(&format!("/api/deployments?sandbox={sandbox}")).await;
    let items = page["items"].as_array().unwrap().iter();
    items
        .map(|item| (item["repo"].as_str().unwrap().into(), serde_json::from_value(item["id"].clone()).unwrap()))
        .collect()
}

async fn comes_up(agent: &mut Agent, id: DeploymentId, commit: &str) {
    let mut events = states(&STATES);
    events.insert(1, json!({ "type": "source", "branch": "feature/x", "commit": commit }));
    let endpoint = json!({ "type": "endpoint", "host_port": 7001, "url": "http://vm.example:7001", "instance": "c" });
    events.insert(4, endpoint);
    agent.events(id, 1, &events).await;
}

/// Waits until the last status of a commit is this one. While nothing else is known of it, Cloud's short form does.
async fn status(host: &BitbucketHost, commit: &str, state: &str) -> Value {
    let last =
        || async { host.statuses().into_iter().rfind(|(of, _)| commit.starts_with(of.as_str())).map(|(_, body)| body) };
    until(last, |body| body.as_ref().is_some_and(|body| body["state"] == state)).await.unwrap()
}

async fn comment(host: &BitbucketHost, word: &str) -> String {
    let all = until(|| async { host.comments() }, |all| all.first().is_some_and(|(_, text)| text.contains(word))).await;
    assert_eq!(all.len(), 1, "one comment that is kept up to date: {all:?}");
    assert_eq!(all[0].0, "SHOP/eredar#7");
    all[0].1.clone()
}

async fn story(kind: BitbucketKind) {
    let (host, plane) = plane(kind, "").await;
    let (mut agent, api, _) = ready(&plane).await;
    let (opened, updated, merged) = match kind {
        Cloud => ("pullrequest:created", "pullrequest:updated", "pullrequest:fulfilled"),
        DataCenter => ("pr:opened", "pr:from_ref_updated", "pr:merged"),
    };
    let body = told(kind, "OPEN", FIRST, 100);
    assert_eq!(deliver(&api, opened, "1", &body).await, (202, json!({ "status": "queued" })));
    assert_eq!(deliver(&api, opened, "1", &body).await, (202, json!({ "status": "repeated" })));

    let first = begun(&mut agent, &api, "pr-eredar-7", 2).await;
    for (repo, id) in &first {
        let (_, deployment) = api.get(&format!("/api/deployments/{id}")).await;
        let branch = if repo == "eredar" { "feature/x" } else { "main" };
        assert_eq!((&deployment["branch"], &deployment["user"]), (&json!(branch), &json!("bitbucket")));
        let commit = if repo == "eredar" { FIRST } else { SECOND };
        comes_up(&mut agent, *id, commit).await;
    }
    let good = status(&host, FIRST, "SUCCESSFUL").await;
    assert_eq!((&good["key"], &good["url"]), (&json!("sdp-pr-eredar-7"), &json!("http://vm.example:7001")));
    comment(&host, "| eredar | `feature/x` | `ef8755f06ee4` | running | http://vm.example:7001 |").await;

    let body = told(kind, "OPEN", SECOND, 200);
    assert_eq!(deliver(&api, updated, "2", &body).await.1["status"], "queued");
    let all = begun(&mut agent, &api, "pr-eredar-7", 1).await;
    assert_eq!(all[0].0, "eredar", "only what has changed is deployed again");
    status(&host, SECOND, "INPROGRESS").await;
    let id = all[0].1;
    agent
        .events(
            id,
            1,
            &[
                json!({ "type": "state", "state": "source" }),
                json!({ "type": "source", "branch": "feature/x", "commit": SECOND }),
            ],
        )
        .await;
    let failure = json!({ "stage": "source", "code": "git-failed", "reason": "it broke" });
    agent.events(id, 3, &[json!({ "type": "state", "state": "failed", "failure": failure })]).await;
    assert!(status(&host, SECOND, "FAILED").await["description"].as_str().unwrap().contains("it broke"));
    comment(&host, "eredar: `it broke`").await;

    // What was told late changes nothing.
    assert_eq!(deliver(&api, updated, "3", &told(kind, "OPEN", FIRST, 150)).await.1["status"], "stale");
    let body = told(kind, "MERGED", SECOND, 300);
    assert_eq!(deliver(&api, merged, "4", &body).await.1["status"], "queued");
    let gone = until(|| api.get("/api/sandboxes/pr-eredar-7"), |(status, _)| *status == 404);
    agent.during(gone, done).await;
    comment(&host, "was removed: the pull request is merged").await;
    assert_eq!(deliver(&api, opened, "5", &told(kind, "OPEN", FIRST, 100)).await.1["status"], "stale", "replayed");
    assert_eq!(api.get("/api/sandboxes/pr-eredar-7").await.0, 404);

    let (_, audit) = api.get("/api/audit?subject=sandboxes/pr-eredar-7&action=sandbox-delete").await;
    assert_eq!(audit["items"][0]["detail"], "its pull request is merged");
    for secret in [SECRET, TOKEN] {
        assert!(!on_disk(plane.dir.path(), secret), "{secret} is on the disk");
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_pull_request_of_cloud_has_a_sandbox_as_long_as_it_is_open() {
    story(Cloud).await;
}

#[tokio::test]
async fn a_pull_request_of_data_center_has_a_sandbox_as_long_as_it_is_open() {
    story(DataCenter).await;
}

#[tokio::test]
async fn what_is_not_signed_with_the_secret_is_refused() {
    let (_host, plane) = plane(DataCenter, "").await;
    let api = Api::new(plane.address());
    let body = told(DataCenter, "OPEN", FIRST, 100);
    let right = sign(&SECRET.into(), &[body.to_string().as_bytes()]);
    let wrong = sign(&"another".into(), &[body.to_string().as_bytes()]);
    let tampered = told(DataCenter, "OPEN", SECOND, 100);
    for (body, signature) in
        [(&tampered, Some(right.as_str())), (&body, Some(&wrong)), (&body, Some("sha256=")), (&body, None)]
    {
        let mut headers = vec![("x-event-key", "pr:opened"), ("x-request-id", "1")];
        headers.extend(signature.map(|signature| ("x-hub-signature", signature)));
        let (status, problem) = send(&api, &headers, body).await;
        assert_eq!((status, &problem["code"]), (401, &json!("not-signed-in")), "{problem}");
    }
    let ping = json!({ "test": true });
    assert_eq!(send(&api, &[("x-event-key", "diagnostics:ping")], &ping).await, (202, json!({ "status": "pong" })));
    let forged = [("x-event-key", "diagnostics:ping"), ("x-hub-signature", wrong.as_str())];
    assert_eq!(send(&api, &forged, &ping).await.0, 401);
    // What was refused was not taken for delivered.
    assert_eq!(deliver(&api, "pr:opened", "1", &body).await.1["status"], "queued");

    let answer = api.raw(Method::POST, "/api/webhooks/bitbucket/other", &[], "{}".into()).await;
    assert_eq!(answer.status(), 404);
    assert_eq!(deliver(&api, "pr:opened", "2", &json!({ "pullRequest": 1 })).await.0, 422);
    let hostile = pull_request(DataCenter, SLUG, 7, "OPEN", "--upload-pack=x", FIRST, 200);
    assert_eq!(deliver(&api, "pr:opened", "3", &hostile).await.0, 422);
    let elsewhere = pull_request(DataCenter, "SHOP/other", 7, "OPEN", "x", FIRST, 200);
    let (status, ignored) = deliver(&api, "pr:opened", "4", &elsewhere).await;
    assert_eq!((status, &ignored["status"]), (202, &json!("ignored")), "{ignored}");
    assert_eq!(deliver(&api, "pr:comment:added", "5", &body).await.1["status"], "ignored");
    assert_eq!(
        deliver(
            &api,
            "repo:refs_changed",
            "6",
            &json!({ "repository": { "slug": "eredar", "project": { "key": "SHOP" } }, "changes": [] })
        )
        .await
        .1["status"],
        "ignored"
    );
    let large = "x".repeat(3 * 1024 * 1024);
    let answer = api.raw(Method::POST, "/api/webhooks/bitbucket/corp", &[], large).await;
    assert_eq!(answer.status(), 413);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_was_answered_is_done_also_after_a_restart_and_when_the_agent_is_back() {
    let (host, plane) = plane(Cloud, "").await;
    let (agent, api, token) = ready(&plane).await;
    drop(agent);
    until(|| api.get("/api/agents/micro"), |(_, agent)| agent["connected"] == false).await;
    assert_eq!(deliver(&api, "pullrequest:created", "1", &told(Cloud, "OPEN", FIRST, 100)).await.0, 202);
    let there = until(|| api.get("/api/sandboxes/pr-eredar-7"), |(status, _)| *status == 200).await;
    assert_eq!(there.1["deployments"], json!([]), "nobody is there to deploy it");

    let plane = plane.restarted().await;
    let hello = Hello { inventory: inventory(&["eredar", "illidan"]), ..hello("micro", &token) };
    let mut agent = Agent::greet(plane.address(), hello).await;
    let api = Api::sign_in(plane.address(), &mut agent, "ada").await;
    for (_, id) in begun(&mut agent, &api, "pr-eredar-7", 2).await {
        comes_up(&mut agent, id, FIRST).await;
    }
    status(&host, FIRST, "SUCCESSFUL").await;
    comment(&host, "running").await;
    assert_eq!(
        deliver(&api, "pullrequest:created", "1", &told(Cloud, "OPEN", FIRST, 100)).await.1["status"],
        "repeated"
    );
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_bitbucket_in_trouble_is_told_when_it_is_better_and_no_more_than_once() {
    for kind in [Cloud, DataCenter] {
        let (host, plane) = plane(kind, "").await;
        let (mut agent, api, _) = ready(&plane).await;
        host.refuse([
            Refusal::Status(500, None),
            Refusal::Status(429, Some(0)),
            Refusal::Silence,
            Refusal::Status(401, None),
            Refusal::Status(503, None),
        ]);
        let key = if kind == Cloud { "pullrequest:created" } else { "pr:opened" };
        assert_eq!(deliver(&api, key, "1", &told(kind, "OPEN", FIRST, 100)).await.0, 202);
        for (_, id) in begun(&mut agent, &api, "pr-eredar-7", 2).await {
            comes_up(&mut agent, id, FIRST).await;
        }
        status(&host, FIRST, "SUCCESSFUL").await;
        comment(&host, "running").await;
        let statuses = host.statuses();
        let repeated = statuses.windows(2).any(|two| two[0] == two[1]);
        assert!(!repeated, "{statuses:?}");
        // A person removes the comment: there is another when there is something to say.
        host.remove_comments();
        let closed = if kind == Cloud { "pullrequest:rejected" } else { "pr:declined" };
        deliver(&api, closed, "2", &told(kind, "DECLINED", FIRST, 200)).await;
        let gone = until(|| api.get("/api/sandboxes/pr-eredar-7"), |(status, _)| *status == 404);
        agent.during(gone, done).await;
        comment(&host, "was removed: the pull request is declined").await;
        plane.server.shutdown().await;
    }
}

#[tokio::test]
async fn a_comment_whose_answer_was_lost_is_not_posted_twice() {
    let (host, plane) = plane(DataCenter, "").await;
    let (mut agent, api, _) = ready(&plane).await;
    assert_eq!(deliver(&api, "pr:opened", "1", &told(DataCenter, "OPEN", FIRST, 100)).await.0, 202);
    let deployments = begun(&mut agent, &api, "pr-eredar-7", 2).await;
    comment(&host, "queued").await;
    let posts = || host.requests().iter().filter(|told| told.starts_with("POST") && told.contains("/comments")).count();
    assert_eq!(posts(), 1);
    for (_, id) in deployments {
        comes_up(&mut agent, id, FIRST).await;
    }
    comment(&host, "running").await;
    assert_eq!(posts(), 1);
    plane.server.shutdown().await;

    let host = BitbucketHost::start(DataCenter, TOKEN).await.unwrap();
    let url = host.url();
    let plane = Plane::with(|config| knows(config, DataCenter, &url, "")).await;
    let api = Api::new(plane.address());
    // There is no template: the status says so, and so does the comment, which is posted and not answered.
    host.refuse([Refusal::Not, Refusal::Not, Refusal::Deaf]);
    assert_eq!(deliver(&api, "pr:opened", "1", &told(DataCenter, "OPEN", FIRST, 100)).await.0, 202);
    let failed = status(&host, FIRST, "FAILED").await;
    assert_eq!(failed["description"], "there is no template checkout");
    comment(&host, "could not be made as wanted: `there is no template checkout`").await;
    let replaced =
        |told: &Vec<String>| told.iter().any(|one| one.starts_with("PUT") && one.ends_with("/comments/41 200"));
    until(|| async { host.requests() }, replaced).await;
    comment(&host, "there is no template checkout").await;
    plane.server.shutdown().await;
}

#[tokio::test]
async fn pull_requests_that_cannot_have_a_sandbox_say_why_and_touch_nobody_elses() {
    let (host, plane) = plane(DataCenter, "").await;
    let (mut agent, api, _) = ready(&plane).await;
    assert_eq!(api.post("/api/sandboxes", json!({ "name": "pr-eredar-7" })).await.0, 201);
    assert_eq!(deliver(&api, "pr:opened", "1", &told(DataCenter, "OPEN", FIRST, 100)).await.0, 202);
    let failed = status(&host, FIRST, "FAILED").await;
    assert!(failed["description"].as_str().unwrap().contains("of ada is there already"), "{failed}");
    deliver(&api, "pr:declined", "2", &told(DataCenter, "DECLINED", FIRST, 200)).await;
    comment(&host, "was removed").await;
    assert_eq!(api.get("/api/sandboxes/pr-eredar-7").await.1["owner"], "ada", "it is not the pull request's");

    let mut fork = pull_request(DataCenter, SLUG, 8, "OPEN", "feature/x", SECOND, 100);
    fork["pullRequest"]["fromRef"]["repository"]["project"]["key"] = json!("~eve");
    assert_eq!(deliver(&api, "pr:opened", "3", &fork).await.1["status"], "queued");
    assert_eq!(
        deliver(&api, "pr:opened", "4", &pull_request(DataCenter, SLUG, 9, "OPEN", "y", SECOND, 100)).await.0,
        202
    );
    begun(&mut agent, &api, "pr-eredar-9", 2).await;
    assert_eq!(api.get("/api/sandboxes/pr-eredar-8").await.0, 404, "what others push is not run");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_push_deploys_the_branch_again_where_that_is_wanted() {
    let (_host, plane) = plane(Cloud, "follow_pushes = true\n").await;
    let (mut agent, api, _) = ready(&plane).await;
    for (name, branch) in [("on-main", "main"), ("on-x", "x")] {
        assert_eq!(api.post("/api/sandboxes", json!({ "name": name })).await.0, 201);
        let body = json!({ "repo": "eredar", "branch": branch, "env": { "MODE": "test" } });
        agent.accepts(&api, &format!("/api/sandboxes/{name}/deployments"), body).await;
    }
    let push = json!({
        "repository": { "full_name": SLUG },
        "push": { "changes": [{ "new": { "type": "branch", "name": "main", "target": { "hash": SECOND } }, "old": null }] },
    });
    assert_eq!(deliver(&api, "repo:push", "1", &push).await.1["status"], "queued");
    let both = begun(&mut agent, &api, "on-main", 1).await;
    let (_, again) = api.get(&format!("/api/deployments/{}", both[0].1)).await;
    assert_eq!(
        (&again["branch"], &again["env"], &again["user"]),
        (&json!("main"), &json!({ "MODE": "test" }), &json!("bitbucket"))
    );
    let (_, page) = api.get("/api/deployments?sandbox=on-x").await;
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn deployments_for_pull_requests_bring_no_credentials() {
    let (_host, plane) = plane(Cloud, "").await;
    let (mut agent, api, _) = ready(&plane).await;
    assert_eq!(deliver(&api, "pullrequest:created", "1", &told(Cloud, "OPEN", FIRST, 100)).await.0, 202);
    let mut asked = 0;
    let answer = |body: &RequestBody| match body {
        RequestBody::Deploy { credentials, .. } => {
            assert!(credentials.is_none(), "the agent's own are used");
            asked += 1;
            done(body)
        }
        _ => refused(ErrorCode::Timeout, "busy"),
    };
    let both = until(
        || api.get("/api/deployments?sandbox=pr-eredar-7"),
        |(_, page)| page["items"].as_array().is_some_and(|all| all.len() == 2),
    );
    agent.during(both, answer).await;
    assert!(asked >= 1);
    plane.server.shutdown().await;
}
