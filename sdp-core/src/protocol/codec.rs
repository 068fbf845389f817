//! Frames to messages and back.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use memchr::{memchr, memchr_iter};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{AgentFrame, MAX_FRAME_BYTES, ServerFrame};
use crate::model::{
    deployment::Stage,
    event::{Event, EventKind, LogStream},
    ids::DeploymentId,
};

/// A message as a WebSocket carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireMessage {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
}

/// Why a message is not a frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// It is larger than [`MAX_FRAME_BYTES`].
    #[error("a frame of {0} bytes is larger than the limit of {MAX_FRAME_BYTES}")]
    TooLarge(usize),
    /// It is not JSON of the expected shape.
    #[error("a frame could not be read")]
    Json(#[from] serde_json::Error),
    /// A binary message where none is expected.
    #[error("a binary message came where a text frame was expected")]
    UnexpectedBinary,
    /// A batch of events that breaks the protocol.
    #[error("an event batch is not valid: {0}")]
    Batch(String),
    /// An HTTP body that does not hold messages.
    #[error("a body of messages is not valid: {0}")]
    Body(String),
}

/// A frame that can travel.
pub trait Frame: Sized {
    /// The message that carries this frame.
    fn encode(&self) -> WireMessage;

    /// Reads a frame. One of an unknown type is not an error: see [`Frame::unknown_type`].
    ///
    /// # Errors
    /// [`CodecError`].
    fn decode(message: &WireMessage) -> Result<Self, CodecError>;

    /// The type of a frame that decoded to `Unknown`, for the answer that says so.
    fn unknown_type(message: &WireMessage) -> String {
        #[derive(Deserialize)]
        struct Typed {
            #[serde(rename = "type")]
            kind: String,
        }
        match message {
            WireMessage::Text(text) => serde_json::from_str::<Typed>(text).map(|typed| typed.kind).unwrap_or_default(),
            WireMessage::Binary(_) => "binary".into(),
        }
    }
}

fn to_text<T: Serialize>(frame: &T) -> WireMessage {
    let text = serde_json::to_string(frame).expect("frames hold only strings, numbers and maps with text keys");
    WireMessage::Text(text)
}

fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, CodecError> {
    if text.len() > MAX_FRAME_BYTES {
        return Err(CodecError::TooLarge(text.len()));
    }
    Ok(serde_json::from_str(text)?)
}

impl Frame for ServerFrame {
    fn encode(&self) -> WireMessage {
        to_text(self)
    }

    fn decode(message: &WireMessage) -> Result<Self, CodecError> {
        match message {
            WireMessage::Text(text) => from_text(text),
            WireMessage::Binary(_) => Err(CodecError::UnexpectedBinary),
        }
    }
}

impl Frame for AgentFrame {
    fn encode(&self) -> WireMessage {
        match self {
            Self::Events(batch) => WireMessage::Binary(batch.encode()),
            frame => to_text(frame),
        }
    }

    fn decode(message: &WireMessage) -> Result<Self, CodecError> {
        match message {
            WireMessage::Text(text) => from_text(text),
            WireMessage::Binary(bytes) => EventBatch::decode(bytes).map(Self::Events),
        }
    }
}

/// Consecutive events of one deployment, as the NDJSON lines of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventBatch {
    deployment: DeploymentId,
    first: u64,
    count: u64,
    lines: Bytes,
}

#[derive(Serialize, Deserialize)]
struct BatchHeader {
    deployment: DeploymentId,
    first: u64,
    count: u64,
}

impl EventBatch {
    /// A batch of whole lines, each ended by `\n`, whose first event has sequence number `first`.
    ///
    /// # Errors
    /// [`CodecError::Batch`] when there is no line, or the last one has no end.
    pub fn new(deployment: DeploymentId, first: u64, lines: Bytes) -> Result<Self, CodecError> {
        if lines.last() != Some(&b'\n') {
            return Err(CodecError::Batch("it does not end with a whole line".into()));
        }
        let count = memchr_iter(b'\n', &lines).count() as u64;
        if first == 0 || first.checked_add(count).is_none() {
            return Err(CodecError::Batch(format!("its first sequence number is {first}")));
        }
        Ok(Self { deployment, first, count, lines })
    }

    /// Whose events they are.
    pub fn deployment(&self) -> DeploymentId {
        self.deployment
    }

    /// The first event's sequence number.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The last event's sequence number.
    pub fn last(&self) -> u64 {
        self.first + self.count - 1
    }

    /// How many events.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The lines, as they are appended to the log.
    pub fn lines(&self) -> &Bytes {
        &self.lines
    }

    /// The lines with their sequence numbers after `seq`: what a log that ends at `seq` lacks.
    pub fn lines_after(&self, seq: u64) -> Bytes {
        let skip = (seq + 1).saturating_sub(self.first);
        if skip == 0 {
            return self.lines.clone();
        }
        let mut ends = memchr_iter(b'\n', &self.lines).map(|end| end + 1);
        let start = usize::try_from(skip - 1).ok().and_then(|n| ends.nth(n)).unwrap_or(self.lines.len());
        self.lines.slice(start..)
    }

    /// Reads and checks every event: valid JSON with consecutive sequence numbers.
    ///
    /// # Errors
    /// [`CodecError::Batch`] names the first line at fault.
    pub fn events(&self) -> Result<Vec<Event>, CodecError> {
        self.numbered().map(|(seq, line)| read(seq, line)).collect()
    }

    /// Checks every event as [`events`](Self::events) does, and answers those that are no line of
    /// output: what a reader who follows the deployment's state needs.
    ///
    /// # Errors
    /// [`CodecError::Batch`] names the first line at fault.
    pub fn changes(&self) -> Result<Vec<Event>, CodecError> {
        let mut changes = Vec::new();
        for (seq, line) in self.numbered() {
            match serde_json::from_slice::<OutputLine<'_>>(line) {
                Ok(output) => in_its_place(seq, output.seq)?,
                Err(_) => {
                    let event = read(seq, line)?;
                    if !matches!(event.kind, EventKind::Log { .. }) {
                        changes.push(event);
                    }
                }
            }
        }
        Ok(changes)
    }

    /// The same events in fewer batches: neighbours that follow one another become one, at most as
    /// large as a frame.
    pub fn joined(batches: Vec<Self>) -> Vec<Self> {
        let mut runs: Vec<(usize, Vec<Self>)> = Vec::new();
        for batch in batches {
            let size = batch.lines.len();
            match runs.last_mut() {
                Some((total, run))
                    if *total + size <= MAX_FRAME_BYTES && run.last().is_some_and(|last| last.precedes(&batch)) =>
                {
                    *total += size;
                    run.push(batch);
                }
                _ => runs.push((size, vec![batch])),
            }
        }
        let join = |(total, mut run): (usize, Vec<Self>)| {
            let count = run.iter().map(Self::count).sum();
            if run.len() > 1 {
                let mut lines = BytesMut::with_capacity(total);
                run.iter().for_each(|batch| lines.put_slice(&batch.lines));
                run[0].lines = lines.freeze();
            }
            Self { count, ..run.swap_remove(0) }
        };
        runs.into_iter().map(join).collect()
    }

    fn precedes(&self, next: &Self) -> bool {
        next.deployment == self.deployment && next.first == self.last() + 1
    }

    fn numbered(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut begin = 0;
        (self.first..).zip(memchr_iter(b'\n', &self.lines).map(move |end| {
            let line = &self.lines[begin..end];
            begin = end + 1;
            line
        }))
    }

    fn encode(&self) -> Bytes {
        let header = BatchHeader { deployment: self.deployment, first: self.first, count: self.count };
        let header = serde_json::to_vec(&header).expect("a header holds only text and numbers");
        let mut bytes = BytesMut::with_capacity(header.len() + 1 + self.lines.len());
        bytes.put_slice(&header);
        bytes.put_u8(b'\n');
        bytes.put_slice(&self.lines);
        bytes.freeze()
    }

    fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        if bytes.len() > MAX_FRAME_BYTES {
            return Err(CodecError::TooLarge(bytes.len()));
        }
        let end = memchr(b'\n', bytes).ok_or_else(|| CodecError::Batch("it has no header line".into()))?;
        let header: BatchHeader = serde_json::from_slice(&bytes[..end])?;
        let batch = Self::new(header.deployment, header.first, bytes.slice(end + 1..))?;
        if batch.count == header.count {
            Ok(batch)
        } else {
            Err(CodecError::Batch(format!("it has {} lines and says {}", batch.count, header.count)))
        }
    }
}

/// An event that is a line of output, as it is read without keeping it.
#[derive(Deserialize)]
struct OutputLine<'a> {
    seq: u64,
    #[serde(rename = "at")]
    _at: Timestamp,
    #[serde(rename = "type")]
    _type: OutputTag,
    #[serde(rename = "stage")]
    _stage: Stage,
    #[serde(rename = "stream")]
    _stream: LogStream,
    #[serde(rename = "line", borrow)]
    _line: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OutputTag {
    Log,
}

fn read(seq: u64, line: &[u8]) -> Result<Event, CodecError> {
    let event: Event = serde_json::from_slice(line)
        .map_err(|error| CodecError::Batch(format!("event {seq} is not readable: {error}")))?;
    in_its_place(seq, event.seq)?;
    Ok(event)
}

fn in_its_place(expected: u64, found: u64) -> Result<(), CodecError> {
    if found == expected {
        Ok(())
    } else {
        Err(CodecError::Batch(format!("event {found} stands where {expected} was expected")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::deployment::DeploymentState,
        protocol::{Hello, MAX_BATCH_BYTES, Outcome, Reply, ReplyBody, Request, RequestBody},
    };

    fn lines(first: u64, texts: &[&str]) -> Bytes {
        let mut bytes = BytesMut::new();
        for (seq, text) in (first..).zip(texts) {
            let event = Event { seq, at: Timestamp::UNIX_EPOCH, kind: EventKind::note(Stage::Build, *text) };
            bytes.put_slice(&serde_json::to_vec(&event).unwrap());
            bytes.put_u8(b'\n');
        }
        bytes.freeze()
    }

    #[test]
    fn frames_of_version_1_are_written_byte_for_byte_so() {
        let text = |message| match message {
            WireMessage::Text(text) => text,
            WireMessage::Binary(_) => panic!("expected text"),
        };
        let reply = AgentFrame::Reply(Reply { id: 7, outcome: Outcome::Ok(ReplyBody::Done) });
        assert_eq!(text(reply.encode()), r#"{"type":"reply","id":7,"ok":{"kind":"done"}}"#);
        let request = Request { id: 7, deadline_ms: 5000, body: RequestBody::Routes { sandbox: None } };
        assert_eq!(
            text(ServerFrame::Request(request).encode()),
            r#"{"type":"request","id":7,"deadline_ms":5000,"body":{"op":"routes"}}"#
        );
    }

    #[test]
    fn a_refusal_travels_with_its_problem() {
        let problem = crate::Problem::new(crate::ErrorCode::NotAllowed, "the token is not valid");
        let frame = ServerFrame::Refused(problem);
        let WireMessage::Text(text) = frame.encode() else { panic!("expected text") };
        assert!(text.starts_with(r#"{"type":"refused","problem":{"type":"urn:sdp:problem:not-allowed","#), "{text}");
        assert_eq!(ServerFrame::decode(&WireMessage::Text(text)).unwrap(), frame);
    }

    #[test]
    fn a_hello_with_fields_of_the_future_is_understood() {
        let text = r#"{"type":"hello","protocol":9,"oldest_protocol":1,"agent":"micro-92","token":"t","mood":"fine",
            "inventory":{"version":"9","advertise":"h","deployer":"docker","repos":[],"gpu":1}}"#;
        let AgentFrame::Hello(hello) = AgentFrame::decode(&WireMessage::Text(text.into())).unwrap() else {
            panic!("not a hello");
        };
        let Hello { protocol, held, .. } = *hello;
        assert_eq!((protocol, held.len()), (9, 0));
    }

    #[test]
    fn an_unknown_frame_is_told_apart_from_a_broken_one() {
        let message = WireMessage::Text(r#"{"type":"telepathy","x":1}"#.into());
        assert_eq!(ServerFrame::decode(&message).unwrap(), ServerFrame::Unknown);
        assert_eq!(ServerFrame::unknown_type(&message), "telepathy");
        assert!(ServerFrame::decode(&WireMessage::Text("{".into())).is_err());
        assert!(AgentFrame::decode(&WireMessage::Binary(Bytes::from_static(b"\xff\xfe"))).is_err());
        let request = r#"{"type":"request","id":1,"deadline_ms":1,"body":{"op":"levitate"}}"#;
        let ServerFrame::Request(request) = ServerFrame::decode(&WireMessage::Text(request.into())).unwrap() else {
            panic!("not a request");
        };
        assert_eq!(request.body, RequestBody::Unknown);
    }

    #[test]
    fn a_batch_travels_with_its_lines_untouched() {
        let batch = EventBatch::new(DeploymentId::new(), 5, lines(5, &["a", "b\n", "ç"])).unwrap();
        let frame = AgentFrame::Events(batch.clone());
        assert_eq!(AgentFrame::decode(&frame.encode()).unwrap(), frame);
        assert_eq!((batch.first(), batch.last(), batch.events().unwrap().len()), (5, 7, 3));
    }

    #[test]
    fn a_resent_batch_gives_only_what_the_log_lacks() {
        let batch = EventBatch::new(DeploymentId::new(), 5, lines(5, &["a", "b", "c"])).unwrap();
        assert_eq!(batch.lines_after(4), lines(5, &["a", "b", "c"]));
        assert_eq!(batch.lines_after(6), lines(7, &["c"]));
        assert!(batch.lines_after(7).is_empty() && batch.lines_after(99).is_empty());
    }

    #[test]
    fn neighbours_become_one_batch_and_nothing_else_does() {
        let (id, other) = (DeploymentId::new(), DeploymentId::new());
        let batch = |id, first, texts: &[&str]| EventBatch::new(id, first, lines(first, texts)).unwrap();
        let joined = EventBatch::joined(vec![
            batch(id, 1, &["a"]),
            batch(id, 2, &["b", "c"]),
            batch(other, 4, &["x"]),
            batch(other, 4, &["x"]),
            batch(other, 6, &["z"]),
        ]);
        let expected =
            [batch(id, 1, &["a", "b", "c"]), batch(other, 4, &["x"]), batch(other, 4, &["x"]), batch(other, 6, &["z"])];
        assert_eq!(joined, expected);
        let long = "x".repeat(MAX_BATCH_BYTES);
        let many = EventBatch::joined((1..40).map(|seq| batch(id, seq, &[&long])).collect());
        assert!(many.len() > 1 && many.iter().all(|batch| batch.lines().len() <= MAX_FRAME_BYTES));
        assert_eq!(many.iter().map(EventBatch::count).sum::<u64>(), 39);
        assert!(EventBatch::joined(Vec::new()).is_empty());
    }

    #[test]
    fn changes_are_the_events_that_are_no_output_and_every_line_is_checked() {
        let mut bytes = lines(1, &["a", "\u{1b}[31mred\"\\"]).to_vec();
        let state = Event { seq: 3, at: Timestamp::UNIX_EPOCH, kind: EventKind::state(DeploymentState::Build) };
        bytes.extend(serde_json::to_vec(&state).unwrap());
        bytes.extend(b"\n{\"seq\":4,\"at\":\"2026-01-02T03:04:05Z\",\"type\":\"weather\"}\n");
        let changes = EventBatch::new(DeploymentId::new(), 1, bytes.into()).unwrap().changes().unwrap();
        assert_eq!(changes.iter().map(|event| event.seq).collect::<Vec<_>>(), [3, 4]);
        for broken in [
            r#"{"seq":1,"at":"2026-01-02T03:04:05Z","type":"log","stage":"build","stream":"stdout","line":7}"#,
            r#"{"seq":1,"at":"soon","type":"log","stage":"build","stream":"stdout","line":"x"}"#,
            r#"{"seq":1,"at":"2026-01-02T03:04:05Z","type":"log","stage":"lunch","stream":"stdout","line":"x"}"#,
            r#"{"seq":2,"at":"2026-01-02T03:04:05Z","type":"log","stage":"build","stream":"stdout","line":"x"}"#,
            r#"{"seq":1,"at":"2026-01-02T03:04:05Z","type":"log","stage":"build","stream":"stdout","line":"x"} "#,
            "{",
        ] {
            let batch = EventBatch::new(DeploymentId::new(), 1, format!("{broken}\n").into()).unwrap();
            assert_eq!(batch.changes().is_err(), batch.events().is_err(), "{broken}");
        }
    }

    #[test]
    fn batches_that_lie_are_refused() {
        let id = DeploymentId::new();
        assert!(EventBatch::new(id, 1, Bytes::new()).is_err());
        assert!(EventBatch::new(id, 0, lines(0, &["a"])).is_err());
        assert!(EventBatch::new(id, 1, Bytes::from_static(b"{}")).is_err());
        assert!(EventBatch::new(id, 2, lines(1, &["a"])).unwrap().events().is_err(), "wrong numbers");
        assert!(EventBatch::new(id, 1, Bytes::from_static(b"nonsense\n")).unwrap().events().is_err());
        let header = format!("{{\"deployment\":\"{id}\",\"first\":1,\"count\":9}}\n{{}}\n");
        assert!(AgentFrame::decode(&WireMessage::Binary(header.into())).is_err(), "wrong count");
        assert!(AgentFrame::decode(&WireMessage::Binary(vec![b' '; MAX_FRAME_BYTES + 1].into())).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            for message in [WireMessage::Text(text), WireMessage::Binary(bytes.into())] {
                let _ = (AgentFrame::decode(&message), ServerFrame::decode(&message));
            }
        }
    }
}
