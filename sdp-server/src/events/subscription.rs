//! A reader that follows one log.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    error::EventLogError,
    file::LogFile,
    log::{Log, View, blocking},
};

/// The most bytes that one [`Subscription::next`] gives, unless a single line is longer: what a reader
/// that takes nothing costs in memory, and enough that those who do are not asked often.
///
/// With a frame's head it fits into one segment on the loopback (65,483 bytes), where a reverse proxy is. A message of
/// 64 KiB and its head do not: each drags a segment of some bytes behind it, and ten busy followers were five times as late.
const CHUNK_BYTES: usize = 63 * 1024;

/// A position in one deployment's log. It costs the same however far behind it is.
#[derive(Debug)]
pub struct Subscription {
    log: Arc<Log>,
    view: watch::Receiver<View>,
    from: u64,
    /// The byte to read next, once the line of `from` was found.
    at: Option<u64>,
}

enum Step {
    Wait,
    Have(u64, Bytes),
    Read(LogFile),
}

impl Subscription {
    pub(super) fn new(log: Arc<Log>, from: u64) -> Self {
        Self { view: log.watch(), log, from: from.max(1), at: None }
    }

    /// The next whole lines, as they stand in the log: at most 63 KiB, or one line that is longer.
    /// None when the log is finished and was read to its end. Cancel-safe.
    ///
    /// # Errors
    /// [`EventLogError`] when the file cannot be read; another call tries again.
    pub async fn next(&mut self) -> Result<Option<Bytes>, EventLogError> {
        self.log.file().await?;
        loop {
            let known = self.at;
            let step = {
                let view = self.view.borrow_and_update();
                let file =
                    view.file.as_ref().filter(|file| file.last >= self.from && known.is_none_or(|at| at < file.len));
                match (file, known) {
                    (None, _) if view.finished => return Ok(None),
                    (None, _) => Step::Wait,
                    (Some(file), Some(at)) => match view.recent.from(at, CHUNK_BYTES) {
                        Some(lines) => Step::Have(at, lines),
                        None => Step::Read(file.clone()),
                    },
                    (Some(file), None) => Step::Read(file.clone()),
                }
            };
            let (at, lines) = match step {
                Step::Wait => {
                    if self.view.changed().await.is_err() {
                        return Ok(None);
                    }
                    continue;
                }
                Step::Have(at, lines) => (at, lines),
                // Another thread for each would cost more than most of these reads.
                Step::Read(file) => match known.and_then(|at| Some((at, file.lines_at_hand(at, CHUNK_BYTES)?))) {
                    Some(at_hand) => at_hand,
                    None => {
                        let from = self.from;
                        let read = blocking(move || {
                            let at = known.map_or_else(|| file.offset_of(from), Ok)?;
                            Ok((at, file.lines_from(at, CHUNK_BYTES)?))
                        });
                        read.await?
                    }
                },
            };
            self.at = Some(at + lines.len() as u64);
            return Ok(Some(lines));
        }
    }
}
