//! Roles, ownership and sharing, tokens, users, the enrolment of agents.

use std::time::Duration;

use reqwest::Method;
use sdp_core::protocol::{Outcome, ReplyBody, RequestBody};
use sdp_core::{DeploymentId, DeploymentState, ErrorCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Agent, Api, Plane, done, exposed, hello, inventory, left, on_disk, patiently, refused, until};

/// Who uses a token in place of a session.
fn with_token(plane: &Plane, secret: &Value) -> Api {
    let mut api = Api::new(plane.address());
    api.token = secret.as_str().unwrap().into();
    api
}

#[tokio::test]
async fn a_sandbox_is_its_owners_and_of_those_it_is_shared_with() {
    let plane = Plane::new().await;
    let (mut agent, admin, _) = plane.ready(inventory(&["eredar"])).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    let eve = Api::sign_in(plane.address(), &mut agent, "eve").await;
    assert_eq!(bob.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    let deployment = agent.runs(&bob, "/api/sandboxes/pay/deployments").await.id;
    let (stop, body) = (format!("/api/deployments/{deployment}/stop"), json!({ "repo": "eredar", "branch": "main" }));

    let (status, problem) = eve.post("/api/sandboxes/pay/deployments", body.clone()).await;
    assert_eq!((status, problem["holder"].as_str()), (403, Some("bob")));
    assert!(problem["detail"].as_str().unwrap().contains("shared_with"), "{problem}");
    assert_eq!(eve.post(&stop, json!({})).await.0, 403);
    assert_eq!(eve.get("/api/sandboxes/pay").await.0, 200, "everybody looks");

    let (_, shared) = bob.patch("/api/sandboxes/pay", json!({ "shared_with": ["eve"] })).await;
    assert_eq!(shared["shared_with"], json!(["eve"]));
    assert_eq!(agent.during(eve.post(&stop, json!({})), done).await.0, 200);
    assert_eq!(eve.patch("/api/sandboxes/pay", json!({ "expires_in": "2d" })).await.0, 200);
    let (status, problem) = eve.patch("/api/sandboxes/pay", json!({ "shared_with": ["eve", "mallory"] })).await;
    assert_eq!((status, problem["field"].as_str()), (403, Some("shared_with")));
    assert_eq!(admin.patch("/api/sandboxes/pay", json!({ "shared_with": [] })).await.0, 200);
    assert_eq!(eve.delete("/api/sandboxes/pay").await.0, 403);
    assert_eq!(agent.during(admin.delete("/api/sandboxes/pay"), done).await.0, 204);

    // A new sandbox of that name is not touched by way of what was in the old one.
    assert_eq!(eve.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    assert_eq!(eve.post(&stop, json!({})).await.0, 409);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn an_admin_gives_roles_and_locks_people_out() {
    let plane = Plane::new().await;
    let (mut agent, admin, _) = plane.ready(inventory(&["eredar"])).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    assert_eq!(bob.get("/api/me").await.1["role"], "developer");
    assert_eq!(bob.get("/api/users").await.0, 403);
    let (_, made) = bob.post("/api/tokens", json!({ "name": "ci", "scopes": ["deploy"] })).await;
    let script = with_token(&plane, &made["secret"]);
    assert_eq!(script.post("/api/sandboxes", json!({ "name": "one" })).await.0, 201);

    let (status, user) = admin.put("/api/users/bob", json!({ "role": "viewer" })).await;
    assert_eq!((status, &user["role"], &user["disabled"]), (200, &json!("viewer"), &json!(false)));
    assert_eq!(bob.post("/api/sandboxes", json!({ "name": "two" })).await.0, 403, "at once");
    assert_eq!(
        script.post("/api/sandboxes", json!({ "name": "two" })).await.0,
        403,
        "a token may not more than its user"
    );
    assert_eq!(script.delete("/api/sandboxes/one").await.0, 403);
    assert_eq!(bob.get("/api/sandboxes").await.0, 200);

    let mut events = bob.socket("/ws/deployments/x", &[]).await;
    assert_eq!(events.as_mut().err(), Some(&mut 401));
    assert_eq!(admin.put("/api/users/bob", json!({ "disabled": true })).await.0, 200);
    assert_eq!(bob.get("/api/me").await.0, 401, "the sessions have ended");
    assert_eq!(script.get("/api/me").await.0, 403);
    for user in ["bob", "BOB"] {
        let login = json!({ "username": user, "password": "right" });
        let (status, problem) = agent.during(bob.post("/api/login", login), done).await;
        assert_eq!((status, problem["code"].as_str()), (403, Some("not-allowed")), "{user}: {problem}");
    }

    let plane = plane.restarted().await;
    let token = plane.enrol("other").await;
    let mut agent = Agent::greet(plane.address(), hello("other", &token)).await;
    assert_eq!(with_token(&plane, &made["secret"]).get("/api/me").await.0, 403, "also after a restart");
    let admin = Api::sign_in(plane.address(), &mut agent, "ada").await;
    assert_eq!(admin.put("/api/users/bob", json!({ "disabled": false, "role": "admin" })).await.0, 200);
    assert_eq!(with_token(&plane, &made["secret"]).get("/api/me").await.1["role"], "developer");
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    assert_eq!(bob.get("/api/users").await.1.as_array().unwrap().len(), 2);

    for (path, body, status, field) in [
        ("/api/users/ada", json!({ "role": "viewer" }), 409, Value::Null),
        ("/api/users/bob", json!({ "role": "viewer" }), 409, "name".into()),
        ("/api/users/nobody", json!({ "role": "viewer" }), 404, "name".into()),
        ("/api/users/ada", json!({ "role": "root" }), 422, "role".into()),
        ("/api/users/ada", json!({}), 422, "role".into()),
    ] {
        let (got, problem) = bob.put(path, body).await;
        assert_eq!((got, &problem["field"]), (status, &field), "{problem}");
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn somebody_who_spells_their_name_otherwise_is_the_same_person() {
    let plane = Plane::new().await;
    let (mut agent, admin, _) = plane.ready(inventory(&["eredar"])).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    assert_eq!(bob.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    assert_eq!(admin.put("/api/users/BOB", json!({ "role": "viewer" })).await.0, 200);
    let again = Api::sign_in(plane.address(), &mut agent, "Bob").await;
    let (_, me) = again.get("/api/me").await;
    assert_eq!((&me["user"], &me["role"]), (&json!("bob"), &json!("viewer")));
    assert_eq!(admin.put("/api/users/bob", json!({ "role": "developer" })).await.0, 200);
    assert_eq!(again.patch("/api/sandboxes/pay", json!({ "shared_with": ["EVE"] })).await.0, 200);
    let eve = Api::sign_in(plane.address(), &mut agent, "eve").await;
    assert_eq!(eve.patch("/api/sandboxes/pay", json!({ "expires_in": "2d" })).await.0, 200);
    assert_eq!(Api::sign_in(plane.address(), &mut agent, "ADA").await.get("/api/me").await.1["role"], "admin");
    assert_eq!(admin.get("/api/users").await.1.as_array().unwrap().len(), 3);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_token_is_shown_once_kept_as_a_hash_and_ends() {
    let plane = Plane::new().await;
    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    let (status, made) =
        bob.post("/api/tokens", json!({ "name": "ci", "scopes": ["read"], "expires_in": "30d" })).await;
    assert_eq!(status, 201, "{made}");
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("sdp_") && secret.len() == 68);
    let (_, list) = bob.get("/api/tokens").await;
    assert_eq!((&list[0]["name"], &list[0]["secret"]), (&json!("ci"), &Value::Null));
    let script = with_token(&plane, &made["secret"]);
    let (_, me) = script.get("/api/me").await;
    assert_eq!((&me["user"], &me["role"], &me["token"]["id"]), (&json!("bob"), &json!("viewer"), &made["id"]));
    assert!(bob.get("/api/tokens").await.1[0]["last_used"].is_string());
    assert_eq!(script.post("/api/sandboxes", json!({ "name": "one" })).await.0, 403);
    assert_eq!(script.get("/api/tokens").await.0, 403, "a token makes no tokens");
    assert!(!on_disk(plane.dir.path(), secret));

    for (body, status, field) in [
        (json!({ "name": "x", "scopes": [] }), 422, "scopes"),
        (json!({ "name": "x", "scopes": ["admin"] }), 403, "scopes"),
        (json!({ "name": "x", "scopes": ["write"] }), 422, "scopes[0]"),
        (json!({ "name": "", "scopes": ["read"] }), 422, "name"),
        (json!({ "name": "x", "scopes": ["read"], "expires_in": "367d" }), 422, "expires_in"),
        (json!({ "name": "x", "scopes": ["read"], "expires_in": "0s" }), 422, "expires_in"),
    ] {
        let (got, problem) = bob.post("/api/tokens", body).await;
        assert_eq!((got, problem["field"].as_str()), (status, Some(field)), "{problem}");
    }

    let (_, short) =
        bob.post("/api/tokens", json!({ "name": "short", "scopes": ["read"], "expires_in": "50ms" })).await;
    until(|| async { with_token(&plane, &short["secret"]).get("/api/me").await.0 }, |status| *status == 401).await;

    let id = made["id"].as_str().unwrap().to_owned();
    let eve = Api::sign_in(plane.address(), &mut agent, "eve").await;
    assert_eq!(eve.delete(&format!("/api/tokens/{id}")).await.0, 404, "somebody else's");
    assert_eq!(bob.delete(&format!("/api/tokens/{id}")).await.0, 204);
    assert_eq!(script.get("/api/me").await.0, 401);
    assert_eq!(bob.delete(&format!("/api/tokens/{id}")).await.0, 404);
    assert_eq!(bob.delete("/api/tokens/x").await.1["field"], "id");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_script_deploys_with_the_operators_credentials_or_with_those_it_brings() {
    let plane = Plane::new().await;
    let (mut agent, ada, _) = plane.ready(inventory(&["eredar"])).await;
    let (_, made) = ada.post("/api/tokens", json!({ "name": "ci", "scopes": ["deploy"] })).await;
    let script = with_token(&plane, &made["secret"]);
    let given = |body: &RequestBody| {
        let RequestBody::Deploy { credentials, .. } = body else { panic!("{body:?}") };
        credentials.as_ref().map(|frame| format!("{} {}", frame.0.username(), frame.0.expose_password()))
    };
    let mut seen = Vec::new();
    let mut body = json!({ "repo": "eredar", "branch": "main" });
    for credentials in [Value::Null, json!({ "username": "robot", "password": "canary-of-the-robot" })] {
        body["credentials"] = credentials;
        let answer = |body: &RequestBody| {
            seen.push(given(body));
            Outcome::Ok(ReplyBody::Done)
        };
        let (status, deployment) = agent.during(script.post("/api/deployments", body.clone()), answer).await;
        assert_eq!((status, &deployment["user"]), (202, &json!("ada")), "{deployment}");
    }
    assert_eq!(seen, [None, Some("robot canary-of-the-robot".into())]);
    assert!(!on_disk(plane.dir.path(), "canary-of-the-robot"));

    for credentials in [json!("canary-of-the-robot"), json!({ "username": "robot", "password": 7_777_777 })] {
        body["credentials"] = credentials;
        let (status, problem) = script.post("/api/deployments", body.clone()).await;
        let text = problem.to_string();
        assert_eq!(status, 422);
        assert!(!text.contains("canary") && !text.contains("7777777"), "{text}");
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn an_admin_enrols_rotates_and_revokes_agents() {
    // No ping finds out about it.
    let hours = Duration::from_secs(3600);
    let plane = Plane::with(|config| (config.agents.ping, config.agents.silence) = (hours, 2 * hours)).await;
    let (mut first, admin, _) = plane.ready(inventory(&["eredar"])).await;
    let bob = Api::sign_in(plane.address(), &mut first, "bob").await;
    assert_eq!(bob.post("/api/agents", json!({ "name": "vm" })).await.0, 403);

    let (status, enrolled) = admin.post("/api/agents", json!({ "name": "vm" })).await;
    assert_eq!(status, 201, "{enrolled}");
    let token = |answer: &Value| answer["token"].as_str().unwrap().to_owned().into();
    let (old, taken) = (token(&enrolled), admin.post("/api/agents", json!({ "name": "vm" })).await);
    assert_eq!((taken.0, taken.1["field"].as_str()), (409, Some("name")));
    let mut agent = Agent::greet(plane.address(), hello("vm", &old)).await;

    let (status, rotated) = admin.post("/api/agents/vm/rotate", json!({})).await;
    assert_eq!(status, 200, "{rotated}");
    patiently(agent.gone()).await;
    let mut late = Agent::dial(plane.address()).await;
    late.send(sdp_core::protocol::AgentFrame::Hello(Box::new(hello("vm", &old)))).await;
    assert_eq!(late.refusal().await.code, ErrorCode::NotAllowed);
    let new = token(&rotated);
    let mut agent = Agent::greet(plane.address(), hello("vm", &new)).await;

    assert_eq!(admin.delete("/api/agents/vm").await.0, 204);
    patiently(agent.gone()).await;
    assert_eq!(admin.get("/api/agents/vm").await.0, 404);
    assert_eq!(admin.delete("/api/agents/vm").await.0, 404);
    assert_eq!(admin.post("/api/agents/vm/rotate", json!({})).await.0, 404);
    for secret in [exposed(&old), exposed(&new)] {
        assert!(!on_disk(plane.dir.path(), secret));
    }
    let (_, audit) = admin.get("/api/audit?subject=agents/vm").await;
    let actions: Vec<_> = audit["items"].as_array().unwrap().iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(actions, ["agent-revoke", "agent-rotate", "agent-enrol"]);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_admins_and_sandboxes_go_through_is_written_down() {
    let plane = Plane::with(|config| config.sandboxes.upkeep = Duration::from_millis(20)).await;
    let (mut agent, ada, _) = plane.ready(inventory(&["eredar"])).await;
    ada.post("/api/environments", json!({ "name": "qa" })).await;
    ada.put("/api/environments/qa", json!({})).await;
    ada.delete("/api/environments/qa").await;
    let services = json!({ "name": "shape", "services": [{ "repo": "eredar", "branch": "main" }] });
    ada.post("/api/templates", services).await;
    ada.delete("/api/templates/shape").await;
    ada.post("/api/sandboxes", json!({ "name": "pay" })).await;
    ada.post("/api/sandboxes/pay/sleep", json!({})).await;
    ada.post("/api/sandboxes/pay/wake", json!({})).await;
    let (_, token) = ada.post("/api/tokens", json!({ "name": "ci", "scopes": ["read"] })).await;
    let token = format!("users/ada/tokens/{}", token["id"].as_str().unwrap());
    ada.patch("/api/sandboxes/pay", json!({ "expires_in": "1ms" })).await;
    for user in ["ada", "my-password"] {
        let login = json!({ "username": user, "password": "wrong" });
        let answer =
            agent.during(ada.post("/api/login", login), |_| refused(ErrorCode::InvalidCredentials, "no")).await;
        assert_eq!(answer.0, 401);
    }
    let find = async |action: &str| ada.get(&format!("/api/audit?action={action}")).await.1["items"].clone();
    let expired = until(|| find("sandbox-expire"), |found| found[0].is_object()).await;
    assert_eq!((&expired[0]["subject"], &expired[0]["user"]), (&json!("sandboxes/pay"), &Value::Null));
    for (action, subject) in [
        ("environment-create", "environments/qa"),
        ("environment-replace", "environments/qa"),
        ("environment-delete", "environments/qa"),
        ("template-create", "templates/shape"),
        ("template-delete", "templates/shape"),
        ("sandbox-sleep", "sandboxes/pay"),
        ("sandbox-wake", "sandboxes/pay"),
        ("sandbox-extend", "sandboxes/pay"),
        ("token-create", &token),
    ] {
        let found = find(action).await;
        assert_eq!((&found[0]["subject"], &found[0]["user"]), (&json!(subject), &json!("ada")), "{action}");
    }
    let failed = find("sign-in-failed").await;
    assert_eq!((&failed[0]["subject"], &failed[1]["subject"]), (&json!("users"), &json!("users/ada")));
    assert!(!on_disk(plane.dir.path(), "my-password"), "a password in the wrong field is not kept");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_templates_maker_and_admins_change_it() {
    let plane = Plane::new().await;
    let (mut agent, admin, _) = plane.ready(inventory(&["eredar"])).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    let eve = Api::sign_in(plane.address(), &mut agent, "eve").await;
    let shape = json!({ "services": [{ "repo": "eredar", "branch": "main" }] });
    let mut named = shape.clone();
    named["name"] = "shape".into();
    assert_eq!(bob.post("/api/templates", named).await.0, 201);
    assert_eq!(eve.put("/api/templates/shape", shape.clone()).await.0, 403);
    let (status, changed) = admin.put("/api/templates/shape", shape.clone()).await;
    assert_eq!((status, &changed["owner"]), (200, &json!("bob")), "it stays bob's");
    assert_eq!(bob.call(Method::DELETE, "/api/templates/shape", None).await.0, 204);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn who_had_a_sandbox_before_does_nothing_to_the_one_that_has_its_name_now() {
    let plane = Plane::new().await;
    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    let eve = Api::sign_in(plane.address(), &mut agent, "eve").await;
    let earlier = left(DeploymentId::new(), "pay", DeploymentState::Stopped);
    plane.server.state().store().insert_deployment(&earlier).await.unwrap();
    assert_eq!(eve.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    for act in ["retry", "restart", "stop", "cancel", "rollback"] {
        let (status, problem) = bob.post(&format!("/api/deployments/{}/{act}", earlier.id), json!({})).await;
        assert_eq!(status, 409, "{act}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("earlier sandbox pay"), "{act}: {problem}");
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_sandbox_that_was_made_while_a_document_was_on_its_way_is_its_makers() {
    let plane = Plane::new().await;
    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    let eve = Api::sign_in(plane.address(), &mut agent, "eve").await;
    let document = json!({ "services": [] }).to_string();
    let head = format!(
        "PUT /api/sandboxes/pay HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
        bob.token,
        document.len()
    );
    let mut stream = tokio::net::TcpStream::connect(plane.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The handler wants the body: the rule was looked at.
    let mut wanted = [0; 12];
    stream.read_exact(&mut wanted).await.unwrap();
    assert_eq!(&wanted, b"HTTP/1.1 100");
    assert_eq!(eve.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    stream.write_all(document.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("HTTP/1.1 403"), "{answer}");
    assert_eq!(eve.get("/api/sandboxes/pay").await.1["owner"], "eve");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_is_answered_when_something_is_made_is_what_is_read_later() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let (_, token) = api.post("/api/tokens", json!({ "name": "ci", "scopes": ["read"] })).await;
    let (_, template) =
        api.post("/api/templates", json!({ "name": "t", "services": [{ "repo": "eredar", "branch": "main" }] })).await;
    let (_, sandbox) = api.post("/api/sandboxes", json!({ "name": "pay", "expires_in": "1h" })).await;
    let plane = plane.restarted().await;
    agent.gone().await;
    let mut api = Api::new(plane.address());
    api.token = token["secret"].as_str().unwrap().into();
    for (path, fields, made) in [
        ("/api/templates/t", &["saved_at"][..], &template),
        ("/api/sandboxes/pay", &["created_at", "expires_at"], &sandbox),
    ] {
        let (_, read) = api.get(path).await;
        for field in fields {
            assert_eq!(read[field], made[field], "{path} {field}");
        }
    }
    let (_, me) = api.get("/api/me").await;
    for field in ["created_at", "expires_at"] {
        assert_eq!(me["token"][field], token[field], "{field}");
    }
    plane.server.shutdown().await;
}
