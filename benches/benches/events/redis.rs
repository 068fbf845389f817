//! Redis: `XADD` to a stream and `PUBLISH` to who listens, on raw pipelined sockets, so that no
//! client library's cost is in it.

use std::{path::Path, process::Command, time::Instant};

use bytes::BytesMut;
use sdp_benches::wire::Wire;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, BufWriter},
    net::{TcpStream, tcp::OwnedReadHalf},
};

use super::load::{Acks, Lines, Load, Outcome, Peer, Seen, dial, free_port};

pub(crate) async fn run(load: &Load, fsync: &str, dir: &Path) -> Outcome {
    let port = free_port();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
    command.args(["--appendfsync", fsync, "--auto-aof-rewrite-percentage", "0", "--loglevel", "warning", "--dir"]);
    let _peer = Peer(command.arg(dir).stdout(std::process::Stdio::null()).spawn().unwrap());

    let began = Instant::now();
    let mut lines = Lines::new(load.lines, began);
    let mut readers = Vec::new();
    for _ in 0..load.subscribers {
        readers.push(subscribe(port, load.lines, began).await);
    }
    let (reader, writer) = dial(port).await.into_split();
    let (mut writer, acks) = (BufWriter::with_capacity(128 * 1024, writer), Acks::new(load));
    let per = load.per_message;
    let acking =
        tokio::spawn(read_replies(Wire::new(reader), acks.clone(), load.lines / per, per, load.subscribers > 0));
    let start = Instant::now();
    let mut sent = 0;
    while sent < load.lines {
        if !acks.has_room(sent) {
            writer.flush().await.unwrap();
            acks.room(sent).await;
        }
        let message = lines.take(sent, per);
        writer
            .write_all(
                format!("*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n$1\r\nl\r\n${}\r\n", message.len()).as_bytes(),
            )
            .await
            .unwrap();
        writer.write_all(&message).await.unwrap();
        if load.subscribers > 0 {
            writer
                .write_all(format!("\r\n*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n${}\r\n", message.len()).as_bytes())
                .await
                .unwrap();
            writer.write_all(&message).await.unwrap();
        }
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
    outcome.replay = replay(dial(port).await, load).await;
    outcome
}

async fn read_replies(mut reader: Wire<OwnedReadHalf>, acks: Acks, messages: u64, per: u64, published: bool) {
    for _ in 0..messages {
        // `$15`, the id; and `:10` of the publication.
        for _ in 0..if published { 3 } else { 2 } {
            let line = reader.line().await;
            assert_ne!(line[0], b'-', "{}", String::from_utf8_lossy(&line));
        }
        acks.add(per);
    }
}

async fn subscribe(port: u16, lines: u64, began: Instant) -> tokio::task::JoinHandle<Seen> {
    let mut stream = dial(port).await;
    stream.write_all(b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n").await.unwrap();
    let mut reader = Wire::new(stream);
    skip_lines(&mut reader, 6).await;
    tokio::spawn(async move {
        let mut seen = Seen::new(began);
        while seen.lines < lines {
            // *3, $7, message, $1, c
            skip_lines(&mut reader, 5).await;
            seen.message(&bulk(&mut reader).await);
        }
        seen
    })
}

async fn replay(stream: TcpStream, load: &Load) -> std::time::Duration {
    let mut reader = Wire::new(stream);
    let start = Instant::now();
    let (mut from, mut lines) = (String::from("-"), 0);
    while lines < load.lines {
        let command = format!(
            "*6\r\n$6\r\nXRANGE\r\n$1\r\ns\r\n${}\r\n{from}\r\n$1\r\n+\r\n$5\r\nCOUNT\r\n$4\r\n1000\r\n",
            from.len()
        );
        reader.get_mut().write_all(command.as_bytes()).await.unwrap();
        let count = reader.line().await;
        let count: u64 = String::from_utf8_lossy(&count[1..]).trim().parse().unwrap();
        for _ in 0..count {
            skip_lines(&mut reader, 1).await;
            from = format!("({}", String::from_utf8_lossy(&bulk(&mut reader).await));
            // *2, $1, l
            skip_lines(&mut reader, 3).await;
            bulk(&mut reader).await;
        }
        lines += count * load.per_message;
    }
    start.elapsed()
}

async fn skip_lines(reader: &mut Wire<impl AsyncRead + Unpin>, count: usize) {
    for _ in 0..count {
        reader.line().await;
    }
}

async fn bulk(reader: &mut Wire<impl AsyncRead + Unpin>) -> BytesMut {
    let len: usize = String::from_utf8_lossy(&reader.line().await[1..]).trim().parse().unwrap();
    let mut body = reader.take(len + 2).await;
    body.truncate(len);
    body
}
