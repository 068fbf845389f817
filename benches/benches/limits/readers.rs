//! Slow readers: what they cost who writes, and the server's memory.

use std::time::{Duration, Instant};

use sdp_benches::{agent::Agent, median, websocket};
use sdp_core::protocol::{AgentFrame, EventBatch};
use tokio::{io::AsyncReadExt, net::TcpStream, task::JoinHandle};

use super::process::Server;

/// How many read slowly; one more never reads.
const READERS: usize = 100;
const LINES: u64 = 500_000;
const PER_MESSAGE: u64 = 10;
/// How many messages may wait for their acknowledgement.
const WINDOW: u64 = 200;
const ROUNDS: usize = 11;

pub(crate) async fn run() {
    let (server, tokens) = Server::start(&["bench".to_owned()]).await;
    let mut agent = Agent::greet(server.address, "bench", &tokens[0]).await;
    let user = agent.sign_in(server.address).await;
    let (mut without, mut with, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    // The first one warms up.
    for round in 0..=ROUNDS {
        let quiet = ingest(&user, &mut agent, 0, &server).await;
        let watched = ingest(&user, &mut agent, READERS, &server).await;
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
async fn ingest(user: &str, agent: &mut Agent, readers: usize, server: &Server) -> (Duration, u64) {
    let deployment = agent.deployment(server.address, user).await;
    let path = format!("/ws/deployments/{deployment}");
    let mut reading: Vec<JoinHandle<()>> = Vec::new();
    for number in 0..readers + usize::from(readers > 0) {
        let stream = websocket::connect_narrow(server.address, &path, Some(user)).await;
        reading.push(tokio::spawn(read_slowly(stream, number < readers)));
    }
    let text = "x".repeat(110);
    let batch = |first: u64| {
        let lines: String = (first..first + PER_MESSAGE)
            .map(|seq| format!("{{\"seq\":{seq},\"at\":\"2026-01-02T03:04:05Z\",\"type\":\"log\",\"stage\":\"build\",\"stream\":\"stdout\",\"line\":\"{text}\"}}\n"))
            .collect();
        AgentFrame::Events(EventBatch::new(deployment, first, lines.into()).unwrap())
    };
    let messages: Vec<_> = (0..LINES / PER_MESSAGE).map(|number| batch(number * PER_MESSAGE + 1)).collect();
    let began = Instant::now();
    let (mut sent, mut acked) = (0, 0);
    for message in messages {
        while sent - acked >= WINDOW * PER_MESSAGE {
            agent.writer.flush().await;
            acked = agent.reader.acked().await;
        }
        agent.writer.feed(&message).await;
        sent += PER_MESSAGE;
    }
    agent.writer.flush().await;
    while acked < LINES {
        acked = agent.reader.acked().await;
    }
    let took = began.elapsed();
    let resident = server.resident();
    reading.iter().for_each(JoinHandle::abort);
    (took, resident)
}

/// Bytes off the socket, a KiB a second, or none.
async fn read_slowly(mut stream: TcpStream, reads: bool) {
    let mut bytes = [0; 1024];
    while reads && stream.read(&mut bytes).await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    std::future::pending::<()>().await;
}
