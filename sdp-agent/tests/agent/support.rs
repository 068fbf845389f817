//! A control plane that does what a test's script says.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use sdp_agent::{Agent, AgentConfig, Parts, link::Timing};
use sdp_core::{
    Deployer, DeploymentId, DeploymentState, Event, EventKind, InstanceKey, Problem, RepoSource,
    config::Layers,
    protocol::{
        AgentFrame, CredentialsFrame, EventBatch, Frame, Hello, Outcome, Reply, ReplyBody, Request, RequestBody,
        ServerFrame, Welcome, WireMessage,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

pub(crate) const TOKEN: &str = "the-enrolment-token";

/// Long enough for the slowest machine: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn patiently<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    patiently(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// The events of every deployment, as a server keeps them.
pub(crate) type Log = BTreeMap<DeploymentId, Vec<Event>>;

pub(crate) fn states(log: &Log, deployment: DeploymentId) -> Vec<DeploymentState> {
    let state = |event: &Event| match &event.kind {
        EventKind::State { state, .. } => Some(*state),
        _ => None,
    };
    log.get(&deployment).into_iter().flatten().filter_map(state).collect()
}

pub(crate) fn failure(log: &Log, deployment: DeploymentId) -> sdp_core::Failure {
    let failure = |event: &Event| match &event.kind {
        EventKind::State { failure, .. } => failure.clone(),
        _ => None,
    };
    log[&deployment].iter().find_map(failure).expect("a failure")
}

pub(crate) struct Server {
    listener: TcpListener,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws/agent", self.listener.local_addr().unwrap())
    }

    /// Answers the next connection as a server does that admits nobody.
    pub(crate) async fn reject(&self) {
        let (mut stream, _) = patiently("a connection", self.listener.accept()).await.unwrap();
        let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.ok();
    }

    /// The next connection and its hello.
    pub(crate) async fn accept(&self) -> Connection {
        patiently("a connection", async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let socket = accept_async(stream).await.unwrap();
            let mut connection =
                Connection { socket, hello: None, requests: 0, acks: true, log: Log::new(), inventories: Vec::new() };
            match connection.frame().await {
                AgentFrame::Hello(hello) => connection.hello = Some(*hello),
                other => panic!("not a hello: {other:?}"),
            }
            connection
        })
        .await
    }

    /// The next connection, welcomed, with what an earlier one had of the log.
    pub(crate) async fn welcome(&self, log: Log) -> Connection {
        let mut connection = self.accept().await;
        let acked = log.iter().map(|(deployment, events)| (deployment.to_string(), events.len() as u64)).collect();
        connection.log = log;
        connection.send(&ServerFrame::Welcome(Welcome { protocol: 1, server: "0".into(), acked })).await;
        connection
    }
}

pub(crate) struct Connection {
    socket: WebSocketStream<TcpStream>,
    hello: Option<Hello>,
    requests: u64,
    /// Whether batches are acknowledged.
    pub(crate) acks: bool,
    pub(crate) log: Log,
    pub(crate) inventories: Vec<sdp_core::Inventory>,
}

impl Connection {
    pub(crate) fn hello(&self) -> &Hello {
        self.hello.as_ref().unwrap()
    }

    pub(crate) async fn send(&mut self, frame: &ServerFrame) {
        let WireMessage::Text(text) = frame.encode() else { panic!("server frames are text") };
        self.send_raw(Message::text(text)).await;
    }

    pub(crate) async fn send_raw(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Sends to an agent that may hang up meanwhile.
    pub(crate) async fn send_unheeded(&mut self, message: Message) {
        self.socket.send(message).await.ok();
    }

    /// The next frame; events are kept, and acknowledged if they are to be.
    pub(crate) async fn frame(&mut self) -> AgentFrame {
        let message = patiently("a frame", async {
            loop {
                match self.socket.next().await.expect("the agent is connected").expect("a message") {
                    Message::Text(text) => return WireMessage::Text(text.as_str().into()),
                    Message::Binary(bytes) => return WireMessage::Binary(bytes),
                    Message::Close(_) => panic!("the agent closed the connection"),
                    _ => {}
                }
            }
        });
        let frame = AgentFrame::decode(&message.await).unwrap();
        match &frame {
            AgentFrame::Events(batch) => self.keep(batch).await,
            AgentFrame::Inventory(inventory) => self.inventories.push((**inventory).clone()),
            _ => {}
        }
        frame
    }

    async fn keep(&mut self, batch: &EventBatch) {
        let events = self.log.entry(batch.deployment()).or_default();
        assert_eq!(batch.first(), events.len() as u64 + 1, "events come without gap or duplicate");
        events.extend(batch.events().unwrap());
        if self.acks {
            self.send(&ServerFrame::Ack { deployment: batch.deployment(), seq: batch.last() }).await;
        }
    }

    /// Reads frames until `holds`.
    pub(crate) async fn until(&mut self, mut holds: impl FnMut(&Self) -> bool) {
        while !holds(self) {
            self.frame().await;
        }
    }

    pub(crate) async fn until_state(&mut self, deployment: DeploymentId, state: DeploymentState) {
        self.until(|connection| states(&connection.log, deployment).contains(&state)).await;
    }

    /// Until the deployer builds, in the way that it was told to by then.
    pub(crate) async fn until_building(&mut self, deployment: DeploymentId) {
        let built = |event: &Event| matches!(&event.kind, EventKind::Log { line, .. } if line.starts_with("building"));
        self.until(|connection| connection.log.get(&deployment).is_some_and(|log| log.iter().any(built))).await;
    }

    pub(crate) async fn call(&mut self, body: RequestBody) -> Result<ReplyBody, Problem> {
        self.call_within(body, 30_000).await
    }

    pub(crate) async fn call_within(&mut self, body: RequestBody, deadline_ms: u64) -> Result<ReplyBody, Problem> {
        self.requests += 1;
        let id = self.requests;
        self.send(&ServerFrame::Request(Request { id, deadline_ms, body })).await;
        loop {
            match self.frame().await {
                AgentFrame::Reply(Reply { id: answered, outcome }) if answered == id => {
                    return match outcome {
                        Outcome::Ok(body) => Ok(body),
                        Outcome::Problem(problem) => Err(problem),
                    };
                }
                AgentFrame::Reply(reply) => panic!("an answer to nothing: {reply:?}"),
                _ => {}
            }
        }
    }

    pub(crate) async fn deploy(&mut self, key: &InstanceKey, branch: &str) -> DeploymentId {
        self.deploy_with(key, branch, None).await
    }

    pub(crate) async fn deploy_with(
        &mut self,
        key: &InstanceKey,
        branch: &str,
        credentials: Option<CredentialsFrame>,
    ) -> DeploymentId {
        let request = request(key, branch);
        let deployment = request.deployment;
        let done = self.call(RequestBody::Deploy { request: Box::new(request), credentials }).await;
        assert_eq!(done, Ok(ReplyBody::Done));
        deployment
    }
}

pub(crate) fn request(key: &InstanceKey, branch: &str) -> sdp_core::DeployRequest {
    sdp_core::DeployRequest::new(key.clone(), branch.parse().unwrap())
}

pub(crate) fn quick(repo: &str) -> InstanceKey {
    InstanceKey::quick(repo.parse().unwrap())
}

pub(crate) fn config_text(server: &Server, data_dir: &Path, more: &str) -> String {
    format!(
        "name = 'micro-92'\nserver = '{}'\ntoken_file = '-'\ndata_dir = '{}'\nadvertise = '127.0.0.1'\n{more}",
        server.url(),
        data_dir.display()
    )
}

pub(crate) fn config(server: &Server, data_dir: &Path, more: &str) -> AgentConfig {
    let text = config_text(server, data_dir, more);
    let token = vec![(sdp_agent::config::TOKEN_ENV.to_string(), TOKEN.to_string())];
    // On the smallest machine too, a build that hangs holds up no other, and no disk is too full.
    let flags =
        [("deployer.builds", "8"), ("deployer.min_free_mib", "0")].map(|(key, value)| (key.into(), value.into()));
    AgentConfig::load(Layers::new().file("sdp-agent.toml", text), token, &flags).unwrap()
}

/// Parts that reconnect at once.
pub(crate) fn parts(source: impl RepoSource + 'static, deployer: impl Deployer + 'static) -> Parts {
    let mut parts = Parts::new(Arc::new(source), Arc::new(deployer));
    parts.timing = Timing {
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
        farewell: Duration::from_millis(200),
        ..Timing::default()
    };
    parts
}

pub(crate) fn start(server: &Server, data_dir: &Path, parts: Parts) -> Agent {
    Agent::start_with(config(server, data_dir, ""), parts).unwrap()
}

/// An agent that can be killed.
pub(crate) struct Mortal {
    runtime: tokio::runtime::Runtime,
    agent: Agent,
}

impl Mortal {
    pub(crate) async fn start(config: AgentConfig, parts: Parts) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let agent = runtime.spawn(async { Agent::start_with(config, parts).unwrap() }).await.unwrap();
        Self { runtime, agent }
    }

    /// Ends it as a kill does: wherever it is, without a word.
    pub(crate) async fn kill(self) {
        let Self { runtime, agent } = self;
        tokio::task::spawn_blocking(move || {
            runtime.shutdown_timeout(PATIENCE);
            drop(agent);
        })
        .await
        .unwrap();
    }
}

pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
