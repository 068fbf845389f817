//! One deployment's file.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use sdp_core::{
    DeploymentId, DeploymentState, Event, EventKind, SinkError, Stage, StageStatus,
    medium::{self, Medium},
    protocol::{EventBatch, MAX_BATCH_BYTES},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Progress;

/// The distance of the positions kept in memory, in bytes.
const MARK_EVERY: u64 = 64 * 1024;

/// The most text of one event, in bytes. JSON's escapes make at most six of one, so that every
/// line fits into a batch.
const MAX_TEXT_BYTES: usize = 32 * 1024;

/// The first and the longest pause before a disk that is full or fails is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

#[derive(Debug)]
pub(super) struct Log {
    deployment: DeploymentId,
    path: PathBuf,
    medium: Box<dyn Medium>,
    /// Held by the one who appends, also while it waits for the disk.
    append: Arc<tokio::sync::Mutex<()>>,
    syncing: Mutex<()>,
    known: Mutex<Known>,
    changed: watch::Sender<()>,
}

/// What is in the file, for readers. Bytes past `end` are a line on its way.
#[derive(Debug)]
struct Known {
    end: u64,
    synced: u64,
    /// A sync failed since, so that what is not synced may be on its way to the disk no more.
    doubtful: bool,
    last: u64,
    acked: u64,
    state: DeploymentState,
    stage: Option<(Stage, StageStatus)>,
    /// Where some lines begin, in order.
    marks: Vec<Position>,
    /// Where the last batch ended.
    cursor: Position,
}

/// The line of event `seq` begins at `offset`.
#[derive(Debug, Clone, Copy)]
struct Position {
    seq: u64,
    offset: u64,
}

impl Known {
    fn new() -> Self {
        let start = Position { seq: 1, offset: 0 };
        Self {
            end: 0,
            synced: 0,
            doubtful: false,
            last: 0,
            acked: 0,
            state: DeploymentState::Queued,
            stage: None,
            marks: vec![start],
            cursor: start,
        }
    }

    fn add(&mut self, kind: &EventKind, bytes: u64) {
        match kind {
            EventKind::State { state, .. } => self.state = *state,
            EventKind::Stage { stage, status } => self.stage = Some((*stage, *status)),
            _ => {}
        }
        self.end += bytes;
        self.last += 1;
        if self.marks.last().is_none_or(|mark| self.end - mark.offset >= MARK_EVERY) {
            self.marks.push(Position { seq: self.last + 1, offset: self.end });
        }
    }

    /// The nearest known position at or before `seq`.
    fn before(&self, seq: u64) -> Position {
        if self.cursor.seq == seq {
            return self.cursor;
        }
        let after = self.marks.partition_point(|mark| mark.seq <= seq);
        self.marks[after.saturating_sub(1)]
    }
}

impl Log {
    /// Opens or makes the file, and cuts it after its last good line.
    pub(super) fn open(deployment: DeploymentId, path: &Path, changed: watch::Sender<()>) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        Self::on(Box::new(file), deployment, path, changed)
    }

    fn on(
        medium: Box<dyn Medium>,
        deployment: DeploymentId,
        path: &Path,
        changed: watch::Sender<()>,
    ) -> io::Result<Self> {
        let mut known = Known::new();
        let mut reader = BufReader::new(medium::Reader::new(&*medium));
        let mut line = Vec::new();
        loop {
            line.clear();
            let bytes = reader.read_until(b'\n', &mut line)? as u64;
            let event = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice::<Event>(line).ok());
            match event.filter(|event| event.seq == known.last + 1) {
                Some(event) => known.add(&event.kind, bytes),
                None => break,
            }
        }
        drop(reader);
        if medium.size()? > known.end {
            tracing::warn!(%deployment, kept = known.last, "the last event was half written and is cut off");
            medium.set_len(known.end)?;
        }
        Ok(Self {
            deployment,
            path: path.into(),
            medium,
            append: Arc::default(),
            syncing: Mutex::default(),
            known: Mutex::new(known),
            changed,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn progress(&self) -> Progress {
        let known = self.known();
        Progress { last: known.last, acked: known.acked, state: known.state, stage: known.stage }
    }

    pub(super) fn ack(&self, seq: u64) -> Progress {
        {
            let mut known = self.known();
            known.acked = known.acked.max(seq.min(known.last));
        }
        self.progress()
    }

    /// The lines after `seq`, at most [`MAX_BATCH_BYTES`] of them. Blocks on the disk.
    pub(super) fn batch(&self, seq: u64) -> io::Result<Option<EventBatch>> {
        let (end, synced, last, mut position) = {
            let known = self.known();
            (known.end, known.synced, known.last, known.before(seq + 1))
        };
        if last <= seq {
            return Ok(None);
        }
        if synced < end {
            self.sync(synced, end)?;
        }
        loop {
            let take = (end - position.offset).min(MAX_BATCH_BYTES as u64);
            let mut lines = vec![0; usize::try_from(take).map_err(io::Error::other)?];
            self.medium.read_exact_at(&mut lines, position.offset)?;
            let mut ends = lines.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
            let skip = usize::try_from(seq + 1 - position.seq).map_err(io::Error::other)?;
            let (start, skipped) = if skip == 0 {
                (0, 0)
            } else {
                let mut skipped = 0;
                let start = ends.by_ref().take(skip).inspect(|_| skipped += 1).last();
                (start.unwrap_or(0), skipped)
            };
            let stop = ends.next_back().unwrap_or(start);
            if stop == start {
                if start == 0 {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than a batch"));
                }
                position = Position { seq: position.seq + skipped, offset: position.offset + start as u64 };
                continue;
            }
            lines.truncate(stop);
            let batch = EventBatch::new(self.deployment, seq + 1, bytes::Bytes::from(lines).slice(start..))
                .map_err(io::Error::other)?;
            self.known().cursor = Position { seq: batch.last() + 1, offset: position.offset + stop as u64 };
            return Ok(Some(batch));
        }
    }

    /// Appends one line, wholly or not at all. The caller holds `append`.
    fn commit(&self, event: &Event, line: &[u8], durable: bool) -> io::Result<()> {
        let (end, synced) = {
            let known = self.known();
            (known.end, known.synced)
        };
        let written = self.medium.write_all_at(line, end);
        let written = if durable { written.and_then(|()| self.sync(synced, end)) } else { written };
        if let Err(error) = written {
            // What is left of it if this fails too is written over, or cut off at the next open.
            self.medium.set_len(end).ok();
            return Err(error);
        }
        {
            let mut known = self.known();
            known.add(&event.kind, line.len() as u64);
            if durable {
                known.synced = known.end;
            }
        }
        self.changed.send_replace(());
        Ok(())
    }

    /// Adds a line about the deployment itself, if there is room for one. The caller holds `append`.
    fn tell(&self, text: String) {
        let Progress { last, stage, state, .. } = self.progress();
        if !state.is_active() {
            // The end is the last event.
            return;
        }
        let kind = EventKind::note(stage.map_or(Stage::Source, |(stage, _)| stage), text);
        let event = Event { seq: last + 1, at: Timestamp::now(), kind };
        let told = serde_json::to_vec(&event).map_err(io::Error::other).and_then(|mut line| {
            line.push(b'\n');
            self.commit(&event, &line, false)
        });
        if let Err(error) = told {
            tracing::warn!(deployment = %self.deployment, %error, "the disk's trouble could not be told");
        }
    }

    /// Makes the bytes from `synced` to `end`, and any after them, durable.
    ///
    /// Linux forgets what it failed to write: after a failed sync, the next one succeeds and says
    /// nothing of it. So what was not synced is written again first.
    fn sync(&self, synced: u64, end: u64) -> io::Result<()> {
        // One at a time: what one fails to write, another must not take for written.
        let _turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.known().doubtful {
            let mut bytes = vec![0; usize::try_from(end - synced).map_err(io::Error::other)?];
            self.medium.read_exact_at(&mut bytes, synced)?;
            self.medium.write_all_at(&bytes, synced)?;
        }
        let done = self.medium.sync_data();
        let mut known = self.known();
        known.doubtful = done.is_err();
        if done.is_ok() {
            known.synced = known.synced.max(end);
        }
        done
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts an event. A line of output is only written, which outlives this process; everything
/// else is synced too.
pub(super) async fn accept(log: &Arc<Log>, kind: EventKind, closing: &CancellationToken) -> Result<u64, SinkError> {
    let durable = !matches!(kind, EventKind::Log { .. });
    let mut turn = Arc::clone(&log.append).lock_owned().await;
    let event = Event { seq: log.progress().last + 1, at: Timestamp::now(), kind: cut(kind) };
    let mut line = serde_json::to_vec(&event).map_err(SinkError::new)?;
    line.push(b'\n');
    if line.len() > MAX_BATCH_BYTES {
        return Err(SinkError::new(format!("an event of {} bytes is too large", line.len())));
    }
    let seq = event.seq;
    let mut work = Some((event, line));
    let mut pause = PAUSE.0;
    let mut trouble: Option<(Instant, &str)> = None;
    loop {
        let Some((event, line)) = work.take() else { return Err(SinkError::new("an event was lost on its way")) };
        let written = if durable {
            // The turn goes along, so that whoever drops this future cannot let another write in between.
            let log = Arc::clone(log);
            let done = tokio::task::spawn_blocking(move || {
                let written = log.commit(&event, &line, true);
                (turn, event, line, written)
            });
            let (back, event, line, written) = match done.await {
                Ok(done) => done,
                // The runtime is going down: nobody is to learn more than the file says.
                Err(gone) if gone.is_cancelled() => std::future::pending().await,
                Err(gone) => return Err(SinkError::new(gone)),
            };
            turn = back;
            work = Some((event, line));
            written
        } else {
            let written = log.commit(&event, &line, false);
            work = Some((event, line));
            written
        };
        let Err(error) = written else {
            if let Some((since, what)) = trouble {
                log.tell(format!("the agent's disk {what} for {:.0?}; the deployment waited", since.elapsed()));
            }
            return Ok(seq);
        };
        let path = log.path.display();
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        trouble = trouble.or(Some((Instant::now(), if full { "was full" } else { "failed" })));
        if pause == PAUSE.0 && full {
            tracing::warn!(%path, "the disk is full: the deployment waits until there is space");
        } else if pause == PAUSE.0 {
            tracing::error!(%path, %error, "the disk fails: the deployment waits until it does not");
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE.1),
            () = closing.cancelled() => {
                let cure = if full { format!("free some space on {path}") } else { format!("check the disk of {path}") };
                return Err(SinkError::new(error).cure(cure));
            }
        }
    }
}

/// Cuts texts that no reader wants whole and that would not fit into a frame.
fn cut(kind: EventKind) -> EventKind {
    match kind {
        EventKind::Log { stage, stream, line } => EventKind::Log { stage, stream, line: cut_text(line) },
        EventKind::State { state, failure: Some(mut failure) } => {
            failure.reason = cut_text(failure.reason);
            EventKind::State { state, failure: Some(failure) }
        }
        kind => kind,
    }
}

fn cut_text(mut text: String) -> String {
    let bytes = text.len();
    if bytes > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        text.push_str(&format!(" … (cut: {bytes} bytes)"));
    }
    text
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
