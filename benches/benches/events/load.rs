//! What every system is asked to carry, and what is measured of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::watch;

/// Where the time of sending stands in a line: after this.
const MARK: &[u8] = b"sent=";
const MARK_DIGITS: usize = 16;

/// One round's work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) lines: u64,
    pub(crate) per_message: u64,
    /// How many lines may be on their way and not acknowledged.
    pub(crate) in_flight: u64,
    pub(crate) subscribers: usize,
}

/// What came of a round.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// From the first line sent to the last one acknowledged and delivered to every subscriber.
    pub(crate) elapsed: Duration,
    /// From sending to the arrival at a subscriber.
    pub(crate) latencies: Vec<Duration>,
    /// Reading everything again from the first line.
    pub(crate) replay: Duration,
}

/// Lines as an agent sends them, about 200 bytes each, made before the clock starts.
pub(crate) struct Lines {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    began: Instant,
}

impl Lines {
    pub(crate) fn new(count: u64, began: Instant) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for seq in 1..=count {
            let line = format!(
                r#"{{"seq":{seq},"at":"2026-01-02T03:04:05.678901Z","type":"log","stage":"build","stream":"stdout","line":"github.com/example/service/internal/handlers/prices_{seq:08}.go compiled sent={:016x}"}}"#,
                0
            );
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
            ends.push(bytes.len());
        }
        Self { bytes, ends, began }
    }

    /// The lines `first..first + count`, counted from 0, stamped with the time it is now.
    pub(crate) fn take(&mut self, first: u64, count: u64) -> Bytes {
        let now = format!("{:016x}", self.began.elapsed().as_nanos() as u64);
        let first = usize::try_from(first).unwrap();
        let last = first + usize::try_from(count).unwrap() - 1;
        for line in first..=last {
            let stamp = self.ends[line] - 3 - MARK_DIGITS;
            self.bytes[stamp..stamp + MARK_DIGITS].copy_from_slice(now.as_bytes());
        }
        let begin = if first == 0 { 0 } else { self.ends[first - 1] };
        Bytes::copy_from_slice(&self.bytes[begin..self.ends[last]])
    }
}

/// How far the acknowledgements are.
#[derive(Clone)]
pub(crate) struct Acks {
    acked: Arc<watch::Sender<u64>>,
    in_flight: u64,
}

impl Acks {
    pub(crate) fn new(load: &Load) -> Self {
        Self { acked: Arc::default(), in_flight: load.in_flight }
    }

    pub(crate) fn add(&self, lines: u64) {
        self.acked.send_modify(|acked| *acked += lines);
    }

    pub(crate) fn reach(&self, lines: u64) {
        self.acked.send_modify(|acked| *acked = lines.max(*acked));
    }

    pub(crate) fn has_room(&self, sent: u64) -> bool {
        sent < *self.acked.borrow() + self.in_flight
    }

    pub(crate) async fn room(&self, sent: u64) {
        self.acked.subscribe().wait_for(|acked| sent < acked + self.in_flight).await.unwrap();
    }

    pub(crate) async fn all(&self, lines: u64) {
        self.acked.subscribe().wait_for(|acked| *acked >= lines).await.unwrap();
    }
}

/// One subscriber's count.
pub(crate) struct Seen {
    began: Instant,
    messages: u64,
    pub(crate) lines: u64,
    pub(crate) latencies: Vec<Duration>,
}

impl Seen {
    pub(crate) fn new(began: Instant) -> Self {
        Self { began, messages: 0, lines: 0, latencies: Vec::new() }
    }

    /// Takes a message's lines in. Its first line, the oldest, is looked at for the latency; of
    /// messages with one line, each 16th.
    pub(crate) fn message(&mut self, text: &[u8]) {
        let lines = memchr::memchr_iter(b'\n', text).count() as u64 + u64::from(text.last() != Some(&b'\n'));
        self.lines += lines;
        self.messages += 1;
        if lines > 1 || self.messages.is_multiple_of(16) {
            let stamp = text.windows(MARK.len()).position(|window| window == MARK).unwrap() + MARK.len();
            let stamp = std::str::from_utf8(&text[stamp..stamp + MARK_DIGITS]).unwrap();
            let sent = Duration::from_nanos(u64::from_str_radix(stamp, 16).unwrap());
            self.latencies.push(self.began.elapsed().saturating_sub(sent));
        }
    }
}

/// The duration that 99 of 100 do not exceed.
pub(crate) fn p99(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort();
    latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default()
}

/// A process of a peer, ended with the bench.
pub(crate) struct Peer(pub(crate) std::process::Child);

impl Drop for Peer {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Connects as soon as somebody listens.
pub(crate) async fn dial(port: u16) -> tokio::net::TcpStream {
    for _ in 0..500 {
        if let Ok(stream) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
            stream.set_nodelay(true).unwrap();
            return stream;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody listens on port {port}");
}
