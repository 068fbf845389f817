//! What instances print, read piece by piece: the server asks for the next lines when whoever follows has taken those
//! before, so that nothing heaps up on the way.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::{StreamExt, stream::Peekable};
use sdp_core::{Deployer, ErrorCode, InstanceKey, LogLine, LogLines, LogOptions, Problem};
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long an answer waits for a first line.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long after its first line an answer waits for others. Programs print in bursts.
const BURST: Duration = Duration::from_millis(10);

/// How long the first answer waits: it tells that the reader is there.
const BEGINNING: Duration = Duration::from_millis(100);

/// About how much an answer holds.
const PIECE_BYTES: usize = 256 * 1024;

/// What a line costs besides its text.
const LINE_BYTES: usize = 40;

/// After how long without a question a reader is gone: who reads in a pager may take a quarter of an hour for a page.
const IDLE: Duration = Duration::from_secs(20 * 60);

/// So many at once, as each holds a connection of the container engine: a further one takes the place of the one who
/// has not asked for longest.
const MAX_READERS: usize = 64;

/// Lines, and whether they are the last.
pub(crate) type Piece = (Vec<LogLine>, bool);

/// The readers there are. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Outputs {
    readers: Arc<Mutex<HashMap<u64, Arc<Reader>>>>,
}

struct Reader {
    /// One answer at a time.
    lines: tokio::sync::Mutex<Peekable<LogLines>>,
    asked: Mutex<Instant>,
}

impl std::fmt::Debug for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outputs({} readers)", self.readers().len())
    }
}

impl Outputs {
    /// Begins to read.
    pub(crate) async fn begin(
        &self,
        deployer: &dyn Deployer,
        key: &InstanceKey,
        reader: u64,
        options: LogOptions,
    ) -> Result<Piece, Problem> {
        let lines = deployer.logs(key, options).await.map_err(|error| Problem::from(&error))?;
        let new = Reader { lines: tokio::sync::Mutex::new(lines.peekable()), asked: Mutex::new(Instant::now()) };
        let new = Arc::new(new);
        {
            let mut readers = self.readers();
            if readers.len() >= MAX_READERS
                && let Some(oldest) = readers.iter().min_by_key(|(_, reader)| *reader.asked()).map(|(id, _)| *id)
            {
                readers.remove(&oldest);
            }
            readers.insert(reader, Arc::clone(&new));
        }
        tokio::spawn(self.clone().forget(reader, Arc::downgrade(&new)));
        self.answer(reader, &new, BEGINNING).await
    }

    /// Goes on, and waits at most so long for a line.
    pub(crate) async fn go_on(&self, reader: u64, patience: Duration) -> Result<Piece, Problem> {
        let known = self.readers().get(&reader).cloned();
        let known = known.ok_or_else(|| {
            let sentence =
                "the agent does not know that reader any more: it was restarted, or too many others came; begin again";
            Problem::new(ErrorCode::NotFound, sentence)
        })?;
        self.answer(reader, &known, patience.min(PATIENCE)).await
    }

    async fn answer(&self, id: u64, reader: &Reader, patience: Duration) -> Result<Piece, Problem> {
        reader.touch();
        let piece = piece(&mut *reader.lines.lock().await, patience).await;
        reader.touch();
        if !matches!(piece, Ok((_, false))) {
            self.end(id);
        }
        piece
    }

    /// Ends a reader.
    pub(crate) fn end(&self, reader: u64) {
        self.readers().remove(&reader);
    }

    /// Forgets a reader whom nobody asks for.
    async fn forget(self, id: u64, reader: Weak<Reader>) {
        loop {
            let Some(until) = reader.upgrade().map(|reader| *reader.asked() + IDLE) else { return };
            if until <= Instant::now() {
                break;
            }
            sleep_until(until).await;
        }
        self.end(id);
    }

    fn readers(&self) -> MutexGuard<'_, HashMap<u64, Arc<Reader>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    fn touch(&self) {
        *self.asked() = Instant::now();
    }

    fn asked(&self) -> MutexGuard<'_, Instant> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lines that came before an error are answered before it.
async fn piece(lines: &mut Peekable<LogLines>, patience: Duration) -> Result<Piece, Problem> {
    let (mut piece, mut bytes, mut limit) = (Vec::new(), 0, Instant::now() + patience);
    while bytes < PIECE_BYTES {
        match timeout_at(limit, Pin::new(&mut *lines).peek()).await {
            Err(_) => break,
            Ok(None) => return Ok((piece, true)),
            Ok(Some(Err(_))) if !piece.is_empty() => break,
            Ok(Some(_)) => {}
        }
        if let Some(line) = lines.next().await {
            let line = line.map_err(|error| Problem::from(&error))?;
            bytes += line.line.len() + LINE_BYTES;
            piece.push(line);
        }
        limit = limit.min(Instant::now() + BURST);
    }
    Ok((piece, false))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use sdp_core::{DeployError, LogStream};

    use super::*;

    fn line(text: &str) -> Result<LogLine, DeployError> {
        Ok(LogLine { stream: LogStream::Stdout, line: text.into() })
    }

    fn failed() -> Result<LogLine, DeployError> {
        Err(DeployError::Engine { action: "follow the log".into(), source: "gone".into() })
    }

    async fn next(lines: &mut Peekable<LogLines>) -> Result<(usize, bool), ErrorCode> {
        let piece = piece(lines, PATIENCE).await;
        piece.map(|(lines, ended)| (lines.len(), ended)).map_err(|problem| problem.code)
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_is_what_there_is_and_an_empty_one_says_that_it_goes_on() {
        let later = stream::once(async {
            tokio::time::sleep(PATIENCE * 3 / 2).await;
            line("c")
        });
        let mut lines = stream::iter([line("a"), line("b")]).chain(later).boxed().peekable();
        assert_eq!(next(&mut lines).await, Ok((2, false)));
        assert_eq!(next(&mut lines).await, Ok((0, false)));
        assert_eq!(next(&mut lines).await, Ok((1, true)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_before_an_error_is_told_before_it() {
        let mut lines = stream::iter([line("a"), failed()]).boxed().peekable();
        assert_eq!(next(&mut lines).await, Ok((1, false)));
        assert_eq!(next(&mut lines).await, Err(ErrorCode::EngineUnavailable));
    }

    #[tokio::test(start_paused = true)]
    async fn no_piece_is_larger_than_a_frame() {
        let long = "\u{1}".repeat(sdp_core::MAX_LINE_BYTES);
        for text in [String::new(), long] {
            let mut lines = stream::repeat_with(move || line(&text)).boxed().peekable();
            let (lines, _) = piece(&mut lines, PATIENCE).await.unwrap();
            let bytes = serde_json::to_vec(&lines).unwrap().len();
            assert!(bytes < sdp_core::protocol::MAX_FRAME_BYTES / 2, "{bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_for_whom_nobody_asks_is_forgotten() {
        let outputs = Outputs::default();
        let lines = stream::pending().boxed().peekable();
        let reader = Reader { lines: tokio::sync::Mutex::new(lines), asked: Mutex::new(Instant::now()) };
        let reader = Arc::new(reader);
        outputs.readers().insert(1, Arc::clone(&reader));
        let forget = tokio::spawn(outputs.clone().forget(1, Arc::downgrade(&reader)));
        drop(reader);
        for _ in 0..3 {
            tokio::time::sleep(IDLE * 2 / 3).await;
            assert_eq!(outputs.go_on(1, PATIENCE).await.unwrap(), (vec![], false));
        }
        forget.await.unwrap();
        assert_eq!(outputs.go_on(1, PATIENCE).await.unwrap_err().code, ErrorCode::NotFound);
    }
}
