//! Requests over kept connections on raw sockets, so that no client library's cost is in a measurement.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What a number of requests took.
#[derive(Debug, Default, Clone)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    /// Sorted.
    latencies: Vec<Duration>,
}

impl Measured {
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        self.latencies[(self.latencies.len() * percent / 100).min(self.latencies.len() - 1)]
    }
}

/// A request as it goes over the wire.
pub(crate) fn request(method: &str, path: &str, token: &str, body: &str) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n");
    if !body.is_empty() {
        text += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    }
    (text + "\r\n" + body).into_bytes()
}

/// Sends `requests`, one kept connection each, `times` times.
pub(crate) async fn load(server: SocketAddr, requests: Vec<Vec<u8>>, times: usize) -> Measured {
    let began = Instant::now();
    let count = requests.len() * times;
    let tasks: Vec<_> = requests
        .into_iter()
        .map(|request| tokio::spawn(async move { repeat(server, &request, times).await }))
        .collect();
    let mut latencies = Vec::with_capacity(count);
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    let per_second = count as f64 / began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    Measured { per_second, latencies }
}

async fn repeat(server: SocketAddr, request: &[u8], times: usize) -> Vec<Duration> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut latencies, mut buffer) = (Vec::with_capacity(times), Vec::with_capacity(64 * 1024));
    for _ in 0..times {
        let began = Instant::now();
        stream.write_all(request).await.unwrap();
        answer(&mut stream, &mut buffer).await;
        latencies.push(began.elapsed());
    }
    latencies
}

/// Reads one answer, which must be good.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) {
    buffer.clear();
    let body = loop {
        more(stream, buffer).await;
        if let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..body]).to_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{}", String::from_utf8_lossy(buffer));
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    match length.map(|length| length.parse::<usize>().unwrap()) {
        Some(length) => {
            while buffer.len() < body + length {
                more(stream, buffer).await;
            }
        }
        // In chunks, of which the last one is empty.
        None => {
            while !buffer.ends_with(b"\r\n0\r\n\r\n") {
                more(stream, buffer).await;
            }
        }
    }
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) {
    assert!(stream.read_buf(buffer).await.unwrap() > 0, "{}", String::from_utf8_lossy(buffer));
}
