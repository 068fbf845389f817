//! Outgoing webhooks.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode};
use sdp_server::{ServerConfig, bitbucket::sign, webhooks::WebhookConfig};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Plane, inventory, until};

const SECRET: &str = "chat-s3cret";

/// In place of a status: no answer at all.
const SILENCE: u16 = 0;

/// Somebody who is told.
#[derive(Debug, Clone, Default)]
struct Receiver {
    told: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    refusals: Arc<Mutex<VecDeque<u16>>>,
}

impl Receiver {
    async fn start(self) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/hook/s3cret-path", listener.local_addr().unwrap());
        let router = Router::new().fallback(take).with_state(self);
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn refuse(&self, statuses: &[u16]) {
        self.refusals.lock().unwrap().extend(statuses);
    }

    /// The events taken so far.
    fn events(&self) -> Vec<Value> {
        let told = self.told.lock().unwrap();
        told.iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect()
    }

    /// Waits for an event.
    async fn hears(&self, event: &str) -> Value {
        let found = || async { self.events().into_iter().find(|told| told["event"] == event) };
        until(found, Option::is_some).await.unwrap()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let refusal = receiver.refusals.lock().unwrap().pop_front();
    match refusal {
        Some(SILENCE) => std::future::pending().await,
        Some(status) => return StatusCode::from_u16(status).unwrap(),
        None => {}
    }
    receiver.told.lock().unwrap().push((headers, body));
    StatusCode::OK
}

fn tells(config: &mut ServerConfig, url: &str, events: &str) {
    let webhook: WebhookConfig = toml::from_str(&format!("name = 'chat'\nurl = '{url}'\n{events}")).unwrap();
    config.webhook = vec![WebhookConfig { secret: Some(SECRET.into()), ..webhook }];
    config.deliveries.first = Duration::from_millis(10);
    config.deliveries.longest = Duration::from_millis(50);
    config.deliveries.timeout = Duration::from_millis(500);
    config.sandboxes.upkeep = Duration::from_millis(20);
}

#[tokio::test]
async fn what_happens_is_posted_in_order_signed_and_repeated_until_it_is_taken() {
    let receiver = Receiver::default();
    receiver.refuse(&[500, 429, 503]);
    let url = receiver.clone().start().await;
    let plane = Plane::with(|config| tells(config, &url, "")).await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay", "expires_in": "1h" })).await.0, 201);
    let id = agent.runs(&api, "/api/sandboxes/pay/deployments").await.id;
    let running = receiver.hears("deployment-running").await;
    let deployment = &running["deployment"];
    assert_eq!((&deployment["id"], &deployment["sandbox"]), (&json!(id), &json!("pay")), "{running}");
    assert_eq!(deployment["url"], "http://vm.example:7001");
    let events = receiver.events();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["sandbox-created", "deployment-running"]);
    assert!(events[0]["id"].as_i64() < events[1]["id"].as_i64());

    for (headers, body) in receiver.told.lock().unwrap().iter() {
        let header = |name: &str| headers[name].to_str().unwrap();
        let at = header("x-sdp-timestamp");
        assert_eq!(header("x-sdp-signature"), sign(&SECRET.into(), &[at.as_bytes(), b".", body]));
        let age = jiff::Timestamp::now().as_second() - at.parse::<i64>().unwrap();
        assert!((0..60).contains(&age), "{age}");
        let body: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(header("x-sdp-event"), body["event"]);
    }

    assert_eq!(api.patch("/api/sandboxes/pay", json!({ "expires_in": "1ms" })).await.0, 200);
    let gone = until(|| api.get("/api/sandboxes/pay"), |(status, _)| *status == 404);
    agent.during(gone, crate::support::done).await;
    assert_eq!(receiver.hears("sandbox-deleted").await["sandbox"]["owner"], "ada");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_was_not_taken_is_posted_after_a_restart() {
    let receiver = Receiver::default();
    let plane = Plane::with(|config| tells(config, "http://127.0.0.1:9/", "")).await;
    let (_agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    for name in ["pay", "ship"] {
        assert_eq!(api.post("/api/sandboxes", json!({ "name": name })).await.0, 201);
    }
    let url = receiver.clone().start().await;
    let plane = plane.restarted_with(|config| tells(config, &url, "")).await;
    until(|| async { receiver.events().len() }, |count| *count == 2).await;
    let names: Vec<_> = receiver.events().iter().map(|event| event["sandbox"]["name"].clone()).collect();
    assert_eq!(names, ["pay", "ship"]);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_was_on_its_way_when_the_server_stopped_is_posted_again() {
    let receiver = Receiver::default();
    receiver.refuse(&[SILENCE]);
    let url = receiver.clone().start().await;
    let configure = |config: &mut ServerConfig| {
        tells(config, &url, "");
        config.deliveries.timeout = Duration::from_secs(3600);
    };
    let plane = Plane::with(configure).await;
    let (_agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    until(|| async { receiver.refusals.lock().unwrap().len() }, |left| *left == 0).await;
    let plane = plane.restarted().await;
    assert_eq!(receiver.hears("sandbox-created").await["sandbox"]["name"], "pay");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_nobody_wants_to_know_is_not_posted_and_what_is_refused_holds_nothing_up() {
    let receiver = Receiver::default();
    receiver.refuse(&[400]);
    let url = receiver.clone().start().await;
    let plane = Plane::with(|config| tells(config, &url, "events = ['sandbox-created', 'route-changed']")).await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    for name in ["first", "second"] {
        assert_eq!(api.post("/api/sandboxes", json!({ "name": name })).await.0, 201);
    }
    agent.runs(&api, "/api/sandboxes/first/deployments").await;
    assert_eq!(receiver.hears("sandbox-created").await["sandbox"]["name"], "second", "the first was refused for good");
    assert_eq!(api.post("/api/sandboxes", json!({ "name": "third" })).await.0, 201);
    until(|| async { receiver.events().len() }, |count| *count == 2).await;
    assert!(receiver.events().iter().all(|event| event["event"] == "sandbox-created"));
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_posted_for_too_long_is_given_up() {
    let receiver = Receiver::default();
    receiver.refuse(&[500; 40]);
    let url = receiver.clone().start().await;
    let configure = |config: &mut ServerConfig| {
        tells(config, &url, "");
        config.deliveries.give_up = Duration::ZERO;
    };
    let plane = Plane::with(configure).await;
    let (_agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    for name in ["first", "second"] {
        assert_eq!(api.post("/api/sandboxes", json!({ "name": name })).await.0, 201);
    }
    until(|| async { receiver.refusals.lock().unwrap().len() }, |left| *left == 38).await;
    receiver.refusals.lock().unwrap().clear();
    assert_eq!(api.post("/api/sandboxes", json!({ "name": "third" })).await.0, 201);
    assert_eq!(receiver.hears("sandbox-created").await["sandbox"]["name"], "third");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_sandbox_is_told_of_once_before_it_expires() {
    let receiver = Receiver::default();
    let url = receiver.clone().start().await;
    let plane = Plane::with(|config| tells(config, &url, "events = ['sandbox-expiring', 'sandbox-deleted']")).await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    for (name, lifetime) in [("long", "9d"), ("short", "6s")] {
        assert_eq!(api.post("/api/sandboxes", json!({ "name": name, "expires_in": lifetime })).await.0, 201);
    }
    let gone = until(|| api.get("/api/sandboxes/short"), |(status, _)| *status == 404);
    agent.during(gone, crate::support::done).await;
    receiver.hears("sandbox-deleted").await;
    let events = receiver.events();
    let told: Vec<_> = events.iter().map(|event| (event["event"].clone(), event["sandbox"]["name"].clone())).collect();
    assert_eq!(told, [(json!("sandbox-expiring"), json!("short")), (json!("sandbox-deleted"), json!("short"))]);
    plane.server.shutdown().await;
}
