//! A control plane on a real socket, with an agent that does what the test's script says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, time::Duration};

use futures_util::{SinkExt, StreamExt};
use sdp_core::protocol::{
    AgentFrame, EventBatch, Frame, Hello, Outcome, Reply, ReplyBody, Request, RequestBody, ServerFrame, TokenFrame,
    WireMessage,
};
use sdp_core::{Deployment, DeploymentId, ErrorCode, Problem, RecipeKind, RepoInfo};
use sdp_server::{Server, ServerConfig};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

const PASSWORD: &str = "correct-horse-battery";

async fn patiently<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("waited in vain")
}

async fn server(dir: &Path) -> Server {
    let listen = "127.0.0.1:0".parse().unwrap();
    Server::bind(ServerConfig { listen, data_dir: dir.into(), ..ServerConfig::default() }).await.unwrap()
}

struct Agent(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Agent {
    async fn dial(server: &Server) -> Self {
        Self(connect_async(format!("ws://{}/ws/agent", server.local_addr())).await.unwrap().0)
    }

    async fn connect(server: &Server, token: &str) -> Self {
        let mut agent = Self::dial(server).await;
        agent.send(AgentFrame::Hello(Box::new(hello(token)))).await;
        match agent.frame().await {
            ServerFrame::Welcome(_) => agent,
            other => panic!("not welcomed: {other:?}"),
        }
    }

    async fn send(&mut self, frame: AgentFrame) {
        let message = match frame.encode() {
            WireMessage::Text(text) => Message::text(text),
            WireMessage::Binary(bytes) => Message::Binary(bytes),
        };
        self.0.send(message).await.unwrap();
    }

    async fn frame(&mut self) -> ServerFrame {
        patiently(async {
            loop {
                if let Message::Text(text) = self.0.next().await.unwrap().unwrap() {
                    return ServerFrame::decode(&WireMessage::Text(text.as_str().into())).unwrap();
                }
            }
        })
        .await
    }

    async fn request(&mut self) -> Request {
        match self.frame().await {
            ServerFrame::Request(request) => request,
            other => panic!("not a request: {other:?}"),
        }
    }

    async fn reply(&mut self, id: u64, outcome: Outcome) {
        self.send(AgentFrame::Reply(Reply { id, outcome })).await;
    }

    async fn events(&mut self, id: DeploymentId, first: u64, lines: &[Value]) {
        let line = |(seq, line): (u64, &Value)| {
            let mut line = line.clone();
            line["seq"] = seq.into();
            line["at"] = "2026-01-02T03:04:05Z".into();
            format!("{line}\n")
        };
        let text: String = (first..).zip(lines).map(line).collect();
        self.send(AgentFrame::Events(EventBatch::new(id, first, text.into()).unwrap())).await;
        let last = first + lines.len() as u64 - 1;
        assert_eq!(self.frame().await, ServerFrame::Ack { deployment: id, seq: last });
    }
}

fn hello(token: &str) -> Hello {
    let repo = RepoInfo {
        name: "eredar".parse().unwrap(),
        service: Some("eredar".parse().unwrap()),
        recipe: RecipeKind::Go,
        url_prefix: None,
    };
    let inventory = sdp_core::Inventory {
        version: "0".into(),
        advertise: "127.0.0.1".into(),
        deployer: "process".into(),
        repos: vec![repo],
        gateway: None,
    };
    let agent = "micro".parse().unwrap();
    Hello { protocol: 1, oldest_protocol: 1, agent, token: TokenFrame(token.into()), inventory, held: Vec::new() }
}

struct Api {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    fn new(server: &Server) -> Self {
        let client = reqwest::Client::builder().build().unwrap();
        Self { client, base: format!("http://{}", server.local_addr()), token: String::new() }
    }

    async fn call(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = patiently(request.send()).await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call(reqwest::Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(reqwest::Method::POST, path, Some(body)).await
    }

    async fn sign_in(&mut self, agent: &mut Agent) {
        let body = json!({ "username": "ada", "password": PASSWORD });
        let (answer, ()) = tokio::join!(self.post("/api/login", body), async {
            let Request { id, body, .. } = agent.request().await;
            let RequestBody::Verify { credentials, .. } = body else { panic!("not a verification") };
            assert_eq!(credentials.0.expose_password(), PASSWORD);
            agent.reply(id, Outcome::Ok(ReplyBody::Done)).await;
        });
        assert_eq!(answer.0, 200, "{}", answer.1);
        self.token = answer.1["token"].as_str().unwrap().into();
    }

    async fn follow(&self, id: DeploymentId, from: u64) -> Vec<Value> {
        let url = format!("{}/ws/deployments/{id}?from={from}", self.base.replacen("http", "ws", 1));
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {}", self.token).parse().unwrap());
        let (mut stream, _) = connect_async(request).await.unwrap();
        patiently(async {
            let mut lines = Vec::new();
            while let Some(Ok(message)) = stream.next().await {
                if let Message::Text(text) = message {
                    lines.extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
                }
            }
            lines
        })
        .await
    }
}

#[tokio::test]
async fn a_deployment_is_sent_followed_and_kept_and_no_secret_touches_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    let token = server.enrol(&"micro".parse().unwrap()).await.unwrap();
    let mut agent = Agent::connect(&server, token.expose_secret()).await;
    let mut api = Api::new(&server);
    api.sign_in(&mut agent).await;

    assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    let body = json!({ "repo": "eredar", "branch": "feature/x" });
    let ((status, deployment), ()) = tokio::join!(api.post("/api/sandboxes/pay/deployments", body), async {
        let Request { id, body, .. } = agent.request().await;
        assert!(matches!(body, RequestBody::Deploy { credentials: Some(_), .. }));
        agent.reply(id, Outcome::Ok(ReplyBody::Done)).await;
    });
    assert_eq!(status, 202, "{deployment}");
    let id = serde_json::from_value::<Deployment>(deployment).unwrap().id;

    let state = |state: &str| json!({ "type": "state", "state": state });
    let states = ["source", "build", "start", "health", "routes", "running"].map(state);
    let (early, ()) = tokio::join!(api.follow(id, 1), async {
        agent.events(id, 1, &states[..2]).await;
        agent.events(id, 3, &states[2..]).await;
    });
    assert_eq!(early.len(), 7, "{early:?}");
    assert_eq!(early[6], json!({ "type": "end", "state": "running", "last": 6 }));
    assert_eq!(api.follow(id, 1).await, early, "who comes late sees the same");
    assert_eq!(api.follow(id, 5).await, early[4..]);
    assert_eq!(api.get(&format!("/api/deployments/{id}")).await.1["state"], "running");
    assert_eq!(api.get("/api/sandboxes/pay").await.1["deployments"][0]["id"], id.to_string());

    for path in std::fs::read_dir(dir.path()).unwrap().chain(std::fs::read_dir(dir.path().join("logs")).unwrap()) {
        let Ok(bytes) = std::fs::read(path.unwrap().path()) else { continue };
        for secret in [PASSWORD, token.expose_secret(), &api.token] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
    }
    server.shutdown().await;
}

#[tokio::test]
async fn what_is_no_valid_hello_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    let token = server.enrol(&"micro".parse().unwrap()).await.unwrap();
    let newer = Hello { protocol: 9, oldest_protocol: 8, ..hello(token.expose_secret()) };
    let text = |hello| match AgentFrame::Hello(Box::new(hello)).encode() {
        WireMessage::Text(text) => text,
        WireMessage::Binary(_) => panic!("a hello is text"),
    };
    for (message, code) in [
        (text(hello("sdpa_wrong")), ErrorCode::NotAllowed),
        (text(newer), ErrorCode::Unsupported),
        ("not json".into(), ErrorCode::BadRequest),
        (r#"{"type":"telepathy"}"#.into(), ErrorCode::BadRequest),
    ] {
        let mut agent = Agent::dial(&server).await;
        agent.0.send(Message::text(message)).await.unwrap();
        let ServerFrame::Refused(problem) = agent.frame().await else { panic!("not refused") };
        assert_eq!(problem.code, code, "{problem}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn errors_are_problems_that_name_the_field() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    let token = server.enrol(&"micro".parse().unwrap()).await.unwrap();
    let mut agent = Agent::connect(&server, token.expose_secret()).await;
    let mut api = Api::new(&server);
    assert_eq!(api.get("/api/me").await.0, 401);
    api.sign_in(&mut agent).await;
    for (path, body, status, field) in [
        ("/api/deployments", json!({ "repo": "../x", "branch": "main" }), 422, "repo"),
        ("/api/deployments", json!({ "repo": "eredar", "branch": "--x" }), 422, "branch"),
        ("/api/deployments", json!({ "repo": "eredar", "branch": "main", "host_port": 0 }), 422, "host_port"),
        ("/api/deployments", json!({ "repo": "nobody", "branch": "main" }), 404, "repo"),
        ("/api/sandboxes", json!({ "name": "A b" }), 422, "name"),
        ("/api/sandboxes/A/deployments", json!({ "repo": "eredar", "branch": "main" }), 422, "name"),
    ] {
        let (got, problem) = api.post(path, body).await;
        assert_eq!((got, problem["field"].as_str()), (status, Some(field)), "{problem}");
        serde_json::from_value::<Problem>(problem).unwrap();
    }
    assert_eq!(api.get("/api/nothing").await.1["code"], "not-found");
    assert_eq!(api.call(reqwest::Method::DELETE, "/api/me", None).await.1["status"], 405);
    assert_eq!(api.get("/api/deployments/x").await.1["field"], "id");
    assert_eq!(api.get("/api/deployments?limit=0").await.1["field"], "limit");
    drop(agent);
    server.shutdown().await;
}
