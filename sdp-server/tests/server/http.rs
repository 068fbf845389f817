//! What every call of the HTTP API has in common: problems, sign-in, sessions, cookies, limits.

use std::time::Duration;

use reqwest::Method;
use sdp_core::protocol::{Outcome, ReplyBody, RequestBody};
use sdp_core::{ErrorCode, Problem};
use serde_json::json;

use crate::support::{Agent, Api, PASSWORD, Plane, done, hello, inventory, refused};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn errors_are_problems_that_name_the_field() {
    let plane = Plane::new().await;
    assert_eq!(Api::new(plane.address()).get("/api/me").await.0, 401);
    let (agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    for (path, body, status, field) in [
        ("/api/deployments", json!({ "repo": "../x", "branch": "main" }), 422, "repo"),
        ("/api/deployments", json!({ "repo": "eredar", "branch": "--x" }), 422, "branch"),
        ("/api/deployments", json!({ "repo": "eredar", "branch": "a:b" }), 422, "branch"),
        ("/api/deployments", json!({ "repo": "eredar", "branch": "x".repeat(300) }), 422, "branch"),
        ("/api/deployments", json!({ "repo": "eredar", "branch": "a\u{0}b" }), 422, "branch"),
        ("/api/deployments", json!({ "repo": "eredar", "branch": "main", "host_port": 0 }), 422, "host_port"),
        ("/api/deployments", json!({ "repo": "nobody", "branch": "main" }), 404, "repo"),
        ("/api/sandboxes", json!({ "name": "A b" }), 422, "name"),
        ("/api/sandboxes", json!({ "name": "a", "expires_in": "0s" }), 422, "expires_in"),
        ("/api/sandboxes", json!({ "name": "a", "environment": "moon" }), 404, "environment"),
        ("/api/sandboxes/A/deployments", json!({ "repo": "eredar", "branch": "main" }), 422, "name"),
        ("/api/sandboxes/none/deployments", json!({ "repo": "eredar", "branch": "main" }), 404, "name"),
    ] {
        let (got, problem) = api.post(path, body).await;
        assert_eq!((got, problem["field"].as_str()), (status, Some(field)), "{problem}");
        serde_json::from_value::<Problem>(problem).unwrap();
    }
    assert_eq!(api.get("/api/nothing").await.1["code"], "not-found");
    assert_eq!(api.delete("/api/me").await.1["status"], 405);
    assert_eq!(api.get("/api/deployments/x").await.1["field"], "id");
    assert_eq!(api.get("/api/agents/nobody").await.0, 404);
    drop(agent);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_body_that_is_not_what_it_should_be_is_refused_before_it_is_used() {
    let plane = Plane::new().await;
    let api = Api::new(plane.address());
    let login = |headers: &'static [(&str, &str)], body: String| api.raw(Method::POST, "/api/login", headers, body);
    for (headers, body, status) in [
        (&[][..], "{}".to_string(), 415),
        (&[("content-type", "text/plain")], "{}".into(), 415),
        (&[JSON], "{".into(), 400),
        (&[JSON], format!(r#"{{"username":"ada","password":{}}}"#, "9".repeat(10)), 422),
        (&[JSON], format!(r#"{{"username":"ada","password":"{PASSWORD}","x":1}}"#), 422),
        (&[JSON], format!(r#"{{"username":"{PASSWORD}"#), 400),
        (&[JSON], "x".repeat(300 * 1024), 413),
    ] {
        let answer = login(headers, body).await;
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let text = answer.text().await.unwrap();
        assert!(!text.contains(PASSWORD) && !text.contains("9999"), "{text}");
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn every_answer_tells_browsers_what_not_to_do() {
    let plane = Plane::new().await;
    let api = Api::new(plane.address());
    for path in ["/healthz", "/readyz", "/api/me", "/nowhere"] {
        let answer = api.raw(Method::GET, path, &[], String::new()).await;
        let headers = answer.headers();
        assert_eq!(
            (&headers["x-content-type-options"], &headers["x-frame-options"]),
            (&"nosniff".parse().unwrap(), &"DENY".parse().unwrap())
        );
        assert_eq!(headers["cache-control"], "no-store");
        assert!(headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    }
    assert_eq!(api.get("/readyz").await.1["agents_connected"], 0);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn sign_in_needs_the_git_host_and_says_what_it_says() {
    let plane = Plane::new().await;
    let anonymous = Api::new(plane.address());
    let body = json!({ "username": "ada", "password": PASSWORD });
    let (status, problem) = anonymous.post("/api/login", body.clone()).await;
    assert_eq!(status, 503);
    assert!(problem["detail"].as_str().unwrap().contains("agent add"), "{problem}");

    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    let wrong = |_: &RequestBody| refused(ErrorCode::InvalidCredentials, "the git host refused ada's password");
    let (status, problem) = agent.during(anonymous.post("/api/login", body), wrong).await;
    assert_eq!((status, problem["code"].as_str()), (401, Some("invalid-credentials")));
    plane.server.shutdown().await;
}

#[tokio::test]
async fn passwords_cannot_be_guessed_many_at_a_time() {
    let plane = Plane::with(|config| config.login.attempts = 3).await;
    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    let api = Api::new(plane.address());
    let body = json!({ "username": "eve", "password": "guess" });
    let wrong = |_: &RequestBody| refused(ErrorCode::InvalidCredentials, "no");
    for _ in 0..3 {
        assert_eq!(agent.during(api.post("/api/login", body.clone()), wrong).await.0, 401);
    }
    let answer = api.raw(Method::POST, "/api/login", &[JSON], body.to_string()).await;
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
    Api::sign_in(plane.address(), &mut agent, "ada").await;
    plane.server.shutdown().await;
}

#[tokio::test]
async fn attempts_that_nobody_could_check_are_not_held_against_the_user() {
    let plane = Plane::with(|config| config.login.attempts = 1).await;
    let token = plane.enrol("micro").await;
    let api = Api::new(plane.address());
    let body = json!({ "username": "ada", "password": PASSWORD });
    for _ in 0..3 {
        assert_eq!(api.post("/api/login", body.clone()).await.0, 503, "the agent is away");
    }
    let mut agent = Agent::greet(plane.address(), hello("micro", &token)).await;
    let unreachable = |_: &RequestBody| refused(ErrorCode::HostUnreachable, "no route");
    for _ in 0..3 {
        assert_eq!(agent.during(api.post("/api/login", body.clone()), unreachable).await.0, 502);
    }
    Api::sign_in(plane.address(), &mut agent, "ada").await;
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_session_ends_at_sign_out_and_when_nobody_uses_it() {
    let plane = Plane::with(|config| config.session.idle = Duration::from_millis(300)).await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    assert_eq!(api.get("/api/me").await.1["user"], "ada");
    assert_eq!(api.post("/api/logout", json!({})).await.0, 204);
    assert_eq!(api.get("/api/me").await.0, 401);

    let api = Api::sign_in(plane.address(), &mut agent, "ada").await;
    assert_eq!(api.get("/api/me").await.0, 200);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let (status, problem) = api.get("/api/me").await;
    assert_eq!((status, problem["code"].as_str()), (401, Some("not-signed-in")));
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_browsers_cookie_works_for_this_sites_pages_only() {
    let plane = Plane::with(|config| config.allowed_origins = vec!["https://tools.example".into()]).await;
    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    let browser = Api::new(plane.address());
    let body = json!({ "username": "ada", "password": PASSWORD }).to_string();
    let answer = agent.during(browser.raw(Method::POST, "/api/login", &[JSON], body), done).await;
    let set = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict") && !set.contains("Secure"), "{set}");
    let cookie = set.split(';').next().unwrap();
    let here = format!("http://{}", plane.address());

    assert_eq!(browser.raw(Method::GET, "/api/me", &[("cookie", cookie)], String::new()).await.status(), 200);
    for (origin, status) in [(here.as_str(), 201), ("https://evil.example", 403), ("null", 403)] {
        let headers = [JSON, ("cookie", cookie), ("origin", origin)];
        let body = json!({ "name": format!("s{status}") }).to_string();
        assert_eq!(browser.raw(Method::POST, "/api/sandboxes", &headers, body).await.status(), status, "{origin}");
    }

    let api = Api::sign_in(plane.address(), &mut agent, "ada").await;
    let id = agent.runs(&api, "/api/deployments").await.id;
    let path = format!("/ws/deployments/{id}");
    assert!(browser.socket(&path, &[("cookie", cookie), ("origin", &here)]).await.is_ok());
    assert!(browser.socket(&path, &[("cookie", cookie), ("origin", "https://tools.example")]).await.is_ok());
    assert_eq!(browser.socket(&path, &[("cookie", cookie), ("origin", "https://evil.example")]).await.err(), Some(403));
    assert_eq!(browser.socket(&path, &[]).await.err(), Some(401));
    plane.server.shutdown().await;
}

#[tokio::test]
async fn branches_are_asked_for_as_the_client_asks() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let branch = json!({ "name": "feature/x", "commit": "a".repeat(40) });
    let answer = |body: &RequestBody| {
        let RequestBody::Branches { repo, credentials: Some(_), query, limit } = body else { panic!("{body:?}") };
        assert_eq!((repo.as_str(), query.as_deref(), *limit), ("eredar", Some("FEAT x"), 7));
        Outcome::Ok(ReplyBody::Branches { branches: vec![serde_json::from_value(branch.clone()).unwrap()] })
    };
    let (status, branches) = agent.during(api.get("/api/repos/eredar/branches?q=FEAT%20x&limit=7"), answer).await;
    assert_eq!((status, &branches[0]["name"]), (200, &json!("feature/x")));
    assert_eq!(api.get("/api/repos/eredar/branches?limit=0").await.1["field"], "limit");
    assert_eq!(api.get("/api/repos/none/branches").await.1["code"], "unknown-repo");
    plane.server.shutdown().await;
}
