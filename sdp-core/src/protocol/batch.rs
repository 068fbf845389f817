//! Batches of events: as they travel, and as a log takes them.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::{memchr, memchr_iter};
use serde::{Deserialize, Serialize};

use super::{CodecError, MAX_FRAME_BYTES, output::is_output};
use crate::model::{
    event::{Event, EventKind},
    ids::DeploymentId,
};

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
        self.numbered()?.map(|(seq, line)| read(seq, line)).collect()
    }

    /// Checks every event as [`events`](Self::events) does, and keeps those that are no line of output.
    ///
    /// # Errors
    /// [`CodecError::Batch`] names the first line at fault.
    pub fn checked(self) -> Result<CheckedBatch, CodecError> {
        let mut changes = Vec::new();
        for (seq, line) in self.numbered()? {
            if !is_output(seq, line) {
                let event = read(seq, line)?;
                if !matches!(event.kind, EventKind::Log { .. }) {
                    changes.push(event);
                }
            }
        }
        Ok(CheckedBatch { batch: self, changes })
    }

    fn precedes(&self, next: &Self) -> bool {
        next.deployment == self.deployment && next.first == self.last() + 1
    }

    fn numbered(&self) -> Result<impl Iterator<Item = (u64, &str)>, CodecError> {
        let text = std::str::from_utf8(&self.lines).map_err(|error| {
            let before = memchr_iter(b'\n', &self.lines[..error.valid_up_to()]).count() as u64;
            CodecError::Batch(format!("event {} is not UTF-8", self.first + before))
        })?;
        let mut begin = 0;
        Ok((self.first..).zip(memchr_iter(b'\n', &self.lines).map(move |end| {
            let line = &text[begin..end];
            begin = end + 1;
            line
        })))
    }

    pub(super) fn encode(&self) -> Bytes {
        let header = BatchHeader { deployment: self.deployment, first: self.first, count: self.count };
        let header = serde_json::to_vec(&header).expect("a header holds only text and numbers");
        let mut bytes = BytesMut::with_capacity(header.len() + 1 + self.lines.len());
        bytes.put_slice(&header);
        bytes.put_u8(b'\n');
        bytes.put_slice(&self.lines);
        bytes.freeze()
    }

    pub(super) fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
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

/// A batch of which every event was read: what a log may take.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedBatch {
    batch: EventBatch,
    changes: Vec<Event>,
}

impl CheckedBatch {
    /// The batch.
    pub fn batch(&self) -> &EventBatch {
        &self.batch
    }

    /// Those of its events that are no line of output, in order: what a reader who follows the deployment's state needs.
    pub fn changes(&self) -> &[Event] {
        &self.changes
    }

    /// The same events in fewer batches: neighbours that follow one another become one, at most as
    /// large as a frame.
    pub fn joined(batches: Vec<Self>) -> Vec<Self> {
        let mut runs: Vec<Vec<Self>> = Vec::new();
        let mut total = 0;
        for batch in batches {
            let size = batch.batch.lines.len();
            match runs.last_mut() {
                Some(run)
                    if total + size <= MAX_FRAME_BYTES
                        && run.last().is_some_and(|last| last.batch.precedes(&batch.batch)) =>
                {
                    total += size;
                    run.push(batch);
                }
                _ => {
                    total = size;
                    runs.push(vec![batch]);
                }
            }
        }
        runs.into_iter().filter_map(Self::join).collect()
    }

    /// One batch of neighbours that follow one another.
    fn join(run: Vec<Self>) -> Option<Self> {
        if run.len() < 2 {
            return run.into_iter().next();
        }
        let count = run.iter().map(|one| one.batch.count).sum();
        let mut lines = BytesMut::with_capacity(run.iter().map(|one| one.batch.lines.len()).sum());
        run.iter().for_each(|one| lines.put_slice(&one.batch.lines));
        let first = run.first()?.batch.clone();
        let changes = run.into_iter().flat_map(|one| one.changes).collect();
        Some(Self { batch: EventBatch { count, lines: lines.freeze(), ..first }, changes })
    }
}

fn read(seq: u64, line: &str) -> Result<Event, CodecError> {
    let event: Event = serde_json::from_str(line)
        .map_err(|error| CodecError::Batch(format!("event {seq} is not readable: {error}")))?;
    if event.seq != seq {
        return Err(CodecError::Batch(format!("event {} stands where {seq} was expected", event.seq)));
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        model::deployment::{DeploymentState, Stage},
        protocol::{AgentFrame, Frame, MAX_BATCH_BYTES, WireMessage},
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
        let batch =
            |id, first, texts: &[&str]| EventBatch::new(id, first, lines(first, texts)).unwrap().checked().unwrap();
        let joined = CheckedBatch::joined(vec![
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
        let many = CheckedBatch::joined((1..40).map(|seq| batch(id, seq, &[&long])).collect());
        assert!(many.len() > 1 && many.iter().all(|one| one.batch().lines().len() <= MAX_FRAME_BYTES));
        assert_eq!(many.iter().map(|one| one.batch().count()).sum::<u64>(), 39);
        assert!(CheckedBatch::joined(Vec::new()).is_empty());
    }

    #[test]
    fn changes_are_the_events_that_are_no_output_and_every_line_is_checked() {
        let mut bytes = lines(1, &["a", "\u{1b}[31mred\"\\"]).to_vec();
        let state = Event { seq: 3, at: Timestamp::UNIX_EPOCH, kind: EventKind::state(DeploymentState::Build) };
        bytes.extend(serde_json::to_vec(&state).unwrap());
        bytes.extend(b"\n{\"seq\":4,\"at\":\"2026-01-02T03:04:05Z\",\"type\":\"weather\"}\n");
        let checked = EventBatch::new(DeploymentId::new(), 1, bytes.into()).unwrap().checked().unwrap();
        assert_eq!(checked.changes().iter().map(|event| event.seq).collect::<Vec<_>>(), [3, 4]);
        for broken in [
            r#"{"seq":1,"at":"2026-01-02T03:04:05Z","type":"log","stage":"build","stream":"stdout","line":7}"#,
            r#"{"seq":1,"at":"soon","type":"log","stage":"build","stream":"stdout","line":"x"}"#,
            r#"{"seq":1,"at":"2026-01-02T03:04:05Z","type":"log","stage":"lunch","stream":"stdout","line":"x"}"#,
            r#"{"seq":2,"at":"2026-01-02T03:04:05Z","type":"log","stage":"build","stream":"stdout","line":"x"}"#,
            r#"{"seq":1,"at":"2026-01-02T03:04:05Z","type":"log","stage":"build","stream":"stdout","line":"x"} "#,
            "{",
        ] {
            let batch = EventBatch::new(DeploymentId::new(), 1, format!("{broken}\n").into()).unwrap();
            assert_eq!(batch.events().is_err(), batch.checked().is_err(), "{broken}");
        }
        let mut not_text = lines(5, &["a", "b"]).to_vec();
        let at = not_text.len() - 5;
        not_text[at] = 0xff;
        let refused = EventBatch::new(DeploymentId::new(), 5, not_text.into()).unwrap().checked().unwrap_err();
        assert!(refused.to_string().contains("event 6"), "{refused}");
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
}
