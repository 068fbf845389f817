//! One log file: repair, append, seek and read. Everything here blocks.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use memchr::memrchr;
use sdp_core::{medium::Medium, protocol::MAX_FRAME_BYTES};
use serde::Deserialize;

use super::error::EventLogError;

/// What one read of a probe takes: most lines are shorter.
const PROBE_BYTES: usize = 4096;

/// The durable part of a log file: `len` bytes that hold the events 1 to `last`.
#[derive(Debug, Clone)]
pub(super) struct LogFile {
    file: Arc<dyn Medium>,
    path: Arc<Path>,
    pub(super) len: u64,
    pub(super) last: u64,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

fn seq_of(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Numbered>(line).ok().map(|numbered| numbered.seq)
}

impl LogFile {
    /// Opens the log at `path`, cuts off what a crash left half-written, and makes the rest
    /// durable. None when there is no file.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, EventLogError> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Self::repair(Arc::new(file), path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("open", path, error)),
        }
    }

    /// Makes an empty log at `path`, and its directory entry durable.
    pub(super) fn create(path: &Path) -> Result<Self, EventLogError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| io_error("create", path, error))?;
        if let Some(dir) = path.parent() {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| io_error("sync", dir, error))?;
        }
        Self::repair(Arc::new(file), path)
    }

    pub(super) fn repair(file: Arc<dyn Medium>, path: &Path) -> Result<Self, EventLogError> {
        let size = file.size().map_err(|error| io_error("inspect", path, error))?;
        let mut log = Self { file, path: path.into(), len: 0, last: 0 };
        // Only the last append can have been cut short, and one is at most a frame long.
        let mut window = MAX_FRAME_BYTES as u64;
        loop {
            let start = size.saturating_sub(window);
            let bytes = log.read_at(start, size - start)?;
            if let Some((len, last)) = whole_lines(&bytes, start) {
                (log.len, log.last) = (len, last);
                break;
            }
            if start == 0 {
                break;
            }
            window = window.saturating_mul(4);
        }
        if log.len < size {
            tracing::warn!(path = %path.display(), cut = size - log.len, last = log.last, "event log repaired after a crash");
            log.file.set_len(log.len).map_err(|error| io_error("repair", path, error))?;
        }
        log.file.sync_data().map_err(|error| io_error("sync", path, error))?;
        Ok(log)
    }

    /// Appends `lines`, whose last event is `last`, and makes them durable. After an error nothing of
    /// them counts: the next append writes over them. So what a failed sync made Linux forget is
    /// written anew before it is synced again, and never taken for durable.
    pub(super) fn append(&mut self, lines: &[u8], last: u64) -> Result<(), EventLogError> {
        let written = self.file.write_all_at(lines, self.len).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            if let Err(error) = self.file.set_len(self.len) {
                tracing::error!(path = %self.path.display(), %error, "a failed append could not be cut off");
            }
            return Err(io_error("append to", &self.path, error));
        }
        self.len += lines.len() as u64;
        self.last = last;
        Ok(())
    }

    /// Where the line of event `seq` begins; the end of the log when it has none yet.
    ///
    /// A binary search: sequence numbers grow with the offset.
    pub(super) fn offset_of(&self, seq: u64) -> Result<u64, EventLogError> {
        if seq <= 1 {
            return Ok(0);
        }
        if seq > self.last {
            return Ok(self.len);
        }
        // Events before the line that begins at `low` are older than `seq`; the line of `seq`
        // begins before `high`.
        let (mut low, mut high) = (0, self.len);
        loop {
            let middle = low + (high - low) / 2;
            let begin = if middle == low { low } else { self.line_end(middle - 1)? };
            if begin >= high {
                high = middle;
                continue;
            }
            let end = self.line_end(begin)?;
            let line = self.read_at(begin, end - begin)?;
            let found =
                seq_of(&line).ok_or_else(|| EventLogError::Damaged { path: self.path.to_path_buf(), at: begin })?;
            if found == seq {
                return Ok(begin);
            }
            if found < seq {
                low = end;
            } else {
                high = begin.min(middle);
            }
            if low >= high {
                return Err(EventLogError::Damaged { path: self.path.to_path_buf(), at: begin });
            }
        }
    }

    /// Whole lines from `at` on: at most `limit` bytes, or one line that is longer.
    pub(super) fn lines_from(&self, at: u64, limit: usize) -> Result<Bytes, EventLogError> {
        let rest = self.len.saturating_sub(at);
        let mut bytes = self.read_at(at, rest.min(limit as u64))?;
        if let Some(last) = memrchr(b'\n', &bytes) {
            bytes.truncate(last + 1);
        } else if rest > 0 {
            bytes = self.read_at(at, self.line_end(at)? - at)?;
        }
        Ok(bytes.into())
    }

    /// As [`lines_from`](Self::lines_from), of what can be read without waiting for the disk; none where that is not a line.
    pub(super) fn lines_at_hand(&self, at: u64, limit: usize) -> Option<Bytes> {
        let rest = self.len.saturating_sub(at);
        let mut bytes = vec![0; limit.min(usize::try_from(rest).unwrap_or(limit))];
        let read = self.file.read_cached_at(&mut bytes, at);
        bytes.truncate(read);
        bytes.truncate(memrchr(b'\n', &bytes)? + 1);
        Some(bytes.into())
    }

    /// The last `count` lines: at most `limit` bytes, or one line that is longer.
    pub(super) fn tail(&self, count: usize, limit: usize) -> Result<Bytes, EventLogError> {
        if count == 0 || self.len == 0 {
            return Ok(Bytes::new());
        }
        let mut want = PROBE_BYTES as u64;
        loop {
            let start = self.len.saturating_sub(want);
            let bytes = self.read_at(start, self.len - start)?;
            // The newline before each line, from the end; the last byte ends the last line.
            let before = &bytes[..bytes.len() - 1];
            let mut begins = before.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
            let begin = begins.nth(count - 1).or((start == 0).then_some(0));
            if begin.is_some() || want >= limit as u64 {
                let earliest = bytes.len().saturating_sub(limit);
                let begin = begin.unwrap_or(0).max(earliest);
                let at_line = begin == 0 && start == 0 || begin > 0 && bytes[begin - 1] == b'\n';
                let begin = if at_line {
                    Some(begin)
                } else {
                    before[begin..].iter().position(|byte| *byte == b'\n').map(|at| begin + at + 1)
                };
                if let Some(begin) = begin {
                    return Ok(Bytes::from(bytes).slice(begin..));
                }
                return self.lines_from(self.offset_of(self.last)?, limit);
            }
            want *= 4;
        }
    }

    /// The offset after the newline that ends the line `at` is in.
    fn line_end(&self, mut at: u64) -> Result<u64, EventLogError> {
        while at < self.len {
            let bytes = self.read_at(at, (self.len - at).min(PROBE_BYTES as u64))?;
            if let Some(newline) = bytes.iter().position(|byte| *byte == b'\n') {
                return Ok(at + newline as u64 + 1);
            }
            at += bytes.len() as u64;
        }
        Ok(self.len)
    }

    fn read_at(&self, at: u64, len: u64) -> Result<Vec<u8>, EventLogError> {
        let too_long = || io_error("read", &self.path, io::ErrorKind::FileTooLarge.into());
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| too_long())?];
        self.file.read_exact_at(&mut bytes, at).map_err(|error| io_error("read", &self.path, error))?;
        Ok(bytes)
    }
}

/// The end of the last whole, readable and consecutive line, and its number. `bytes` begin at
/// offset `start`, in the middle of a line unless that is 0.
fn whole_lines(bytes: &[u8], start: u64) -> Option<(u64, u64)> {
    let mut at = if start == 0 { 0 } else { bytes.iter().position(|byte| *byte == b'\n')? + 1 };
    let mut last = (start == 0).then_some(0);
    let mut found = None;
    while let Some(newline) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let seq = seq_of(&bytes[at..at + newline]);
        match (seq, last) {
            (Some(seq), Some(before)) if seq != before + 1 => break,
            (Some(seq), _) => last = Some(seq),
            (None, _) => break,
        }
        at += newline + 1;
        found = last.map(|last| (start + at as u64, last));
    }
    found
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> EventLogError {
    EventLogError::Io { action, path: PathBuf::from(path), source }
}
