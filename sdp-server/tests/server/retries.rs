//! Requests that are sent again, changes that cross, and long lists.

use reqwest::Method;
use sdp_core::protocol::RequestBody;
use serde_json::{Value, json};

use crate::support::{Agent, Api, PASSWORD, Plane, done, hello, inventory, on_disk, until};

/// Posts with an `Idempotency-Key`; gives status, body, and whether it is an earlier answer.
async fn post(api: &Api, path: &str, key: &str, body: &Value) -> (u16, Value, bool) {
    let bearer = format!("Bearer {}", api.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), ("idempotency-key", key)];
    let answer = api.raw(Method::POST, path, &headers, body.to_string()).await;
    let replayed = answer.headers().contains_key("idempotency-replayed");
    (answer.status().as_u16(), answer.json().await.unwrap_or_default(), replayed)
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_answered_again_and_not_carried_out_again() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let body = json!({ "repo": "eredar", "branch": "main", "credentials": { "username": "a", "password": PASSWORD } });
    let mut asked = 0;
    let count = |_: &RequestBody| {
        asked += 1;
        done(&RequestBody::Instances)
    };
    let first = agent.during(post(&api, "/api/deployments", "k1", &body), count).await;
    assert_eq!((first.0, first.2), (202, false), "{}", first.1);
    let again = post(&api, "/api/deployments", "k1", &body).await;
    assert_eq!((again.0, &again.1, again.2), (202, &first.1, true));
    assert_eq!(asked, 1);
    assert!(!on_disk(plane.dir.path(), PASSWORD));

    for (credentials, status) in
        [(json!({}), 422), (json!({ "username": "b", "password": "x" }), 422), (json!("x"), 422)]
    {
        let mut changed = body.clone();
        changed["credentials"] = credentials;
        assert_eq!(post(&api, "/api/deployments", "k1", &changed).await.0, status, "{changed}");
    }
    let other = json!({ "repo": "eredar", "branch": "other" });
    let (status, problem, _) = post(&api, "/api/deployments", "k1", &other).await;
    assert_eq!((status, problem["field"].as_str()), (422, Some("Idempotency-Key")));
    // Somebody else's key is another one, and so is that of another address.
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    assert_eq!(agent.during(post(&bob, "/api/deployments", "k1", &other), done).await.0, 202);
    assert_eq!(post(&api, "/api/sandboxes", "k1", &json!({ "name": "pay" })).await.0, 201);
    assert_eq!(post(&api, "/api/sandboxes", "k1", &json!({ "name": "pay" })).await.0, 201);
    assert_eq!(
        api.post("/api/sandboxes", json!({ "name": "pay" })).await.0,
        409,
        "without a key it is another request"
    );

    // A refusal is an answer as well; one that may pass is not kept.
    assert_eq!(post(&api, "/api/sandboxes", "k2", &json!({ "name": "pay" })).await.0, 409);
    assert_eq!(agent.during(api.delete("/api/sandboxes/pay"), done).await.0, 204);
    assert_eq!(post(&api, "/api/sandboxes", "k2", &json!({ "name": "pay" })).await.0, 409);
    drop(agent);
    until(|| api.get("/api/agents/micro"), |(_, agent)| agent["connected"] == false).await;
    for _ in 0..2 {
        let (status, _, replayed) = post(&api, "/api/deployments", "k3", &other).await;
        assert_eq!((status, replayed), (503, false));
    }
    for key in ["", "a b", "x".repeat(256).as_str()] {
        assert_eq!(post(&api, "/api/sandboxes", key, &json!({ "name": "x" })).await.0, 400);
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_request_that_comes_while_the_first_is_under_way_is_told_so() {
    let plane = Plane::new().await;
    let (mut agent, api, token) = plane.ready(inventory(&["eredar"])).await;
    let body = json!({ "repo": "eredar", "branch": "main" });
    let mut first = Box::pin(post(&api, "/api/deployments", "k", &body));
    let request = tokio::select! {
        _ = &mut first => panic!("answered by nobody"),
        request = agent.request() => request,
    };
    // The first is under way until its agent answers.
    let second = tokio::select! {
        _ = &mut first => panic!("answered by nobody"),
        second = post(&api, "/api/deployments", "k", &body) => second,
    };
    agent.reply(request.id, done(&request.body)).await;
    let first = first.await;
    assert_eq!((first.0, second.0), (202, 409), "{} {}", first.1, second.1);
    assert_eq!((&second.1["retryable"], &second.1["retry_after"]), (&json!(true), &json!(1)));

    // What a restart interrupted can be asked again.
    let id = sdp_server::store::RequestId {
        user: "ada".parse().unwrap(),
        route: "POST /api/sandboxes".into(),
        key: "lost".into(),
        request: [0; 32],
    };
    plane.server.state().store().begin_once(&id).await.unwrap();
    let plane = plane.restarted().await;
    let mut agent = Agent::greet(plane.address(), hello("micro", &token)).await;
    let api = Api::sign_in(plane.address(), &mut agent, "ada").await;
    assert_eq!(post(&api, "/api/sandboxes", "lost", &json!({ "name": "pay" })).await.0, 201);
    assert!(post(&api, "/api/deployments", "k", &body).await.2, "what was answered is known after a restart");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_secret_is_not_kept_to_be_shown_again() {
    let plane = Plane::new().await;
    let (_agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let body = json!({ "name": "ci", "scopes": ["read"] });
    let (status, made, _) = post(&api, "/api/tokens", "k", &body).await;
    assert_eq!(status, 201);
    let (status, problem, _) = post(&api, "/api/tokens", "k", &body).await;
    assert_eq!((status, problem["field"].as_str()), (409, Some("Idempotency-Key")), "{problem}");
    assert_eq!(api.get("/api/tokens").await.1.as_array().unwrap().len(), 1);
    assert!(!on_disk(plane.dir.path(), made["secret"].as_str().unwrap()));
    plane.server.shutdown().await;
}

async fn tagged(api: &Api, method: Method, path: &str, tag: &str, body: Value) -> (u16, String) {
    let bearer = format!("Bearer {}", api.token);
    let mut headers = vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
    headers.extend((!tag.is_empty()).then_some(("if-match", tag)));
    let answer = api.raw(method, path, &headers, body.to_string()).await;
    let tag = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned()).unwrap_or_default();
    (answer.status().as_u16(), tag)
}

#[tokio::test]
async fn a_change_of_what_has_changed_meanwhile_is_refused() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let shape = |branch: &str| json!({ "services": [{ "repo": "eredar", "branch": branch }] });
    let mut template = shape("main");
    template["name"] = "t".into();
    assert_eq!(api.post("/api/templates", template).await.0, 201);
    assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    for (method, path, one, two) in [
        (Method::PUT, "/api/environments/default", json!({ "idle_after": "1h" }), json!({ "idle_after": "2h" })),
        (Method::PUT, "/api/templates/t", shape("one"), shape("two")),
        (Method::PATCH, "/api/sandboxes/pay", json!({ "shared_with": ["bob"] }), json!({ "shared_with": ["eve"] })),
    ] {
        let (_, seen) = tagged(&api, Method::GET, path, "", json!(null)).await;
        let (status, now) = tagged(&api, method.clone(), path, &seen, one).await;
        assert_eq!(status, 200, "{path}");
        assert_ne!(seen, now);
        assert_eq!(tagged(&api, Method::GET, path, "", json!(null)).await.1, now);
        assert_eq!(tagged(&api, method.clone(), path, &seen, two.clone()).await.0, 412, "{path}");
        assert_eq!(tagged(&api, Method::DELETE, path, &seen, json!(null)).await.0, 412, "{path}");
        assert_eq!(tagged(&api, method.clone(), path, "x", two.clone()).await.0, 412);
        assert_eq!(tagged(&api, method.clone(), path, " ", two.clone()).await.0, 400);
        let several = format!("\"other\", {now}");
        let (status, last) = tagged(&api, method, path, &several, two).await;
        assert_eq!(status, 200, "{path}");
        if !path.contains("sandboxes") && !path.contains("default") {
            assert_eq!(tagged(&api, Method::DELETE, path, &last, json!(null)).await.0, 204, "{path}");
        }
    }
    assert_eq!(agent.during(api.delete("/api/sandboxes/pay"), done).await.0, 204, "without a version, whatever it is");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn sandboxes_are_listed_by_page_and_filter() {
    let plane = Plane::new().await;
    let (mut agent, ada, _) = plane.ready(inventory(&["eredar"])).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    assert_eq!(ada.post("/api/environments", json!({ "name": "qa" })).await.0, 201);
    for n in 0..7 {
        let (api, environment) = (if n < 3 { &bob } else { &ada }, if n % 2 == 0 { "qa" } else { "default" });
        let body = json!({ "name": format!("s{n}"), "environment": environment });
        assert_eq!(api.post("/api/sandboxes", body).await.0, 201);
    }
    ada.post("/api/sandboxes/s6/sleep", json!({})).await;
    let names = async |query: &str| {
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let (status, page) = ada.get(&format!("/api/sandboxes?{query}{after}")).await;
            assert_eq!(status, 200, "{page}");
            let items = page["items"].as_array().unwrap();
            names.extend(items.iter().map(|item| item["name"].as_str().unwrap()[1..].to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        names.concat()
    };
    assert_eq!(names("").await, "0123456");
    assert_eq!(names("limit=2").await, "0123456");
    assert_eq!(names("limit=7").await, "0123456");
    assert_eq!(names("owner=bob&limit=1").await, "012");
    assert_eq!(names("environment=qa&owner=bob").await, "02");
    assert_eq!(names("state=asleep").await, "6");
    assert_eq!(names("after=s4").await, "56");
    for (query, field) in [("limit=0", "limit"), ("limit=501", "limit"), ("state=x", "state"), ("owner=a:b", "owner")] {
        let (status, problem) = ada.get(&format!("/api/sandboxes?{query}")).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{problem}");
    }
    plane.server.shutdown().await;
}
