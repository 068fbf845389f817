//! The control plane over its own protocols: an agent's WebSocket in, followers' WebSockets out.

use std::{path::Path, time::Instant};

use futures_util::{SinkExt, StreamExt};
use sdp_core::{
    DeploymentId, Inventory, RecipeKind, RepoInfo,
    protocol::{
        AgentFrame, EventBatch, Frame, Hello, Outcome as Answer, Reply, ReplyBody, ServerFrame, TokenFrame, VERSION,
        WireMessage,
    },
};
use sdp_server::{Server, ServerConfig};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::load::{Acks, Lines, Load, Outcome, Seen};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(crate) async fn run(load: &Load, dir: &Path) -> Outcome {
    // On a runtime of its own, as a process of its own would be.
    let (config, runtime) = (
        ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), data_dir: dir.into(), ..ServerConfig::default() },
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap(),
    );
    let server = runtime.spawn(Server::bind(config)).await.unwrap().unwrap();
    let base = server.local_addr().to_string();
    let token = server.enrol(&"bench".parse().unwrap()).await.unwrap();
    let mut agent = greet(&base, token.expose_secret()).await;
    let (user, deployment) = deployment(&base, &mut agent).await;

    let began = Instant::now();
    let mut lines = Lines::new(load.lines, began);
    let mut readers = Vec::new();
    for _ in 0..load.subscribers {
        readers.push(tokio::spawn(follow(subscribe(&base, &user, deployment).await, load.lines, began)));
    }
    let (mut sender, mut receiver) = agent.split();
    let (acks, counting, total) = (Acks::default(), Acks::default(), load.lines);
    let acking = {
        let counting = acks.clone();
        tokio::spawn(async move {
            let mut acked = 0;
            while acked < total {
                if let ServerFrame::Ack { seq, .. } = read(&mut receiver).await {
                    counting.reach(seq);
                    acked = seq;
                }
            }
        })
    };
    drop(counting);
    let start = Instant::now();
    let mut sent = 0;
    while sent < load.lines {
        if !acks.has_room(sent) {
            sender.flush().await.unwrap();
            acks.room(sent).await;
        }
        let batch = EventBatch::new(deployment, sent + 1, lines.take(sent, load.per_message)).unwrap();
        let WireMessage::Binary(bytes) = AgentFrame::Events(batch).encode() else { panic!("events are binary") };
        sender.feed(Message::Binary(bytes)).await.unwrap();
        sent += load.per_message;
    }
    sender.flush().await.unwrap();
    acks.all(load.lines).await;
    let mut outcome = Outcome::default();
    for reader in readers {
        outcome.latencies.extend(reader.await.unwrap().latencies);
    }
    outcome.elapsed = start.elapsed();
    acking.await.unwrap();
    let start = Instant::now();
    follow(subscribe(&base, &user, deployment).await, load.lines, began).await;
    outcome.replay = start.elapsed();
    drop(sender);
    runtime.spawn(server.shutdown()).await.unwrap();
    runtime.shutdown_background();
    outcome
}

async fn read(
    socket: &mut (impl StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin),
) -> ServerFrame {
    loop {
        if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
            return ServerFrame::decode(&WireMessage::Text(text.as_str().into())).unwrap();
        }
    }
}

async fn send(socket: &mut Socket, frame: AgentFrame) {
    let WireMessage::Text(text) = frame.encode() else { panic!("only events are binary") };
    socket.send(Message::text(text)).await.unwrap();
}

async fn greet(base: &str, token: &str) -> Socket {
    let (mut socket, _) = connect_async(format!("ws://{base}/ws/agent")).await.unwrap();
    let repo =
        RepoInfo { name: "bench".parse().unwrap(), service: None, recipe: RecipeKind::Command, url_prefix: None };
    let hello = Hello {
        protocol: VERSION,
        oldest_protocol: VERSION,
        agent: "bench".parse().unwrap(),
        token: TokenFrame(token.into()),
        inventory: Inventory {
            version: "0".into(),
            advertise: "127.0.0.1".into(),
            deployer: "process".into(),
            repos: vec![repo],
            gateway: None,
        },
        held: Vec::new(),
    };
    send(&mut socket, AgentFrame::Hello(Box::new(hello))).await;
    assert!(matches!(read(&mut socket).await, ServerFrame::Welcome(_)));
    socket
}

/// Signs in and deploys, with this agent saying yes to everything.
async fn deployment(base: &str, agent: &mut Socket) -> (String, DeploymentId) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let login = client.post(format!("http://{base}/api/login")).json(&json!({"username": "ada", "password": "bench"}));
    let login: Value = saying_yes(agent, login).await;
    let token = login["token"].as_str().unwrap().to_owned();
    let deploy = client
        .post(format!("http://{base}/api/deployments"))
        .bearer_auth(&token)
        .json(&json!({"repo": "bench", "branch": "main"}));
    let deployment: Value = saying_yes(agent, deploy).await;
    (token, deployment["id"].as_str().unwrap().parse().unwrap())
}

async fn saying_yes(agent: &mut Socket, request: reqwest::RequestBuilder) -> Value {
    let asking =
        tokio::spawn(async move { request.send().await.unwrap().error_for_status().unwrap().json().await.unwrap() });
    let ServerFrame::Request(request) = read(agent).await else { panic!("not a request") };
    send(agent, AgentFrame::Reply(Reply { id: request.id, outcome: Answer::Ok(ReplyBody::Done) })).await;
    asking.await.unwrap()
}

async fn subscribe(base: &str, token: &str, deployment: DeploymentId) -> Socket {
    let mut request = format!("ws://{base}/ws/deployments/{deployment}").into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    connect_async(request).await.unwrap().0
}

async fn follow(mut socket: Socket, lines: u64, began: Instant) -> Seen {
    let mut seen = Seen::new(began);
    while seen.lines < lines {
        if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
            seen.message(text.as_bytes());
        }
    }
    seen
}
