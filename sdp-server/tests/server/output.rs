//! What a deployment's program prints, as its agent tells it piece by piece.

use http::Method;
use sdp_core::{
    ErrorCode, LogLine, LogOptions, LogStream,
    protocol::{Outcome, OutputStep, ReplyBody, RequestBody},
};
use serde_json::{Value, json};

use crate::support::{Agent, Api, Plane, Socket, drain, inventory, refused};

fn lines(texts: &[&str]) -> Vec<LogLine> {
    texts.iter().map(|text| LogLine { stream: LogStream::Stderr, line: (*text).into() }).collect()
}

/// An agent's answers, one after another, and the questions that they answer.
pub(crate) struct Script {
    pieces: Vec<Outcome>,
    pub(crate) asked: Vec<(u64, OutputStep)>,
}

impl Script {
    pub(crate) fn new(pieces: impl IntoIterator<Item = Outcome>) -> Self {
        Self { pieces: pieces.into_iter().collect(), asked: Vec::new() }
    }

    pub(crate) fn answer(&mut self, body: &RequestBody) -> Outcome {
        let RequestBody::Output { reader, step, .. } = body else { return refused(ErrorCode::Timeout, "busy") };
        self.asked.push((*reader, step.clone()));
        self.pieces.remove(0)
    }
}

pub(crate) fn piece(texts: &[&str], ended: bool) -> Outcome {
    Outcome::Ok(ReplyBody::Output { lines: lines(texts), ended, exit_code: None })
}

async fn read(api: &Api, path: &str) -> (u16, String, String) {
    let bearer = format!("Bearer {}", api.token);
    let answer = api.raw(Method::GET, path, &[("authorization", &bearer)], String::new()).await;
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (answer.status().as_u16(), kind, answer.text().await.unwrap())
}

async fn follow(api: &Api, id: &str, query: &str) -> Result<Socket, u16> {
    let bearer = format!("Bearer {}", api.token);
    api.socket(&format!("/ws/deployments/{id}/output{query}"), &[("authorization", &bearer)]).await
}

/// A follower whose agent has told it its first piece.
async fn followed(agent: &mut Agent, api: &Api, id: &str) -> Socket {
    let begin = async {
        let begin = agent.request().await;
        agent.reply(begin.id, piece(&["one"], false)).await;
    };
    tokio::join!(follow(api, id, ""), begin).0.unwrap()
}

pub(crate) async fn running(plane: &Plane) -> (Agent, Api, String) {
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    let id = agent.runs(&api, "/api/sandboxes/pay/deployments").await.id;
    (agent, api, id.to_string())
}

#[tokio::test]
async fn what_was_printed_is_a_document_of_as_many_pieces_as_it_takes() {
    let plane = Plane::new().await;
    let (mut agent, api, id) = running(&plane).await;
    let path = format!("/api/deployments/{id}/output");
    let pieces = || [piece(&["one", "two"], false), piece(&[], false), piece(&["three"], false), piece(&[], true)];
    let mut script = Script::new(pieces());
    let answer = agent.during(read(&api, &path), |body| script.answer(body)).await;
    assert_eq!(answer, (200, "text/plain; charset=utf-8".into(), "one\ntwo\nthree\n".into()));
    let (reader, begin) = script.asked.remove(0);
    assert_eq!(begin, OutputStep::Begin(LogOptions { tail: None, follow: false }));
    assert_eq!(script.asked, vec![(reader, OutputStep::Next); 3], "one reader goes on");

    let mut script = Script::new(pieces());
    let path = format!("{path}?tail=3&format=ndjson");
    let (_, kind, text) = agent.during(read(&api, &path), |body| script.answer(body)).await;
    assert_eq!((kind.as_str(), text.lines().count()), ("application/x-ndjson", 3));
    assert_eq!(text.lines().next().unwrap(), r#"{"stream":"stderr","line":"one"}"#);
    assert_eq!(script.asked[0].1, OutputStep::Begin(LogOptions { tail: Some(3), follow: false }));
    assert_ne!(script.asked[0].0, reader, "another reader");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_is_printed_is_followed_to_its_end() {
    let plane = Plane::new().await;
    let (mut agent, api, id) = running(&plane).await;
    let mut script = Script::new([
        piece(&["one"], false),
        piece(&[], false),
        piece(&["two", "three"], false),
        piece(&["four"], true),
    ]);
    let followed = async { drain(&mut follow(&api, &id, "?tail=1").await.unwrap()).await };
    let (told, close) = agent.during(followed, |body| script.answer(body)).await;
    let texts: Vec<_> = told.iter().filter_map(|line| line["line"].as_str()).collect();
    assert_eq!(texts, ["one", "two", "three", "four"]);
    assert_eq!(told.last().unwrap(), &json!({ "type": "end" }));
    assert_eq!(u16::from(close.unwrap().code), 1000);
    assert_eq!(script.asked[0].1, OutputStep::Begin(LogOptions { tail: Some(1), follow: true }));
    plane.server.shutdown().await;
}

#[tokio::test]
async fn who_follows_is_told_why_it_cannot_go_on() {
    let plane = Plane::new().await;
    let (mut agent, api, id) = running(&plane).await;
    let mut script = Script::new([piece(&["one"], false), refused(ErrorCode::EngineUnavailable, "Docker is gone")]);
    let told = async { drain(&mut follow(&api, &id, "").await.unwrap()).await.0 };
    let told = agent.during(told, |body| script.answer(body)).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!((&told[1]["type"], &told[1]["problem"]["detail"]), (&json!("broken"), &json!("Docker is gone")));

    // The agent goes away while somebody follows.
    let mut stream = followed(&mut agent, &api, &id).await;
    drop(agent);
    let told = drain(&mut stream).await.0;
    assert_eq!(told.last().unwrap()["problem"]["code"], "agent-away", "{told:?}");
    assert_eq!(follow(&api, &id, "").await.err(), Some(503));
    plane.server.shutdown().await;
}

#[tokio::test]
async fn nobody_is_asked_for_whom_nobody_reads() {
    let plane = Plane::new().await;
    let (mut agent, api, id) = running(&plane).await;
    drop(followed(&mut agent, &api, &id).await);
    // What was asked for already is answered, and the agent told that nobody reads.
    loop {
        let request = agent.request().await;
        let RequestBody::Output { step, .. } = request.body else { panic!("{request:?}") };
        let ended = step == OutputStep::End;
        agent.reply(request.id, piece(&["more"], ended)).await;
        if ended {
            break;
        }
    }
    let measured = format!("/api/deployments/{id}/stats");
    let answer = |body: &RequestBody| {
        assert!(matches!(body, RequestBody::Stats { .. }), "{body:?}");
        refused(ErrorCode::Timeout, "busy")
    };
    assert_eq!(agent.during(api.get(&measured), answer).await.0, 504);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_has_no_program_and_who_is_too_old_says_so() {
    let plane = Plane::new().await;
    let (mut agent, api, id) = running(&plane).await;
    let path = format!("/api/deployments/{id}/output");
    let old = |_: &RequestBody| refused(ErrorCode::Unsupported, "older than the server: update it");
    let (status, kind, text) = agent.during(read(&api, &path), old).await;
    assert_eq!((status, kind.as_str()), (501, "application/problem+json"), "{text}");
    assert_eq!(api.get(&format!("{path}?tail=-1")).await.1["field"], "tail");

    let queued = agent.accepts(&api, "/api/deployments", json!({ "repo": "eredar", "branch": "main" })).await.id;
    let (status, problem): (u16, Value) = api.get(&format!("/api/deployments/{queued}/output")).await;
    assert_eq!((status, &problem["code"]), (409, &json!("conflict")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("its log has"), "{problem}");
    plane.server.shutdown().await;
}
