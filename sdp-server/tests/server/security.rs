//! What an attacker tries with a browser, a guess or a leaked address.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Method;
use sdp_core::ErrorCode;
use sdp_core::protocol::RequestBody;
use serde_json::json;

use crate::support::{Agent, Api, PASSWORD, Plane, done, inventory, patiently, refused};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Signs a browser in, and gives its cookie.
async fn cookie(plane: &Plane, agent: &mut Agent, user: &str, headers: &[(&str, &str)]) -> String {
    let browser = Api::new(plane.address());
    let headers = [&[JSON], headers].concat();
    let body = json!({ "username": user, "password": PASSWORD }).to_string();
    let answer = agent.during(browser.raw(Method::POST, "/api/login", &headers, body), done).await;
    assert_eq!(answer.status(), 200);
    answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn another_sites_page_changes_nothing_with_a_browsers_cookie() {
    let plane = Plane::new().await;
    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    let cookie = cookie(&plane, &mut agent, "bob", &[]).await;
    let browser = Api::new(plane.address());
    let here = format!("http://{}", plane.address());
    let writes = [
        (Method::POST, "/api/sandboxes", json!({ "name": "x" }).to_string()),
        (Method::POST, "/api/logout", String::new()),
        (Method::POST, "/api/tokens", json!({ "name": "x", "scopes": ["read"] }).to_string()),
        (Method::PUT, "/api/templates/x", json!({}).to_string()),
        (Method::PATCH, "/api/sandboxes/x", json!({}).to_string()),
        (Method::DELETE, "/api/sandboxes/x", String::new()),
    ];
    let foreign: [&[(&str, &str)]; 6] = [
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("origin", here.as_str()), ("sec-fetch-site", "cross-site")],
        // No browser leaves both out.
        &[],
    ];
    for (method, path, body) in &writes {
        for from in foreign {
            let headers = [&[JSON, ("cookie", cookie.as_str())], from].concat();
            let answer = browser.raw(method.clone(), path, &headers, body.clone()).await;
            assert_eq!(answer.status(), 403, "{method} {path} {from:?}");
        }
    }
    for from in [("origin", here.as_str()), ("sec-fetch-site", "same-origin")] {
        let headers = [JSON, ("cookie", cookie.as_str()), from];
        let answer = browser.raw(Method::POST, "/api/sandboxes", &headers, json!({ "name": from.0 }).to_string()).await;
        assert_eq!(answer.status(), 201, "{from:?}");
    }
    // Nor does it sign a browser in as somebody else.
    let login = json!({ "username": "eve", "password": PASSWORD }).to_string();
    let headers = [JSON, ("origin", "https://evil.example")];
    assert_eq!(browser.raw(Method::POST, "/api/login", &headers, login).await.status(), 403);
    // A form cannot send JSON, and nothing else is read.
    let headers = [("content-type", "text/plain"), ("cookie", cookie.as_str()), ("origin", here.as_str())];
    assert_eq!(browser.raw(Method::POST, "/api/sandboxes", &headers, "{\"name\":\"y\"}".into()).await.status(), 415);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_browser_is_told_which_other_sites_pages_may_read_what() {
    let plane = Plane::with(|config| config.allowed_origins = vec!["https://tools.example".into()]).await;
    let api = Api::new(plane.address());
    let asked = [("access-control-request-method", "PUT"), ("access-control-request-headers", "if-match")];
    for (origin, allowed) in [("https://tools.example", true), ("https://evil.example", false)] {
        for (method, headers) in [(Method::OPTIONS, &asked[..]), (Method::GET, &[])] {
            let headers = [&[("origin", origin)], headers].concat();
            let answer = api.raw(method, "/api/templates", &headers, String::new()).await;
            let told = answer.headers().get("access-control-allow-origin");
            assert_eq!(told.map(|value| value.to_str().unwrap()), allowed.then_some(origin));
        }
    }
    let headers = [&[("origin", "https://tools.example")], &asked[..]].concat();
    let answer = api.raw(Method::OPTIONS, "/api/templates", &headers, String::new()).await;
    assert!(answer.headers()["access-control-allow-methods"].to_str().unwrap().contains("PUT"));
    assert!(answer.headers()["access-control-allow-headers"].to_str().unwrap().contains("if-match"));
    plane.server.shutdown().await;

    let plane = Plane::new().await;
    let headers = [("origin", "https://tools.example")];
    let answer = Api::new(plane.address()).raw(Method::GET, "/api/templates", &headers, String::new()).await;
    assert!(!answer.headers().contains_key("access-control-allow-origin"), "nobody is allowed unless it is said");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn another_sites_page_opens_no_websocket_with_a_browsers_cookie() {
    let plane = Plane::with(|config| config.allowed_origins = vec!["https://tools.example".into()]).await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let id = agent.runs(&api, "/api/deployments").await.id;
    let cookie = cookie(&plane, &mut agent, "bob", &[]).await;
    let here = format!("http://{}", plane.address());
    for path in [format!("/ws/deployments/{id}"), "/ws/events".into()] {
        for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
            let refused = api.socket(&path, &[("cookie", &cookie), ("origin", origin)]).await.err();
            assert_eq!(refused, Some(403), "{path} {origin}");
        }
        assert_eq!(api.socket(&path, &[("cookie", &cookie)]).await.err(), Some(403), "{path} without an origin");
        for origin in [here.as_str(), "https://tools.example"] {
            assert!(api.socket(&path, &[("cookie", &cookie), ("origin", origin)]).await.is_ok(), "{path} {origin}");
        }
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_session_that_somebody_planted_is_not_taken_over() {
    let plane = Plane::new().await;
    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    // One that the attacker made up, and one that is theirs.
    let theirs = cookie(&plane, &mut agent, "eve", &[]).await;
    let here = format!("http://{}", plane.address());
    for planted in ["sdp_session=sdps_0000", theirs.as_str()] {
        let fresh = cookie(&plane, &mut agent, "bob", &[("cookie", planted), ("origin", &here)]).await;
        assert_ne!(fresh, planted);
        let api = Api::new(plane.address());
        let me = async |cookie: &str| {
            let answer = api.raw(Method::GET, "/api/me", &[("cookie", cookie)], String::new()).await;
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        assert!(me(&fresh).await.1.contains("bob"));
        assert_eq!(me(planted).await.0, 401, "what was planted is nobody's now");
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn secrets_are_refused_in_addresses() {
    let plane = Plane::new().await;
    let (_agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let (_, made) = api.post("/api/tokens", json!({ "name": "ci", "scopes": ["read"] })).await;
    let token = made["secret"].as_str().unwrap();
    for query in [
        format!("token={token}"),
        format!("access_token={token}"),
        format!("x={token}"),
        format!("x={}", api.token),
        "password=hunter2".into(),
        "TOKEN=x".into(),
    ] {
        for path in ["/api/me", "/api/deployments", "/healthz", "/ws/events", "/ws/deployments/x"] {
            let answer = api.raw(Method::GET, &format!("{path}?{query}"), &[], String::new()).await;
            assert_eq!(answer.status(), 400, "{path}?{query}");
            let text = answer.text().await.unwrap();
            assert!(text.contains("Authorization: Bearer") && !text.contains(token), "{text}");
        }
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn guesses_are_limited_for_an_address_and_told_when_to_come_back() {
    let plane =
        Plane::with(|config| (config.login.attempts, config.login.window) = (3, Duration::from_secs(600))).await;
    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    let api = Api::new(plane.address());
    let wrong = |_: &RequestBody| refused(ErrorCode::InvalidCredentials, "no");
    let guess = |user: String| json!({ "username": user, "password": "guess" });
    for _ in 0..3 {
        assert_eq!(agent.during(api.post("/api/login", guess("eve".into())), wrong).await.0, 401);
    }
    let answer = api.raw(Method::POST, "/api/login", &[JSON], guess("eve".into()).to_string()).await;
    assert_eq!(answer.status(), 429);
    let after: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=600).contains(&after), "{after}");
    let (mut refused, mut judged) = (0, 0);
    for n in 0..60 {
        match agent.during(api.post("/api/login", guess(format!("user{n}"))), wrong).await.0 {
            401 => judged += 1,
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(judged <= 30 && refused >= 30, "{judged} guesses reached the git host");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn signing_out_everywhere_ends_every_session_and_what_it_follows() {
    let plane = Plane::new().await;
    let (mut agent, first, _) = plane.ready(inventory(&["eredar"])).await;
    let second = Api::sign_in(plane.address(), &mut agent, "ada").await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    let (_, made) = first.post("/api/tokens", json!({ "name": "ci", "scopes": ["read"] })).await;
    let id = agent.accepts(&second, "/api/deployments", json!({ "repo": "eredar", "branch": "main" })).await.id;
    let mut stream = second.stream(id, "").await;
    assert_eq!(first.post("/api/logout?everywhere=true", json!({})).await.0, 204);
    assert_eq!((first.get("/api/me").await.0, second.get("/api/me").await.0), (401, 401));
    patiently(async { while let Some(Ok(_)) = stream.next().await {} }).await;
    assert_eq!(bob.get("/api/me").await.0, 200);
    let mut script = Api::new(plane.address());
    script.token = made["secret"].as_str().unwrap().into();
    assert_eq!(script.get("/api/me").await.0, 200, "tokens are revoked one by one");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn an_authorization_header_that_is_no_bearer_is_refused_also_beside_a_cookie() {
    let plane = Plane::new().await;
    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    let cookie = cookie(&plane, &mut agent, "bob", &[]).await;
    let api = Api::new(plane.address());
    for header in ["Basic YTpi", "Bearer", "Bearer x", "Bearer sdp_x", "Bearer sdpa_x", "x"] {
        let headers = [("cookie", cookie.as_str()), ("authorization", header)];
        let answer = api.raw(Method::GET, "/api/me", &headers, String::new()).await;
        assert_eq!(answer.status(), 401, "{header}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
    }
    plane.server.shutdown().await;
}
