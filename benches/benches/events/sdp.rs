//! The control plane over its own protocols: an agent's WebSocket in, followers' WebSockets out.

use std::{net::SocketAddr, path::Path, time::Instant};

use sdp_benches::{
    agent::Agent,
    websocket::{self, Reader, Writer},
};
use sdp_core::{
    DeploymentId,
    protocol::{AgentFrame, EventBatch},
};
use sdp_server::{Server, ServerConfig};
use secrecy::ExposeSecret;

use super::load::{Acks, Lines, Load, Outcome, Seen};

pub(crate) async fn run(load: &Load, dir: &Path) -> Outcome {
    // On a runtime of its own, as a process of its own would be.
    let (config, runtime) = (
        ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), data_dir: dir.into(), ..ServerConfig::default() },
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap(),
    );
    let server = runtime.spawn(Server::bind(config)).await.unwrap().unwrap();
    let address = server.local_addr();
    let token = server.enrol(&"bench".parse().unwrap()).await.unwrap();
    let mut agent = Agent::greet(address, "bench", token.expose_secret()).await;
    let user = agent.sign_in(address).await;
    let deployment = agent.deployment(address, &user).await;

    let began = Instant::now();
    let mut lines = Lines::new(load.lines, began);
    let mut readers = Vec::new();
    for _ in 0..load.subscribers {
        readers.push(tokio::spawn(follow(subscribe(address, &user, deployment).await, load.lines, began)));
    }
    let Agent { mut reader, mut writer } = agent;
    let (acks, total) = (Acks::new(load), load.lines);
    let counting = acks.clone();
    let acking = tokio::spawn(async move {
        let mut acked = 0;
        while acked < total {
            acked = reader.acked().await;
            counting.reach(acked);
        }
        reader
    });
    let start = Instant::now();
    let mut sent = 0;
    while sent < load.lines {
        if !acks.has_room(sent) {
            writer.flush().await;
            acks.room(sent).await;
        }
        let batch = EventBatch::new(deployment, sent + 1, lines.take(sent, load.per_message)).unwrap();
        writer.feed(&AgentFrame::Events(batch)).await;
        sent += load.per_message;
    }
    writer.flush().await;
    acks.all(load.lines).await;
    let mut outcome = Outcome::default();
    for reader in readers {
        outcome.latencies.extend(reader.await.unwrap().latencies);
    }
    outcome.elapsed = start.elapsed();
    let _connection = (acking.await.unwrap(), writer);
    let start = Instant::now();
    follow(subscribe(address, &user, deployment).await, load.lines, began).await;
    outcome.replay = start.elapsed();
    runtime.spawn(server.shutdown()).await.unwrap();
    runtime.shutdown_background();
    outcome
}

async fn subscribe(server: SocketAddr, user: &str, deployment: DeploymentId) -> (Reader, Writer) {
    websocket::connect(server, &format!("/ws/deployments/{deployment}"), Some(user)).await
}

/// The writer is kept: without it, the server takes the reader for gone.
async fn follow((mut stream, _writer): (Reader, Writer), lines: u64, began: Instant) -> Seen {
    let mut seen = Seen::new(began);
    while seen.lines < lines {
        seen.message(&stream.message().await);
    }
    seen
}
