//! `/ws/events`: everything that changes, in order, also for who was away.

use futures_util::StreamExt;
use sdp_core::api::live::{LiveEvent, LiveNotice};
use sdp_core::protocol::{Outcome, ReplyBody, RequestBody};
use sdp_core::{ErrorCode, RouteTable};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Agent, Api, Plane, Socket, done, hello, inventory, patiently, refused, until, with_gateway};

/// Who follows.
struct Follower {
    socket: Socket,
    waiting: std::collections::VecDeque<Value>,
}

impl Follower {
    async fn new(api: &Api, query: &str) -> Self {
        let bearer = format!("Bearer {}", api.token);
        let socket = api.socket(&format!("/ws/events{query}"), &[("authorization", &bearer)]).await.unwrap();
        Self { socket, waiting: Default::default() }
    }

    async fn line(&mut self) -> Value {
        while self.waiting.is_empty() {
            let message = patiently(self.socket.next()).await.unwrap().unwrap();
            if let Message::Text(text) = message {
                self.waiting.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
            }
        }
        self.waiting.pop_front().unwrap()
    }

    async fn notice(&mut self) -> LiveNotice {
        serde_json::from_value(self.line().await).unwrap()
    }

    /// The next event, in a word or two.
    async fn told(&mut self) -> (u64, String) {
        let line = self.line().await;
        let event: LiveEvent = serde_json::from_value(line.clone()).unwrap_or_else(|error| panic!("{line}: {error}"));
        let word = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let words = ["type", "name", "repo", "gateway", "change", "state"].map(word);
        (event.seq, words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
    }

    async fn tells(&mut self, wanted: &[&str]) -> Vec<u64> {
        let mut seqs = Vec::new();
        for wanted in wanted {
            let (seq, told) = self.told().await;
            assert_eq!(told, *wanted);
            seqs.push(seq);
        }
        assert!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seqs:?}");
        seqs
    }
}

#[tokio::test]
async fn what_changes_is_told_in_order_and_again_to_who_was_away() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(with_gateway()).await;
    let mut live = Follower::new(&api, "").await;
    assert!(matches!(live.notice().await, LiveNotice::Position { .. }));

    api.post("/api/sandboxes", json!({ "name": "pay" })).await;
    let first = live.tells(&["sandbox pay created active"]).await[0];
    agent.runs(&api, "/api/sandboxes/pay/deployments").await;
    let mut all = vec!["sandbox pay created active", "sandbox pay changed active", "deployment eredar queued"];
    all.push("deployment eredar running");
    live.tells(&all[1..]).await;

    let routed = |body: &RequestBody| match body {
        RequestBody::ApplyRoutes { .. } | RequestBody::Routes { .. } => {
            Outcome::Ok(ReplyBody::Routes { table: RouteTable::default() })
        }
        _ => refused(ErrorCode::Timeout, "busy"),
    };
    let set = api.put("/api/sandboxes/pay/routes/eredar", json!({ "target": "sandbox" }));
    assert_eq!(agent.during(set, routed).await.0, 200);
    all.extend(["route micro", "sandbox pay changed active"]);
    live.tells(&all[4..]).await;
    api.patch("/api/sandboxes/pay", json!({ "shared_with": ["bob"] })).await;
    api.post("/api/environments", json!({ "name": "qa" })).await;
    api.put("/api/environments/qa", json!({ "idle_after": "1h" })).await;
    api.delete("/api/environments/qa").await;
    let shape = json!({ "name": "shape", "services": [{ "repo": "eredar", "branch": "main" }] });
    api.post("/api/templates", shape).await;
    api.post("/api/agents", json!({ "name": "vm" })).await;
    api.post("/api/agents/vm/rotate", json!({})).await;
    api.delete("/api/agents/vm").await;
    all.extend([
        "sandbox pay changed active",
        "environment qa created",
        "environment qa changed",
        "environment qa deleted",
        "template shape created",
        "agent vm enrolled",
        "agent vm rotated",
        "agent vm revoked",
    ]);
    let last = *live.tells(&all[6..]).await.last().unwrap();

    // What changes nothing that anybody sees is not told.
    api.get("/api/sandboxes/pay").await;
    drop(agent);
    let (gone, told) = live.told().await;
    assert_eq!((gone, told.as_str()), (last + 1, "agent micro disconnected"));
    all.push("agent micro disconnected");

    let mut again = Follower::new(&api, &format!("?from={first}")).await;
    assert_eq!(again.notice().await, LiveNotice::Position { next: first });
    assert_eq!(again.tells(&all).await[0], first, "everything, the same");
    let mut rest = Follower::new(&api, &format!("?from={gone}")).await;
    assert_eq!(rest.notice().await, LiveNotice::Position { next: gone });
    rest.tells(&["agent micro disconnected"]).await;
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_restart_loses_nothing_and_says_so() {
    let plane = Plane::new().await;
    let (_agent, api, token) = plane.ready(inventory(&["eredar"])).await;
    let mut live = Follower::new(&api, "").await;
    let LiveNotice::Position { next } = live.notice().await else { panic!("no position") };
    api.post("/api/sandboxes", json!({ "name": "pay" })).await;
    let plane = plane.restarted().await;
    patiently(async { while let Some(Ok(_)) = live.socket.next().await {} }).await;
    let mut agent = Agent::greet(plane.address(), hello("micro", &token)).await;
    let api = Api::sign_in(plane.address(), &mut agent, "ada").await;
    let mut live = Follower::new(&api, &format!("?from={next}")).await;
    live.notice().await;
    live.told().await;
    let told = [live.told().await.1, live.told().await.1, live.told().await.1];
    assert!(told.contains(&"started".into()) && told.contains(&"agent micro connected".into()), "{told:?}");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn who_was_away_for_too_long_is_told_what_is_missing() {
    let plane = Plane::with(|config| config.events.keep = 5).await;
    let (_agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    for n in 0..20 {
        assert_eq!(api.post("/api/sandboxes", json!({ "name": format!("s{n}") })).await.0, 201);
    }
    plane.server.state().store().forget_changes(5).await.unwrap();
    let mut live = Follower::new(&api, "?from=1").await;
    assert_eq!(live.notice().await, LiveNotice::Position { next: 1 });
    let LiveNotice::Gap { from: 1, oldest } = live.notice().await else { panic!("no gap") };
    let sandboxes: Vec<_> = (15..20).map(|n| format!("sandbox s{n} created active")).collect();
    let told = live.tells(&sandboxes.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(told[0], oldest);

    // A number that there never was: the database is older than what the reader has seen.
    let mut live = Follower::new(&api, "?from=1000000").await;
    live.notice().await;
    assert_eq!(live.notice().await, LiveNotice::Gap { from: 1_000_000, oldest });
    assert_eq!(
        api.socket("/ws/events?from=x", &[("authorization", &format!("Bearer {}", api.token))]).await.err(),
        Some(422)
    );
    plane.server.shutdown().await;
}

#[tokio::test]
async fn many_followers_see_the_same_while_much_changes() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let mut followers = Vec::new();
    for _ in 0..10 {
        let mut live = Follower::new(&api, "").await;
        live.notice().await;
        followers.push(live);
    }
    let names: Vec<_> = (0..40).map(|n| format!("s{n}")).collect();
    let made = futures_util::future::join_all(
        names.iter().map(async |name| api.post("/api/sandboxes", json!({ "name": name })).await.0),
    );
    assert!(made.await.iter().all(|status| *status == 201));
    for name in &names {
        assert_eq!(agent.during(api.delete(&format!("/api/sandboxes/{name}")), done).await.0, 204);
    }
    until(|| api.get("/api/sandboxes"), |(_, list)| list["items"].as_array().is_none_or(Vec::is_empty)).await;
    let mut seen: Option<Vec<(u64, String)>> = None;
    for live in &mut followers {
        let mut told = Vec::new();
        while told.iter().filter(|(_, told): &&(u64, String)| told.contains("deleted")).count() < names.len() {
            told.push(live.told().await);
        }
        assert!(told.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
        assert_eq!(*seen.get_or_insert_with(|| told.clone()), told);
    }
    plane.server.shutdown().await;
}
