//! Long logs: finding a place in one, and starting with many.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
    time::{Duration, Instant},
};

use sdp_benches::median;
use sdp_core::DeploymentId;
use sdp_server::EventLogs;

use super::process::Server;

const GB: u64 = 1_000_000_000;
/// The distance of the places that are looked for.
const PLACES: u64 = 101;

pub(crate) async fn run() {
    let dir = tempfile::tempdir().unwrap();
    let logs = EventLogs::open(dir.path()).unwrap();
    let id = DeploymentId::new();
    let lines = write(&logs.path(id), GB);
    let mut times: [Vec<Duration>; 2] = Default::default();
    let began = Instant::now();
    assert_eq!(logs.last_seq(id).await.unwrap(), lines);
    let opened = began.elapsed();
    for place in 0..PLACES {
        let from = 1 + (lines - 1) * (place * 37 % PLACES) / PLACES;
        let began = Instant::now();
        let found = logs.read(id, from, 4096).await.unwrap();
        times[0].push(began.elapsed());
        assert!(found.starts_with(format!("{{\"seq\":{from},").as_bytes()));
        let began = Instant::now();
        logs.tail(id, 100).await.unwrap();
        times[1].push(began.elapsed());
    }
    let slowest = times.clone().map(|times| times.into_iter().max().unwrap_or_default());
    let [seek, tail] = times.map(median);
    println!(
        "a log of 1 GB, {lines} lines: opened in {opened:.1?}, any place found in {seek:.1?} (slowest {:.1?}),",
        slowest[0]
    );
    println!("  its last 100 lines in {tail:.1?} (slowest {:.1?})", slowest[1]);
    drop(dir);

    let (mut server, _) = Server::start(&[]).await;
    let mut ready = Vec::new();
    for _ in 0..5 {
        server.restart();
        ready.push(server.ready_after);
    }
    println!("ready in {:.1?} without logs", median(ready));
    for _ in 0..100 {
        write(&server.logs().join(format!("{}.log", DeploymentId::new())), GB / 10);
    }
    let mut ready = Vec::new();
    for _ in 0..5 {
        server.restart();
        ready.push(server.ready_after);
    }
    println!("ready in {:.1?} with 10 GB of logs", median(ready));
}

/// Writes a log of about `bytes`, and answers its lines.
fn write(path: &Path, bytes: u64) -> u64 {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let text = "x".repeat(110);
    let (mut written, mut seq) = (0, 0);
    while written < bytes {
        seq += 1;
        let line = format!(
            "{{\"seq\":{seq},\"at\":\"2026-01-02T03:04:05Z\",\"type\":\"log\",\"stage\":\"build\",\"stream\":\"stdout\",\"line\":\"{text}\"}}\n"
        );
        file.write_all(line.as_bytes()).unwrap();
        written += line.len() as u64;
    }
    file.flush().unwrap();
    seq
}
