//! What instances and commands print, read piece by piece: the server asks for the next lines when whoever follows has
//! taken those before, so that nothing heaps up on the way.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::{
    StreamExt,
    stream::{self, Peekable},
};
use sdp_core::{DeployError, ErrorCode, ExecEvent, ExecEvents, LogLine, Problem, model::units::format_duration};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

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

/// So many commands at once, which keep their places.
const MAX_COMMANDS: usize = 16;

/// The next of what is read.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Piece {
    pub(crate) lines: Vec<LogLine>,
    /// Whether it is the last.
    pub(crate) ended: bool,
    /// How a command has exited.
    pub(crate) exit_code: Option<i64>,
}

/// The readers there are. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Outputs {
    readers: Arc<Mutex<HashMap<u64, Arc<Reader>>>>,
}

struct Reader {
    /// One answer at a time.
    events: tokio::sync::Mutex<Peekable<ExecEvents>>,
    asked: Mutex<Instant>,
    is_command: bool,
    /// Ends an answer that is waited for: nothing is to hold a command any longer.
    over: CancellationToken,
}

impl std::fmt::Debug for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outputs({} readers)", self.readers().len())
    }
}

impl Outputs {
    /// Refuses a command while too many run.
    pub(crate) fn admit_command(&self) -> Result<(), Problem> {
        if self.readers().values().filter(|reader| reader.is_command).count() < MAX_COMMANDS {
            return Ok(());
        }
        let sentence = format!("{MAX_COMMANDS} commands run on this agent's machine already; wait until one has ended");
        Err(Problem::new(ErrorCode::Conflict, sentence))
    }

    /// Begins to read a log, or what a command does.
    pub(crate) async fn begin(&self, reader: u64, events: ExecEvents, is_command: bool) -> Result<Piece, Problem> {
        let new = Arc::new(Reader::new(events, is_command));
        {
            let mut readers = self.readers();
            let logs = readers.iter().filter(|(_, reader)| !reader.is_command);
            if readers.len() >= MAX_READERS
                && let Some(oldest) = logs.min_by_key(|(_, reader)| *reader.asked()).map(|(id, _)| *id)
                && let Some(oldest) = readers.remove(&oldest)
            {
                oldest.over.cancel();
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
        let piece = async { piece(&mut *reader.events.lock().await, patience).await };
        let over = || Ok(Piece { ended: true, ..Piece::default() });
        let piece = reader.over.run_until_cancelled(piece).await.unwrap_or_else(over);
        reader.touch();
        if !matches!(piece, Ok(Piece { ended: false, .. })) {
            self.end(id);
        }
        piece
    }

    /// Ends every reader, and with them what commands run.
    pub(crate) fn end_all(&self) {
        self.readers().drain().for_each(|(_, reader)| reader.over.cancel());
    }

    /// Ends a reader.
    pub(crate) fn end(&self, reader: u64) {
        if let Some(reader) = self.readers().remove(&reader) {
            reader.over.cancel();
        }
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
    fn new(events: ExecEvents, is_command: bool) -> Self {
        let events = tokio::sync::Mutex::new(events.peekable());
        Self { events, asked: Mutex::new(Instant::now()), is_command, over: CancellationToken::new() }
    }

    fn touch(&self) {
        *self.asked() = Instant::now();
    }

    fn asked(&self) -> MutexGuard<'_, Instant> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a command does, which is ended when it takes longer.
pub(crate) fn within(limit: Duration, events: ExecEvents) -> ExecEvents {
    let deadline = Instant::now() + limit;
    let limited = stream::unfold(Some(events), move |events| async move {
        let mut events: ExecEvents = events?;
        match timeout_at(deadline, events.next()).await {
            Ok(event) => Some((event?, Some(events))),
            Err(_) => {
                let what = "the command was ended, as `deployer.exec_timeout` of its agent says: it".into();
                let limit = format_duration(limit);
                Some((Err(DeployError::Timeout { what, limit }), None))
            }
        }
    });
    limited.boxed()
}

/// Lines that came before an error are answered before it.
async fn piece(events: &mut Peekable<ExecEvents>, patience: Duration) -> Result<Piece, Problem> {
    let (mut piece, mut bytes, mut limit) = (Piece::default(), 0, Instant::now() + patience);
    while bytes < PIECE_BYTES {
        match timeout_at(limit, Pin::new(&mut *events).peek()).await {
            Err(_) => break,
            Ok(Some(Err(_))) if !piece.lines.is_empty() => break,
            Ok(_) => {}
        }
        match events.next().await.transpose().map_err(|error| Problem::from(&error))? {
            Some(ExecEvent::Line(line)) => {
                bytes += line.line.len() + LINE_BYTES;
                piece.lines.push(line);
            }
            end => {
                piece.ended = true;
                if let Some(ExecEvent::Exited(code)) = end {
                    piece.exit_code = Some(code);
                }
                break;
            }
        }
        limit = limit.min(Instant::now() + BURST);
    }
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use sdp_core::LogStream;

    use super::*;

    fn line(text: &str) -> Result<ExecEvent, DeployError> {
        Ok(ExecEvent::Line(LogLine { stream: LogStream::Stdout, line: text.into() }))
    }

    fn failed() -> Result<ExecEvent, DeployError> {
        Err(DeployError::Engine { action: "follow the log".into(), source: "gone".into() })
    }

    async fn next(events: &mut Peekable<ExecEvents>) -> Result<(usize, bool), ErrorCode> {
        let piece = piece(events, PATIENCE).await;
        piece.map(|piece| (piece.lines.len(), piece.ended)).map_err(|problem| problem.code)
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
            let lines = piece(&mut lines, PATIENCE).await.unwrap().lines;
            let bytes = serde_json::to_vec(&lines).unwrap().len();
            assert!(bytes < sdp_core::protocol::MAX_FRAME_BYTES / 2, "{bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_for_whom_nobody_asks_is_forgotten() {
        let outputs = Outputs::default();
        let reader = Arc::new(Reader::new(stream::pending().boxed(), false));
        outputs.readers().insert(1, Arc::clone(&reader));
        let forget = tokio::spawn(outputs.clone().forget(1, Arc::downgrade(&reader)));
        drop(reader);
        for _ in 0..3 {
            tokio::time::sleep(IDLE * 2 / 3).await;
            assert_eq!(outputs.go_on(1, PATIENCE).await.unwrap(), Piece::default());
        }
        forget.await.unwrap();
        assert_eq!(outputs.go_on(1, PATIENCE).await.unwrap_err().code, ErrorCode::NotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn how_a_command_exits_is_told_with_its_last_lines() {
        let mut events = stream::iter([line("a"), Ok(ExecEvent::Exited(3))]).boxed().peekable();
        let piece = piece(&mut events, PATIENCE).await.unwrap();
        assert_eq!((piece.lines.len(), piece.ended, piece.exit_code), (1, true, Some(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_takes_too_long_is_ended_and_says_so() {
        let (alive, ended) = tokio::sync::oneshot::channel::<()>();
        let hangs = stream::once(async move {
            let _alive = alive;
            std::future::pending().await
        });
        let mut events = within(PATIENCE * 3 / 2, stream::iter([line("a")]).chain(hangs).boxed()).peekable();
        assert_eq!(next(&mut events).await, Ok((1, false)));
        assert_eq!(next(&mut events).await, Ok((0, false)));
        assert_eq!(next(&mut events).await, Err(ErrorCode::Timeout));
        assert!(ended.await.is_err(), "it was let go");
        assert_eq!(next(&mut events).await, Ok((0, true)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_waited_for_ends_with_its_reader() {
        let (outputs, (alive, ended)) = (Outputs::default(), tokio::sync::oneshot::channel::<()>());
        let hangs = stream::once(async move {
            let _alive = alive;
            std::future::pending().await
        });
        assert_eq!(outputs.begin(1, hangs.boxed(), true).await.unwrap(), Piece::default());
        let began = Instant::now();
        let (piece, ()) = tokio::join!(outputs.go_on(1, PATIENCE), async { outputs.end(1) });
        assert!(piece.unwrap().ended && began.elapsed() < PATIENCE);
        assert!(ended.await.is_err(), "it was let go");
    }

    #[tokio::test(start_paused = true)]
    async fn commands_keep_their_places_and_too_many_are_refused() {
        let outputs = Outputs::default();
        let begin = async |id: u64, is_command| {
            outputs.begin(id, stream::pending().boxed(), is_command).await.unwrap();
        };
        for id in 0..MAX_COMMANDS as u64 {
            outputs.admit_command().unwrap();
            begin(id, true).await;
        }
        assert_eq!(outputs.admit_command().unwrap_err().code, ErrorCode::Conflict);
        for id in 100..100 + MAX_READERS as u64 {
            begin(id, false).await;
        }
        let readers = outputs.readers();
        assert_eq!(
            (readers.len(), readers.values().filter(|reader| reader.is_command).count()),
            (MAX_READERS, MAX_COMMANDS)
        );
    }
}
