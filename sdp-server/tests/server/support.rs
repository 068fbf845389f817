//! A server in a directory of its own, a scripted agent, a client of the HTTP API.

use std::{net::SocketAddr, pin::pin, time::Duration};

use futures_util::{SinkExt, StreamExt};
use reqwest::{Method, Response};
use sdp_core::protocol::{
    AgentFrame, EventBatch, Frame, HeldEvents, Hello, Outcome, Reply, ReplyBody, Request, RequestBody, ServerFrame,
    TokenFrame, WireMessage,
};
use sdp_core::{Deployment, DeploymentId, ErrorCode, GatewayInfo, Inventory, Problem, RecipeKind, RepoInfo};
use sdp_server::{Server, ServerConfig};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

pub(crate) const PASSWORD: &str = "correct-horse-battery";
pub(crate) const STATES: [&str; 6] = ["source", "build", "start", "health", "routes", "running"];

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The time a condition may take before the test has failed.
pub(crate) async fn patiently<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("waited in vain")
}

/// Asks again until the answer is as wanted.
pub(crate) async fn until<T, F: Future<Output = T>>(mut ask: impl FnMut() -> F, wanted: impl Fn(&T) -> bool) -> T {
    patiently(async {
        loop {
            let answer = ask().await;
            if wanted(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

pub(crate) struct Plane {
    pub(crate) server: Server,
    pub(crate) dir: TempDir,
    config: ServerConfig,
}

impl Plane {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(configure: impl FnOnce(&mut ServerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let mut config = ServerConfig { listen, data_dir: dir.path().into(), ..ServerConfig::default() };
        // A scripted agent is asked for its instances only where a test is about that.
        config.agents.reconcile = Duration::from_secs(3600);
        // Who signs in first, in most tests.
        config.auth.admins = ["ada".parse().unwrap()].into();
        configure(&mut config);
        Self { server: Server::bind(config.clone()).await.unwrap(), dir, config }
    }

    /// Stops the server and starts another one on what it left.
    pub(crate) async fn restarted(self) -> Self {
        self.restarted_with(|_| {}).await
    }

    pub(crate) async fn restarted_with(self, configure: impl FnOnce(&mut ServerConfig)) -> Self {
        let Self { server, dir, mut config } = self;
        configure(&mut config);
        server.shutdown().await;
        Self { server: Server::bind(config.clone()).await.unwrap(), dir, config }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    pub(crate) async fn enrol(&self, name: &str) -> SecretString {
        self.server.enrol(&name.parse().unwrap()).await.unwrap()
    }

    /// An enrolled and connected agent, and a client that is signed in through it.
    pub(crate) async fn ready(&self, inventory: Inventory) -> (Agent, Api, SecretString) {
        let token = self.enrol("micro").await;
        let hello = Hello { inventory, ..hello("micro", &token) };
        let mut agent = Agent::greet(self.address(), hello).await;
        let api = Api::sign_in(self.address(), &mut agent, "ada").await;
        (agent, api, token)
    }
}

pub(crate) fn repo(name: &str) -> RepoInfo {
    let name = name.parse().unwrap();
    RepoInfo { name, service: Some("eredar".parse().unwrap()), recipe: RecipeKind::Go, url_prefix: None }
}

pub(crate) fn inventory(repos: &[&str]) -> Inventory {
    Inventory {
        version: "0".into(),
        advertise: "127.0.0.1".into(),
        deployer: "process".into(),
        repos: repos.iter().map(|name| repo(name)).collect(),
        port_range: None,
        gateway: None,
        exact_commits: true,
        serves_beside: true,
        exec: Some(true),
    }
}

pub(crate) fn with_gateway() -> Inventory {
    let gateway =
        GatewayInfo { repo: "erangel-ocean".parse().unwrap(), branch: None, per_request: false, own_gateways: false };
    Inventory { gateway: Some(gateway), ..inventory(&["eredar", "erangel-ocean"]) }
}

pub(crate) fn hello(agent: &str, token: &SecretString) -> Hello {
    Hello {
        protocol: 1,
        oldest_protocol: 1,
        agent: agent.parse().unwrap(),
        token: TokenFrame(token.clone()),
        inventory: inventory(&["eredar"]),
        held: Vec::new(),
    }
}

pub(crate) fn held(deployment: DeploymentId, last: u64) -> HeldEvents {
    HeldEvents { deployment, first: 1, last, state: sdp_core::DeploymentState::Build }
}

/// An agent's answer that all went well.
pub(crate) fn done(_: &RequestBody) -> Outcome {
    Outcome::Ok(ReplyBody::Done)
}

/// An agent's answer that it cannot.
pub(crate) fn refused(code: ErrorCode, sentence: &str) -> Outcome {
    Outcome::Problem(Problem::new(code, sentence))
}

pub(crate) fn states(names: &[&str]) -> Vec<Value> {
    names.iter().map(|state| json!({ "type": "state", "state": state })).collect()
}

pub(crate) fn batch(id: DeploymentId, first: u64, events: &[Value]) -> EventBatch {
    let line = |(seq, event): (u64, &Value)| {
        let mut event = event.clone();
        event["seq"] = seq.into();
        event["at"] = "2026-01-02T03:04:05Z".into();
        format!("{event}\n")
    };
    let text: String = (first..).zip(events).map(line).collect();
    EventBatch::new(id, first, text.into()).unwrap()
}

/// An agent that does nothing of itself, not even answer pings, while nobody reads from it.
pub(crate) struct Agent(pub(crate) Socket);

impl Agent {
    pub(crate) async fn dial(server: SocketAddr) -> Self {
        Self(connect_async(format!("ws://{server}/ws/agent")).await.unwrap().0)
    }

    pub(crate) async fn greet(server: SocketAddr, hello: Hello) -> Self {
        Self::welcomed(server, hello).await.0
    }

    /// Connects, and gives what the server has of the agent's events.
    pub(crate) async fn welcomed(server: SocketAddr, hello: Hello) -> (Self, std::collections::BTreeMap<String, u64>) {
        let mut agent = Self::dial(server).await;
        agent.send(AgentFrame::Hello(Box::new(hello))).await;
        match agent.frame().await {
            ServerFrame::Welcome(welcome) => (agent, welcome.acked),
            other => panic!("not welcomed: {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, frame: AgentFrame) {
        let message = match frame.encode() {
            WireMessage::Text(text) => Message::text(text),
            WireMessage::Binary(bytes) => Message::Binary(bytes),
        };
        self.0.send(message).await.unwrap();
    }

    pub(crate) async fn frame(&mut self) -> ServerFrame {
        patiently(async {
            loop {
                if let Message::Text(text) = self.0.next().await.unwrap().unwrap() {
                    return ServerFrame::decode(&WireMessage::Text(text.as_str().into())).unwrap();
                }
            }
        })
        .await
    }

    pub(crate) async fn refusal(&mut self) -> Problem {
        match self.frame().await {
            ServerFrame::Refused(problem) => problem,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Waits until the server has ended the connection.
    pub(crate) async fn gone(&mut self) {
        patiently(async { while let Some(Ok(_)) = self.0.next().await {} }).await;
    }

    pub(crate) async fn request(&mut self) -> Request {
        match self.frame().await {
            ServerFrame::Request(request) => request,
            other => panic!("not a request: {other:?}"),
        }
    }

    pub(crate) async fn reply(&mut self, id: u64, outcome: Outcome) {
        self.send(AgentFrame::Reply(Reply { id, outcome })).await;
    }

    /// Answers what the server asks until `call` is done.
    pub(crate) async fn during<T>(
        &mut self,
        call: impl Future<Output = T>,
        mut answer: impl FnMut(&RequestBody) -> Outcome,
    ) -> T {
        let mut call = pin!(call);
        loop {
            tokio::select! {
                biased;
                result = &mut call => return result,
                Request { id, body, .. } = self.request() => {
                    let outcome = answer(&body);
                    self.reply(id, outcome).await;
                }
            }
        }
    }

    /// Answers what the server asks for as long as it asks.
    pub(crate) async fn serve(&mut self, answer: impl FnMut(&RequestBody) -> Outcome) {
        self.during(std::future::pending::<()>(), answer).await;
    }

    /// Sends events and waits until they are acknowledged.
    pub(crate) async fn events(&mut self, id: DeploymentId, first: u64, events: &[Value]) {
        let batch = batch(id, first, events);
        let seq = batch.last();
        self.send(AgentFrame::Events(batch)).await;
        let answer = loop {
            match self.frame().await {
                // The server may look at what runs meanwhile.
                ServerFrame::Request(request) => self.reply(request.id, refused(ErrorCode::Timeout, "busy")).await,
                answer => break answer,
            }
        };
        assert_eq!(answer, ServerFrame::Ack { deployment: id, seq });
    }

    /// Has `body` deployed as far as the agent's promise to do it.
    pub(crate) async fn accepts(&mut self, api: &Api, path: &str, body: Value) -> Deployment {
        let (status, deployment) = self.during(api.post(path, body), done).await;
        assert_eq!(status, 202, "{deployment}");
        serde_json::from_value(deployment).unwrap()
    }

    /// Has a branch of `eredar` deployed until it runs.
    pub(crate) async fn runs(&mut self, api: &Api, path: &str) -> Deployment {
        let deployment = self.accepts(api, path, json!({ "repo": "eredar", "branch": "feature/x" })).await;
        let mut events = states(&STATES);
        let endpoint =
            json!({ "type": "endpoint", "host_port": 7001, "url": "http://vm.example:7001", "instance": "c" });
        events.insert(3, endpoint);
        self.events(deployment.id, 1, &events).await;
        deployment
    }
}

pub(crate) struct Api {
    client: reqwest::Client,
    server: SocketAddr,
    pub(crate) token: String,
}

impl Api {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self { client: reqwest::Client::builder().build().unwrap(), server, token: String::new() }
    }

    pub(crate) async fn sign_in(server: SocketAddr, agent: &mut Agent, user: &str) -> Self {
        let mut api = Self::new(server);
        let login = api.post("/api/login", json!({ "username": user, "password": PASSWORD }));
        let check = |body: &RequestBody| {
            let RequestBody::Verify { credentials, .. } = body else { return refused(ErrorCode::Timeout, "busy") };
            assert_eq!(credentials.0.expose_password(), PASSWORD);
            Outcome::Ok(ReplyBody::Done)
        };
        let (status, answer) = agent.during(login, check).await;
        assert_eq!(status, 200, "{answer}");
        api.token = answer["token"].as_str().unwrap().into();
        api
    }

    /// Sends a request as it is.
    pub(crate) async fn raw(&self, method: Method, path: &str, headers: &[(&str, &str)], body: String) -> Response {
        let mut request = self.client.request(method, format!("http://{}{path}", self.server)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        patiently(request.send()).await.unwrap()
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let bearer = format!("Bearer {}", self.token);
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(body.as_ref().map(|_| ("content-type", "application/json")));
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let answer = self.raw(method, path, &headers, body).await;
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (u16, Value) {
        self.call(Method::DELETE, path, None).await
    }

    pub(crate) async fn state(&self, id: DeploymentId) -> Value {
        self.get(&format!("/api/deployments/{id}")).await.1["state"].clone()
    }

    /// Opens a WebSocket, or says with which status it was refused.
    pub(crate) async fn socket(&self, path: &str, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
        let mut request = format!("ws://{}{path}", self.server).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match patiently(connect_async(request)).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn stream(&self, id: DeploymentId, query: &str) -> Socket {
        let bearer = format!("Bearer {}", self.token);
        self.socket(&format!("/ws/deployments/{id}{query}"), &[("authorization", &bearer)]).await.unwrap()
    }

    /// Every line of a deployment's stream, and how it was closed.
    pub(crate) async fn follow(&self, id: DeploymentId, from: u64) -> Vec<Value> {
        let mut stream = self.stream(id, &format!("?from={from}")).await;
        let (lines, close) = drain(&mut stream).await;
        assert_eq!(close.map(|close| close.code), Some(CloseCode::Normal));
        lines
    }
}

pub(crate) async fn drain(stream: &mut Socket) -> (Vec<Value>, Option<CloseFrame>) {
    patiently(async {
        let mut lines = Vec::new();
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Text(text) => {
                    lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()))
                }
                Message::Close(frame) => return (lines, frame),
                _ => {}
            }
        }
        (lines, None)
    })
    .await
}

/// Whether any file below `dir` holds `secret`.
pub(crate) fn on_disk(dir: &std::path::Path, secret: &str) -> bool {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return on_disk(&path, secret);
        }
        std::fs::read(path).unwrap().windows(secret.len()).any(|window| window == secret.as_bytes())
    })
}

pub(crate) fn exposed(token: &SecretString) -> &str {
    token.expose_secret()
}

/// A deployment of bob's into a sandbox, as if it had been there.
pub(crate) fn left(id: DeploymentId, sandbox: &str, state: sdp_core::DeploymentState) -> Deployment {
    Deployment {
        id,
        key: sdp_core::InstanceKey::in_sandbox(sandbox.parse().unwrap(), "eredar".parse().unwrap()),
        branch: "main".parse().unwrap(),
        commit: None,
        agent: "micro".parse().unwrap(),
        state,
        failure: None,
        host_port: None,
        url: None,
        env: Default::default(),
        user: "bob".parse().unwrap(),
        created_at: jiff::Timestamp::now(),
        finished_at: None,
        rollback_of: None,
        stages: Vec::new(),
    }
}
