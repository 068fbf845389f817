//! Slow readers: what they cost who writes, and the server's memory.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use sdp_benches::median;
use sdp_core::{
    DeploymentId, Inventory, RecipeKind, RepoInfo,
    protocol::{
        AgentFrame, EventBatch, Frame, Hello, Outcome, Reply, ReplyBody, ServerFrame, TokenFrame, VERSION, WireMessage,
    },
};
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async, connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::process::Server;

/// How many read slowly; one more never reads.
const READERS: usize = 100;
const LINES: u64 = 200_000;
const PER_MESSAGE: u64 = 10;
/// How many messages may wait for their acknowledgement.
const WINDOW: u64 = 200;
const ROUNDS: usize = 5;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(crate) async fn run() {
    let (server, tokens) = Server::start(&["bench".to_owned()]).await;
    let base = server.address.to_string();
    let mut agent = greet(&base, &tokens[0]).await;
    let user = sign_in(&base, &mut agent).await;
    let (mut without, mut with, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    // The first one warms up.
    for round in 0..=ROUNDS {
        let quiet = ingest(&base, &user, &mut agent, 0, &server).await;
        let watched = ingest(&base, &user, &mut agent, READERS, &server).await;
        if round > 0 {
            without.push(quiet.0);
            with.push(watched.0);
            memory.push(watched.1.saturating_sub(quiet.1));
        }
    }
    memory.sort_unstable();
    let (without, with) = (median(without), median(with));
    let speed = |time: Duration| LINES as f64 / time.as_secs_f64() / 1e3;
    println!(
        "{READERS} readers of 1 KiB/s and one that never reads: {:.0} k lines/s instead of {:.0} ({:+.1} %),",
        speed(with),
        speed(without),
        (without.as_secs_f64() / with.as_secs_f64() - 1.0) * 100.0
    );
    println!("  {:.1} MiB more memory in all", memory[memory.len() / 2] as f64 / 1024.0);
}

/// Writes a log with so many slow readers: how long that took, and the server's memory after it, in KiB.
async fn ingest(base: &str, user: &str, agent: &mut Socket, readers: usize, server: &Server) -> (Duration, u64) {
    let deployment = deployment(base, user, agent).await;
    let mut reading: Vec<JoinHandle<()>> = Vec::new();
    for number in 0..readers + usize::from(readers > 0) {
        let stream = subscribe(base, user, deployment).await;
        reading.push(tokio::spawn(read_slowly(stream, number < readers)));
    }
    let text = "x".repeat(110);
    let batch = |first: u64| {
        let lines: String = (first..first + PER_MESSAGE)
            .map(|seq| format!("{{\"seq\":{seq},\"at\":\"2026-01-02T03:04:05Z\",\"type\":\"log\",\"stage\":\"build\",\"stream\":\"stdout\",\"line\":\"{text}\"}}\n"))
            .collect();
        let batch = EventBatch::new(deployment, first, lines.into()).unwrap();
        let WireMessage::Binary(bytes) = AgentFrame::Events(batch).encode() else { panic!("events are binary") };
        Message::Binary(bytes)
    };
    let messages: Vec<_> = (0..LINES / PER_MESSAGE).map(|number| batch(number * PER_MESSAGE + 1)).collect();
    let began = Instant::now();
    let (mut sent, mut acked) = (0, 0);
    for message in messages {
        while sent - acked >= WINDOW * PER_MESSAGE {
            acked = ack(agent).await;
        }
        agent.send(message).await.unwrap();
        sent += PER_MESSAGE;
    }
    while acked < LINES {
        acked = ack(agent).await;
    }
    let took = began.elapsed();
    let resident = server.resident();
    reading.iter().for_each(JoinHandle::abort);
    (took, resident)
}

async fn ack(agent: &mut Socket) -> u64 {
    loop {
        if let ServerFrame::Ack { seq, .. } = read(agent).await {
            return seq;
        }
    }
}

/// Bytes off the socket, a KiB a second, or none.
async fn read_slowly(mut stream: TcpStream, reads: bool) {
    let mut bytes = [0; 1024];
    while reads && stream.read(&mut bytes).await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    std::future::pending::<()>().await;
}

async fn read(socket: &mut Socket) -> ServerFrame {
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
    let inventory = Inventory {
        version: "0".into(),
        advertise: "127.0.0.1".into(),
        deployer: "process".into(),
        repos: vec![repo],
        gateway: None,
    };
    let (agent, token) = ("bench".parse().unwrap(), TokenFrame(token.to_owned().into()));
    let hello = Hello { protocol: VERSION, oldest_protocol: VERSION, agent, token, inventory, held: Vec::new() };
    send(&mut socket, AgentFrame::Hello(Box::new(hello))).await;
    assert!(matches!(read(&mut socket).await, ServerFrame::Welcome(_)));
    socket
}

async fn sign_in(base: &str, agent: &mut Socket) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let login = client.post(format!("http://{base}/api/login")).json(&json!({"username": "ada", "password": "bench"}));
    saying_yes(agent, login).await["token"].as_str().unwrap().to_owned()
}

async fn deployment(base: &str, user: &str, agent: &mut Socket) -> DeploymentId {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let deploy = client.post(format!("http://{base}/api/deployments")).bearer_auth(user);
    let deployment = saying_yes(agent, deploy.json(&json!({"repo": "bench", "branch": "main"}))).await;
    deployment["id"].as_str().unwrap().parse().unwrap()
}

async fn saying_yes(agent: &mut Socket, request: reqwest::RequestBuilder) -> Value {
    let asking = tokio::spawn(async move { request.send().await.unwrap().error_for_status().unwrap().json().await });
    let ServerFrame::Request(request) = read(agent).await else { panic!("not a request") };
    send(agent, AgentFrame::Reply(Reply { id: request.id, outcome: Outcome::Ok(ReplyBody::Done) })).await;
    asking.await.unwrap().unwrap()
}

/// An upgraded connection that takes little before the reader does.
async fn subscribe(base: &str, user: &str, deployment: DeploymentId) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let stream = socket.connect(base.parse().unwrap()).await.unwrap();
    let mut request = format!("ws://{base}/ws/deployments/{deployment}").into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {user}").parse().unwrap());
    client_async(request, stream).await.unwrap().0.into_inner()
}
