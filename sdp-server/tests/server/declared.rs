//! Sandboxes by their document: applied, compared, exported.

use std::time::Duration;

use reqwest::Method;
use sdp_core::protocol::{Outcome, ReplyBody, RequestBody};
use sdp_core::{Change, DeploymentId, ErrorCode};
use serde_json::{Value, json};

use crate::{
    routes::{changes, route, table},
    support::{Agent, Api, Plane, STATES, done, hello, inventory, refused, states, until, with_gateway},
};

const YAML: &str = "
services:
- repo: eredar
  branch: feature/x
  env: {MODE: test}
expires_in: 2d
";

/// Applies a document as YAML.
async fn put(api: &Api, path: &str, document: &str) -> (u16, Value) {
    send(api, Method::PUT, path, document).await
}

async fn send(api: &Api, method: Method, path: &str, document: &str) -> (u16, Value) {
    let bearer = format!("Bearer {}", api.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/yaml")];
    let answer = api.raw(method, path, &headers, document.into()).await;
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

async fn export(api: &Api, name: &str) -> String {
    let bearer = format!("Bearer {}", api.token);
    let path = format!("/api/sandboxes/{name}/export");
    let answer = api.raw(Method::GET, &path, &[("authorization", &bearer)], String::new()).await;
    assert_eq!(answer.headers()["content-type"], "application/yaml");
    answer.text().await.unwrap()
}

fn begun(answer: &Value, at: usize) -> DeploymentId {
    serde_json::from_value(answer["deployments"][at]["id"].clone()).unwrap()
}

/// What was done, in words.
fn told(answer: &Value) -> Vec<String> {
    let changes: Vec<Change> = serde_json::from_value(answer["changes"].clone()).unwrap();
    changes.iter().map(|change| change.to_string().split(" at 20").next().unwrap().into()).collect()
}

async fn comes_up(agent: &mut Agent, id: DeploymentId) {
    let mut events = states(&STATES);
    let endpoint = json!({ "type": "endpoint", "host_port": 7001, "url": "http://vm.example:7001", "instance": "c" });
    events.insert(3, endpoint);
    agent.events(id, 1, &events).await;
}

#[tokio::test]
async fn a_document_makes_a_sandbox_and_applied_again_does_nothing() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar", "illidan"])).await;
    let (status, diff) = send(&api, Method::POST, "/api/sandboxes/pay/diff", YAML).await;
    assert_eq!((status, told(&diff).len()), (200, 2), "{diff}");
    assert_eq!(api.get("/api/sandboxes/pay").await.0, 404, "a look changes nothing");

    let (status, made) = agent.during(put(&api, "/api/sandboxes/pay", YAML), done).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(told(&made), ["made in environment default", "eredar added on feature/x"]);
    assert_eq!((&made["sandbox"]["owner"], &made["deployments"][0]["env"]), (&json!("ada"), &json!({"MODE": "test"})));
    let sandbox: sdp_core::Sandbox = serde_json::from_value(made["sandbox"].clone()).unwrap();
    let lifetime = sandbox.expires_at.duration_since(sandbox.created_at).as_secs();
    assert!((2 * 86_400 - 1..=2 * 86_400).contains(&lifetime), "{lifetime}");

    for end in [0, 1] {
        if end == 1 {
            comes_up(&mut agent, begun(&made, 0)).await;
        }
        let nothing = |body: &RequestBody| panic!("asked for {body:?}");
        // The end that was written down is the one that counts: from when the sandbox was made.
        let document = export(&api, "pay").await;
        let (status, again) = agent.during(put(&api, "/api/sandboxes/pay", &document), nothing).await;
        assert_eq!((status, &again["changes"], &again["deployments"]), (200, &json!([]), &json!([])), "{again}");
        let (_, diff) = send(&api, Method::POST, "/api/sandboxes/pay/diff", &document).await;
        assert_eq!(diff, json!({ "changes": [] }));
    }
    let without_end = YAML.replace("expires_in: 2d", "");
    assert_eq!(put(&api, "/api/sandboxes/pay", &without_end).await.1["changes"], json!([]));

    let as_json = json!({
        "services": [{ "repo": "eredar", "branch": "feature/y" }, { "repo": "illidan", "branch": "main" }],
    });
    let (status, changed) = agent.during(api.put("/api/sandboxes/pay", as_json), done).await;
    assert_eq!(status, 202, "{changed}");
    assert_eq!(told(&changed), ["eredar changed, on feature/y", "illidan added on main"]);
    let bearer = format!("Bearer {}", api.token);
    let headers = [("authorization", bearer.as_str()), ("accept", "application/json")];
    let exported = api.raw(Method::GET, "/api/sandboxes/pay/export", &headers, String::new()).await;
    let exported: Value = serde_json::from_str(&exported.text().await.unwrap()).unwrap();
    assert_eq!(exported["services"], changed["sandbox"]["services"]);
    let (_, audit) = api.get("/api/audit?action=sandbox-apply").await;
    assert_eq!(audit["items"][0]["detail"], "eredar changed, on feature/y; illidan added on main");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_service_left_out_goes_with_its_route_also_when_its_agent_was_away() {
    let plane = Plane::with(|config| config.sandboxes.upkeep = Duration::from_millis(20)).await;
    let (mut agent, api, token) = plane.ready(with_gateway()).await;
    let document = "services: [{repo: eredar, branch: x}]\nroutes: {eredar: sandbox}\n";
    let (_, made) = agent.during(put(&api, "/api/sandboxes/pay", document), done).await;
    let id = begun(&made, 0);
    comes_up(&mut agent, id).await;
    let mut set = Value::Null;
    let answer = |body: &RequestBody| match body {
        RequestBody::ApplyRoutes { .. } => {
            set = changes(body);
            table(route("pay"))
        }
        RequestBody::Routes { .. } => table(route("pay")),
        body => done(body),
    };
    let is_set = until(|| api.get("/api/audit?action=route-set"), |(_, audit)| audit["items"][0].is_object());
    agent.during(is_set, answer).await;
    assert_eq!(set["services"]["eredar"]["url"], "http://vm.example:7001", "once it runs");

    let mut asked = Vec::new();
    let cannot = |body: &RequestBody| {
        asked.push(body.clone());
        match body {
            RequestBody::Routes { .. } => table(route("pay")),
            RequestBody::ApplyRoutes { .. } => table(json!([])),
            _ => refused(ErrorCode::EngineUnavailable, "the engine does not answer"),
        }
    };
    let (status, changed) = agent.during(put(&api, "/api/sandboxes/pay", "{}"), cannot).await;
    assert_eq!((status, told(&changed)), (202, vec!["eredar removed".into(), "eredar to the stable cluster".into()]));
    assert_eq!(changed["sandbox"]["services"], json!([]));
    assert!(changed["sandbox"]["problem"].as_str().unwrap().contains("engine does not answer"), "{changed}");
    let first = asked.iter().position(|body| matches!(body, RequestBody::ApplyRoutes { .. })).unwrap();
    assert_eq!(changes(&asked[first])["services"], json!({ "eredar": null }));
    let removal = asked.iter().position(|body| matches!(body, RequestBody::Remove { .. })).unwrap();
    assert!(first < removal, "nobody is sent to what goes: {asked:?}");

    // What is left to do outlives the server.
    drop(agent);
    let plane = plane.restarted().await;
    let mut agent = Agent::greet(
        plane.address(),
        sdp_core::protocol::Hello { inventory: with_gateway(), ..hello("micro", &token) },
    )
    .await;
    let api = Api::sign_in(plane.address(), &mut agent, "ada").await;
    let answer = |body: &RequestBody| match body {
        RequestBody::Routes { .. } | RequestBody::ApplyRoutes { .. } => table(json!([])),
        body => done(body),
    };
    let stopped = until(|| api.state(id), |state| state == "stopped");
    agent.during(stopped, answer).await;
    let quiet = until(|| api.get("/api/sandboxes/pay"), |(_, pay)| pay["problem"].is_null());
    agent.during(quiet, answer).await;
    let (status, again) = agent.during(put(&api, "/api/sandboxes/pay", "{}"), answer).await;
    assert_eq!((status, &again["changes"]), (200, &json!([])), "{again}");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_did_not_come_up_is_begun_again() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let document = "services: [{repo: eredar, branch: x}, {repo: thrall, branch: x}]";
    let full = |_: &RequestBody| refused(ErrorCode::DiskFull, "the disk is nearly full");
    let (status, made) = agent.during(put(&api, "/api/sandboxes/pay", document), full).await;
    assert_eq!((status, &made["deployments"]), (201, &json!([])), "{made}");
    let codes: Vec<_> = made["refused"].as_array().unwrap().iter().map(|one| one["problem"]["code"].clone()).collect();
    assert_eq!(codes, ["disk-full", "unknown-repo"]);

    let document = "services: [{repo: eredar, branch: x}]";
    let (status, again) = agent.during(put(&api, "/api/sandboxes/pay", document), done).await;
    assert_eq!((status, told(&again)), (202, vec!["eredar deployed again on x".into()]));
    let id = begun(&again, 0);
    agent.events(id, 1, &states(&["source"])).await;
    let (_, meanwhile) = put(&api, "/api/sandboxes/pay", document).await;
    assert_eq!(meanwhile["changes"], json!([]), "it is under way");
    let failure = json!({ "stage": "source", "code": "git-failed", "reason": "no" });
    agent.events(id, 2, &[json!({ "type": "state", "state": "failed", "failure": failure })]).await;
    let (_, again) = agent.during(put(&api, "/api/sandboxes/pay", document), done).await;
    assert_eq!(told(&again), ["eredar deployed again on x"]);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn documents_that_cannot_be_applied_change_nothing_and_say_why() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    assert_eq!(put(&api, "/api/sandboxes/there", "{}").await.0, 201);
    for (name, document, status, field, word) in [
        ("pay", "services:\n- repo: eredar\n  brunch: x\n", 422, None, "line 3, column 3: unknown field `brunch`"),
        ("pay", "services: [{repo: '--upload-pack=x', branch: x}]", 422, None, "is not a valid repo name"),
        ("pay", "", 422, None, "the document is empty"),
        ("pay", "name: other", 422, Some("name"), "other"),
        ("pay", "template: none", 404, Some("template"), "none"),
        ("pay", "environment: none", 404, Some("environment"), "none"),
        ("pay", "branches: {eredar: x}", 422, Some("branches"), "template"),
        ("pay", "expires_at: 2020-01-01T00:00:00Z", 422, Some("expires_at"), "time to come"),
        ("pay", "expires_in: 9999999999d", 422, Some("expires_in"), "too far"),
        ("Pay", "{}", 422, Some("name"), "lower-case"),
        ("there", "environment: none", 404, Some("environment"), "none"),
    ] {
        for path in [format!("/api/sandboxes/{name}"), format!("/api/sandboxes/{name}/diff")] {
            let method = if path.ends_with("diff") { Method::POST } else { Method::PUT };
            let (told, problem) = send(&api, method, &path, document).await;
            assert_eq!((told, problem["field"].as_str()), (status, field), "{document}: {problem}");
            assert!(problem["detail"].as_str().unwrap().contains(word), "{word}: {problem}");
        }
        assert_eq!(api.get("/api/sandboxes/pay").await.0, 404);
    }
    let (status, problem) = api.put("/api/sandboxes/pay", json!({ "servces": [] })).await;
    assert_eq!((status, problem["field"].as_str()), (422, Some("servces")), "{problem}");
    let bearer = format!("Bearer {}", api.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
    assert_eq!(api.raw(Method::PUT, "/api/sandboxes/pay", &headers, "{}".into()).await.status(), 415);

    assert_eq!(api.post("/api/environments", json!({ "name": "qa" })).await.0, 201);
    let (status, problem) = put(&api, "/api/sandboxes/there", "environment: qa").await;
    assert_eq!((status, problem["field"].as_str()), (409, Some("environment")), "{problem}");
    let (status, problem) = put(&bob, "/api/sandboxes/there", "{}").await;
    assert_eq!(status, 403, "{problem}");
    assert_eq!(bob.get("/api/sandboxes/none/export").await.0, 404);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_document_may_build_on_a_template() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar", "illidan"])).await;
    let services = json!([{ "repo": "eredar", "branch": "main" }, { "repo": "illidan", "branch": "main" }]);
    let template = json!({ "name": "checkout", "services": services, "expires_in": "2h" });
    assert_eq!(api.post("/api/templates", template).await.0, 201);
    let document = "{template: checkout, branches: {illidan: feature/x}}";
    let accepts = |_: &RequestBody| Outcome::Ok(ReplyBody::Done);
    let (status, made) = agent.during(put(&api, "/api/sandboxes/pay", document), accepts).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(told(&made)[1..], ["eredar added on main", "illidan added on feature/x"]);
    let sandbox: sdp_core::Sandbox = serde_json::from_value(made["sandbox"].clone()).unwrap();
    let lifetime = sandbox.expires_at.duration_since(sandbox.created_at).as_secs();
    assert!((7199..=7200).contains(&lifetime), "as the template says: {lifetime}");
    let (_, again) = put(&api, "/api/sandboxes/pay", document).await;
    assert_eq!(again["changes"], json!([]));
    plane.server.shutdown().await;
}
