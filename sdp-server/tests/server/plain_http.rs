//! An agent's connection over plain HTTP: numbered, repeatable, and as strict as the WebSocket.

use std::{collections::BTreeMap, time::Duration};

use reqwest::{Client, StatusCode};
use sdp_core::protocol::{
    AgentFrame, Body, Frame, Hello, MAX_BODY_BYTES, Reply, ServerFrame, SessionKey, WireMessage, unpack,
};
use sdp_core::{DeploymentId, ErrorCode};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::support::{Agent, Plane, batch, done, hello, inventory, patiently, states, until};

/// An agent's side of a session, a request at a time.
pub(crate) struct Session {
    client: Client,
    base: String,
    key: String,
}

impl Session {
    async fn open(plane: &Plane) -> Self {
        let (client, base) = (Client::new(), format!("http://{}/ws/agent", plane.address()));
        let answer = client.post(format!("{base}/session")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        let key = answer.json::<SessionKey>().await.unwrap().key.0.expose_secret().to_owned();
        Self { client, base, key }
    }

    /// A session whose hello was accepted, which took one number each way, and what the server has of
    /// the agent's events.
    pub(crate) async fn welcomed(plane: &Plane, hello: Hello) -> (Self, BTreeMap<String, u64>) {
        let session = Self::open(plane).await;
        assert_eq!(session.bring(1, &[AgentFrame::Hello(Box::new(hello))]).await, 204);
        match session.fetch(0).await.unwrap().pop() {
            Some(ServerFrame::Welcome(welcome)) => (session, welcome.acked),
            other => panic!("not welcomed: {other:?}"),
        }
    }

    pub(crate) async fn bring(&self, number: u64, frames: &[AgentFrame]) -> u16 {
        let mut body = Body::default();
        frames.iter().for_each(|frame| body.add(frame.encode()).unwrap());
        self.bring_bytes(number, body.take().to_vec()).await
    }

    async fn bring_bytes(&self, number: u64, body: Vec<u8>) -> u16 {
        let request = self.client.post(format!("{}/session/frames?number={number}", self.base));
        patiently(request.bearer_auth(&self.key).body(body).send()).await.unwrap().status().as_u16()
    }

    /// The frames after answer `after`; none is a ping, and passed over.
    pub(crate) async fn fetch(&self, after: u64) -> Result<Vec<ServerFrame>, (u16, Value)> {
        loop {
            let request = self.client.get(format!("{}/session/frames?after={after}", self.base));
            let answer = patiently(request.bearer_auth(&self.key).send()).await.unwrap();
            let status = answer.status().as_u16();
            match status {
                204 => {}
                200 => {
                    let messages = unpack(answer.bytes().await.unwrap()).unwrap();
                    return Ok(messages.iter().map(|message| ServerFrame::decode(message).unwrap()).collect());
                }
                _ => return Err((status, answer.json().await.unwrap())),
            }
        }
    }

    async fn end(&self) {
        let request = self.client.post(format!("{}/session/end", self.base)).bearer_auth(&self.key);
        assert_eq!(request.send().await.unwrap().status(), 204);
    }
}

fn ack(deployment: DeploymentId, seq: u64) -> ServerFrame {
    ServerFrame::Ack { deployment, seq }
}

#[tokio::test]
async fn what_is_repeated_because_its_answer_was_lost_changes_nothing() {
    let plane = Plane::new().await;
    let token = plane.enrol("micro").await;
    let (session, _) = Session::welcomed(&plane, hello("micro", &token)).await;
    let id = DeploymentId::new();
    let events = [AgentFrame::Events(batch(id, 1, &states(&["source", "build"])))];
    for _ in 0..3 {
        assert_eq!(session.bring(2, &events).await, 204);
    }
    for _ in 0..3 {
        assert_eq!(session.fetch(1).await.unwrap(), [ack(id, 2)], "once, however often it is fetched");
    }
    assert_eq!(session.bring(3, &[AgentFrame::Events(batch(id, 3, &states(&["start"])))]).await, 204);
    assert_eq!(session.fetch(2).await.unwrap(), [ack(id, 3)]);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn requests_are_answered_and_the_list_says_how_the_agent_is_connected() {
    let plane = Plane::new().await;
    let (agent, api, token) = plane.ready(inventory(&["eredar"])).await;
    assert_eq!(api.get("/api/agents/micro").await.1["transport"], "websocket");
    let (session, _) = Session::welcomed(&plane, hello("micro", &token)).await;
    until(|| api.get("/api/agents/micro"), |(_, agent)| agent["transport"] == "http").await;
    drop(agent);

    let answering = async {
        let frames = session.fetch(1).await.unwrap();
        let [ServerFrame::Request(request)] = &frames[..] else { panic!("not a request: {frames:?}") };
        let reply = AgentFrame::Reply(Reply { id: request.id, outcome: done(&request.body) });
        assert_eq!(session.bring(2, &[reply]).await, 204);
    };
    let body = serde_json::json!({ "repo": "eredar", "branch": "main" });
    let ((status, deployment), ()) = tokio::join!(api.post("/api/deployments", body), answering);
    assert_eq!(status, 202, "{deployment}");

    session.end().await;
    let (_, gone) = until(|| api.get("/api/agents/micro"), |(_, agent)| agent["connected"] == false).await;
    assert!(gone.get("transport").is_none(), "{gone}");
    assert_eq!(session.fetch(2).await.unwrap_err().0, 404);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_does_not_belong_is_refused() {
    let plane = Plane::new().await;
    let token = plane.enrol("micro").await;
    let (mut session, _) = Session::welcomed(&plane, hello("micro", &token)).await;
    assert_eq!(session.bring(3, &[]).await, 409, "a number was left out");
    assert_eq!(session.fetch(5).await.unwrap_err().0, 409);
    assert_eq!(session.bring_bytes(2, b"t\0\0\0\x09{".to_vec()).await, 400);
    assert_eq!(session.bring_bytes(2, vec![0; MAX_BODY_BYTES + 1]).await, 413);
    assert_eq!(session.bring(2, &[]).await, 204, "none of these did it any harm");
    let key = std::mem::replace(&mut session.key, "sdph_guessed".into());
    assert_eq!((session.bring(3, &[]).await, session.fetch(1).await.unwrap_err().0), (404, 404));
    let nobody = session.client.post(format!("{}/session/end", session.base)).send().await.unwrap();
    assert_eq!(nobody.status(), 401);

    // What is no frame ends it, as on a WebSocket, and is told.
    session.key = key;
    let mut body = Body::default();
    body.add(WireMessage::Text("not json".into())).unwrap();
    assert_eq!(session.bring_bytes(3, body.take().to_vec()).await, 204);
    let frames = session.fetch(1).await.unwrap();
    assert!(
        matches!(&frames[..], [ServerFrame::Refused(problem)] if problem.code == ErrorCode::BadRequest),
        "{frames:?}"
    );
    assert_eq!(session.fetch(2).await.unwrap_err().0, 404);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_can_be_asked_about_before() {
    let plane = Plane::new().await;
    let token = plane.enrol("micro").await;
    let check = async |hello: Hello| {
        let mut body = Body::default();
        body.add(AgentFrame::Hello(Box::new(hello)).encode()).unwrap();
        let request = Client::new().post(format!("http://{}/ws/agent/check", plane.address()));
        let answer = request.body(body.take().to_vec()).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, welcome) = check(hello("micro", &token)).await;
    assert_eq!((status, &welcome["protocol"]), (200, &1.into()));
    assert!(plane.server.state().hub().agents().await.unwrap().iter().all(|agent| !agent.connected));
    for (hello, code) in [
        (hello("micro", &"sdpa_wrong".into()), "not-allowed"),
        (Hello { protocol: 9, oldest_protocol: 8, ..hello("micro", &token) }, "unsupported"),
    ] {
        let (status, problem) = check(hello.clone()).await;
        assert!(status >= 400 && problem["code"] == code, "{problem}");
        let session = Session::open(&plane).await;
        assert_eq!(session.bring(1, &[AgentFrame::Hello(Box::new(hello))]).await, 204);
        let frames = session.fetch(0).await.unwrap();
        assert!(matches!(&frames[..], [ServerFrame::Refused(problem)] if problem.code.as_str() == code), "{frames:?}");
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_session_that_falls_silent_ends_and_a_newer_connection_takes_its_place() {
    let plane = Plane::with(|config| {
        config.agents.ping = Duration::from_millis(50);
        config.agents.silence = Duration::from_millis(400);
    })
    .await;
    let (agent, api, token) = plane.ready(inventory(&["eredar"])).await;
    let (session, _) = Session::welcomed(&plane, hello("micro", &token)).await;
    drop(agent);
    // Who asks is heard, though there is nothing to tell.
    let (_, polled) = tokio::join!(tokio::time::sleep(Duration::from_secs(1)), async {
        tokio::time::timeout(Duration::from_secs(1), session.fetch(1)).await
    });
    assert!(polled.is_err(), "{polled:?}");
    assert_eq!(api.get("/api/agents/micro").await.1["connected"], true);
    until(|| api.get("/api/agents/micro"), |(_, agent)| agent["connected"] == false).await;

    let (session, _) = Session::welcomed(&plane, hello("micro", &token)).await;
    let told = [AgentFrame::Unsupported { frame: "later".into() }];
    let mut newer = Agent::greet(plane.address(), hello("micro", &token)).await;
    assert_eq!(session.fetch(1).await.unwrap_err().0, 404);
    // At once, but for the moment between the end of the answers and that of the session.
    let taken = [session.bring(2, &told).await, session.bring(3, &told).await];
    assert!(taken.contains(&404), "{taken:?}");
    newer.events(DeploymentId::new(), 1, &states(&["source"])).await;
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_request_that_a_change_of_connections_tore_is_asked_again_where_that_does_no_harm() {
    let plane = Plane::new().await;
    let (mut older, api, token) = plane.ready(inventory(&["eredar"])).await;
    let mut newer = None;
    let ((status, _), ()) = tokio::join!(api.get("/api/repos/eredar/branches"), async {
        older.request().await;
        let mut agent = Agent::greet(plane.address(), hello("micro", &token)).await;
        let request = agent.request().await;
        let branches = sdp_core::protocol::ReplyBody::Branches { branches: Vec::new() };
        agent.reply(request.id, sdp_core::protocol::Outcome::Ok(branches)).await;
        newer = Some(agent);
    });
    assert_eq!(status, 200);

    let mut newer = newer.unwrap();
    let deployment = newer.runs(&api, "/api/deployments").await;
    let path = format!("/api/deployments/{}/restart", deployment.id);
    let ((status, problem), _newest) = tokio::join!(api.post(&path, Value::Null), async {
        newer.request().await;
        Agent::greet(plane.address(), hello("micro", &token)).await
    });
    assert_eq!(status, 503, "a restart is not asked for twice: {problem}");
    plane.server.shutdown().await;
}
