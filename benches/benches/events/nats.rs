//! NATS JetStream with file storage and push consumers, on raw sockets.

use std::{fmt::Write as _, path::Path, process::Command, time::Instant};

use sdp_benches::wire::Wire;
use tokio::{
    io::{AsyncWriteExt, BufWriter},
    net::TcpStream,
};

use super::load::{Acks, Lines, Load, Outcome, Peer, Seen, dial, free_port};

/// Whether this machine's NATS can sync before it acknowledges (2.10 and newer).
pub(crate) fn can_sync_always() -> bool {
    let version = Command::new("nats-server").arg("--version").output().unwrap().stdout;
    let version = String::from_utf8_lossy(&version).into_owned();
    let numbers: Vec<u32> =
        version.rsplit('v').next().unwrap().trim().split('.').map_while(|n| n.parse().ok()).collect();
    numbers >= vec![2, 10]
}

pub(crate) async fn run(load: &Load, always: bool, dir: &Path) -> Outcome {
    let port = free_port();
    let sync = if always { "sync_interval: always" } else { "" };
    let config = format!(
        "listen: 127.0.0.1:{port}\nmax_pending: 256MB\njetstream {{ store_dir: {:?}\n {sync} }}\n",
        dir.join("js")
    );
    std::fs::write(dir.join("nats.conf"), config).unwrap();
    let mut command = Command::new("nats-server");
    command
        .arg("-c")
        .arg(dir.join("nats.conf"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let _peer = Peer(command.spawn().unwrap());

    let mut control = connect(port).await;
    let stream = r#"{"name":"S","subjects":["log"],"storage":"file","retention":"limits","num_replicas":1}"#;
    ask(&mut control, "$JS.API.STREAM.CREATE.S", stream).await;
    let began = Instant::now();
    let mut lines = Lines::new(load.lines, began);
    let mut readers = Vec::new();
    for n in 0..load.subscribers {
        readers.push(subscribe(port, &mut control, &format!("live{n}"), load.lines, began).await);
    }
    let (acks, per) = (Acks::new(load), load.per_message);
    let mut publisher = connect(port).await;
    publisher.get_mut().write_all(b"SUB a.* 1\r\n").await.unwrap();
    let (reader, writer) = publisher.into_inner().into_split();
    let (mut reader, mut writer) = (Wire::new(reader), BufWriter::with_capacity(128 * 1024, writer));
    let (counting, total) = (acks.clone(), load.lines);
    let acking = tokio::spawn(async move {
        let mut acked = 0;
        while acked < total {
            if reader.line().await.starts_with(b"MSG") {
                let answer = reader.line().await;
                assert!(
                    !answer.windows(7).any(|window| window == b"\"error\""),
                    "{}",
                    String::from_utf8_lossy(&answer)
                );
                counting.add(per);
                acked += per;
            }
        }
    });
    let start = Instant::now();
    let mut sent = 0;
    while sent < load.lines {
        if !acks.has_room(sent) {
            writer.flush().await.unwrap();
            acks.room(sent).await;
        }
        let message = lines.take(sent, per);
        writer.write_all(format!("PUB log a.{sent} {}\r\n", message.len()).as_bytes()).await.unwrap();
        writer.write_all(&message).await.unwrap();
        writer.write_all(b"\r\n").await.unwrap();
        sent += per;
    }
    writer.flush().await.unwrap();
    acks.all(load.lines).await;
    let mut outcome = Outcome::default();
    for reader in readers {
        outcome.latencies.extend(reader.await.unwrap().latencies);
    }
    outcome.elapsed = start.elapsed();
    acking.await.unwrap();
    let start = Instant::now();
    subscribe(port, &mut control, "replay", load.lines, began).await.await.unwrap();
    outcome.replay = start.elapsed();
    outcome
}

async fn connect(port: u16) -> Wire<TcpStream> {
    let mut reader = Wire::new(dial(port).await);
    reader.line().await;
    reader.get_mut().write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n").await.unwrap();
    while !reader.line().await.starts_with(b"PONG") {}
    reader
}

async fn ask(control: &mut Wire<TcpStream>, subject: &str, body: &str) {
    let mut command = String::new();
    write!(command, "SUB r 9\r\nUNSUB 9 1\r\nPUB {subject} r {}\r\n{body}\r\n", body.len()).unwrap();
    control.get_mut().write_all(command.as_bytes()).await.unwrap();
    while !control.line().await.starts_with(b"MSG") {}
    let answer = control.line().await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(!answer.contains("\"error\""), "{answer}");
}

/// An ordered consumer of everything: what a follower that must miss nothing is with JetStream.
async fn subscribe(
    port: u16,
    control: &mut Wire<TcpStream>,
    name: &str,
    lines: u64,
    began: Instant,
) -> tokio::task::JoinHandle<Seen> {
    let mut reader = connect(port).await;
    reader.get_mut().write_all(format!("SUB d.{name} 1\r\nPING\r\n").as_bytes()).await.unwrap();
    reader.line().await;
    let consumer = format!(
        r#"{{"stream_name":"S","config":{{"deliver_subject":"d.{name}","deliver_policy":"all","ack_policy":"none","max_deliver":1,"flow_control":true,"idle_heartbeat":5000000000}}}}"#
    );
    ask(control, "$JS.API.CONSUMER.CREATE.S", &consumer).await;
    tokio::spawn(async move {
        let mut seen = Seen::new(began);
        while seen.lines < lines {
            let line = reader.line().await;
            let text = String::from_utf8_lossy(&line);
            let mut words = text.split_whitespace();
            let kind = words.next();
            if kind != Some("MSG") {
                continue;
            }
            let len: usize = words.clone().last().unwrap().parse().unwrap();
            let reply = words.nth(2).filter(|reply| reply.contains("FC")).map(str::to_owned);
            let body = reader.take(len + 2).await;
            if len == 0 {
                // A flow-control request is answered; a heartbeat is not.
                if let Some(reply) = reply {
                    reader.get_mut().write_all(format!("PUB {reply} 0\r\n\r\n").as_bytes()).await.unwrap();
                }
                continue;
            }
            seen.message(&body[..len]);
        }
        seen
    })
}
