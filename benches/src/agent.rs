//! An agent that says yes to everything, and the user who deploys with it.

use std::net::SocketAddr;

use sdp_core::{
    AgentName, DeploymentId, Inventory, RecipeKind, RepoInfo,
    protocol::{AgentFrame, Frame, Hello, Outcome, Reply, ReplyBody, ServerFrame, TokenFrame, VERSION, WireMessage},
};
use serde_json::{Value, json};

use crate::websocket::{self, Reader, Writer};

/// The repo that the agent declares.
const REPO: &str = "bench";

/// An agent's connection.
#[derive(Debug)]
pub struct Agent {
    /// What comes.
    pub reader: AgentReader,
    /// What goes.
    pub writer: AgentWriter,
}

/// The frames that come.
#[derive(Debug)]
pub struct AgentReader(Reader);

/// The frames that go.
#[derive(Debug)]
pub struct AgentWriter(Writer);

/// The hello of an agent.
pub fn hello(agent: AgentName, token: &str, repos: Vec<RepoInfo>) -> Box<Hello> {
    let inventory = Inventory {
        version: "0".into(),
        advertise: "127.0.0.1".into(),
        deployer: "process".into(),
        repos,
        port_range: None,
        gateway: None,
        exact_commits: false,
        serves_beside: false,
        exec: None,
    };
    let token = TokenFrame(token.to_owned().into());
    Box::new(Hello { protocol: VERSION, oldest_protocol: VERSION, agent, token, inventory, held: Vec::new() })
}

impl Agent {
    /// Connects.
    ///
    /// # Panics
    /// When it is not welcome, as everything here when something goes wrong.
    pub async fn greet(server: SocketAddr, name: &str, token: &str) -> Self {
        let (reader, writer) = websocket::connect(server, "/ws/agent", None).await;
        let mut agent = Self { reader: AgentReader(reader), writer: AgentWriter(writer) };
        let repo =
            RepoInfo { name: REPO.parse().unwrap(), service: None, recipe: RecipeKind::Command, url_prefix: None };
        agent.writer.send(&AgentFrame::Hello(hello(name.parse().unwrap(), token, vec![repo]))).await;
        assert!(matches!(agent.reader.next().await, ServerFrame::Welcome(_)));
        agent
    }

    /// Signs a user in: the bearer token.
    pub async fn sign_in(&mut self, server: SocketAddr) -> String {
        let login = json!({"username": "ada", "password": "bench"});
        let answer = self.saying_yes(client().post(format!("http://{server}/api/login")).json(&login)).await;
        answer["token"].as_str().unwrap().to_owned()
    }

    /// Has a deployment made.
    pub async fn deployment(&mut self, server: SocketAddr, user: &str) -> DeploymentId {
        let deploy = client().post(format!("http://{server}/api/deployments")).bearer_auth(user);
        let deployment = self.saying_yes(deploy.json(&json!({"repo": REPO, "branch": "main"}))).await;
        deployment["id"].as_str().unwrap().parse().unwrap()
    }

    async fn saying_yes(&mut self, request: reqwest::RequestBuilder) -> Value {
        let asking =
            tokio::spawn(async move { request.send().await.unwrap().error_for_status().unwrap().json().await });
        let ServerFrame::Request(request) = self.reader.next().await else { panic!("not a request") };
        self.writer.send(&AgentFrame::Reply(Reply { id: request.id, outcome: Outcome::Ok(ReplyBody::Done) })).await;
        asking.await.unwrap().unwrap()
    }
}

impl AgentReader {
    /// The next frame.
    pub async fn next(&mut self) -> ServerFrame {
        let text = str::from_utf8(&self.0.message().await).unwrap().to_owned();
        ServerFrame::decode(&WireMessage::Text(text)).unwrap()
    }

    /// How far the events of the one deployment are acknowledged, as soon as that is told.
    pub async fn acked(&mut self) -> u64 {
        loop {
            if let ServerFrame::Ack { seq, .. } = self.next().await {
                return seq;
            }
        }
    }
}

impl AgentWriter {
    /// Takes a frame into the buffer.
    pub async fn feed(&mut self, frame: &AgentFrame) {
        match frame.encode() {
            WireMessage::Text(text) => self.0.text(&text).await,
            WireMessage::Binary(bytes) => self.0.binary(&bytes).await,
        }
    }

    /// Sends what is in the buffer.
    pub async fn flush(&mut self) {
        self.0.flush().await;
    }

    async fn send(&mut self, frame: &AgentFrame) {
        self.feed(frame).await;
        self.flush().await;
    }
}

/// An HTTP client that asks nobody in between.
///
/// # Panics
/// When there can be none.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}
