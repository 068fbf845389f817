//! What instances and commands print, read piece by piece: the server asks for the next lines when whoever follows has
//! taken those before, so that nothing heaps up on the way.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use futures_util::{StreamExt, stream::Peekable};
use sdp_core::{DeployError, ErrorCode, ExecEvent, ExecEvents, LogLine, Problem, model::units::format_duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout_at},
};
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
const MAX_COMMANDS: u16 = 16;

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
#[derive(Clone)]
pub(crate) struct Outputs {
    readers: Arc<Mutex<HashMap<u64, Arc<Reader>>>>,
    places: Arc<Semaphore>,
    /// Cancelled under the readers' lock when no more commands may begin.
    closed: CancellationToken,
}

/// A command's place among those that may run at once, from before it begins until it has ended or is let go.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "it is given back when it is dropped")] OwnedSemaphorePermit);

/// A command that has begun.
pub(crate) struct Command {
    pub(crate) events: ExecEvents,
    pub(crate) place: Place,
    /// How long it may take.
    pub(crate) limit: Duration,
}

struct Reader {
    /// One answer at a time. None when it was ended before its end.
    source: tokio::sync::Mutex<Option<Source>>,
    asked: Mutex<Instant>,
    is_command: bool,
    /// Ends an answer that is waited for: nothing is to hold a command any longer.
    over: CancellationToken,
    /// Why a command was ended.
    reason: OnceLock<Problem>,
}

struct Source {
    events: Peekable<ExecEvents>,
    _place: Option<Place>,
}

impl std::fmt::Debug for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outputs({} readers)", self.readers().len())
    }
}

impl Default for Outputs {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(MAX_COMMANDS.into()));
        Self { readers: Arc::default(), places, closed: CancellationToken::new() }
    }
}

impl Outputs {
    /// A place for a command; none while too many run, or the agent stops.
    pub(crate) fn admit_command(&self) -> Result<Place, Problem> {
        if self.closed.is_cancelled() {
            return Err(stopping());
        }
        Arc::clone(&self.places).try_acquire_owned().map(Place).map_err(|_| {
            let sentence =
                format!("{MAX_COMMANDS} commands run on this agent's machine already; wait until one has ended");
            Problem::new(ErrorCode::Conflict, sentence)
        })
    }

    /// Cancelled when the agent stops.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Begins to read a log.
    pub(crate) async fn begin(&self, reader: u64, events: ExecEvents) -> Result<Piece, Problem> {
        self.enter(reader, Reader::new(events, None), None).await
    }

    /// Begins to read what a command does, which is ended when it takes too long.
    pub(crate) async fn begin_command(&self, reader: u64, command: Command) -> Result<Piece, Problem> {
        let Command { events, place, limit } = command;
        self.enter(reader, Reader::new(events, Some(place)), Some(limit)).await
    }

    async fn enter(&self, id: u64, reader: Reader, limit: Option<Duration>) -> Result<Piece, Problem> {
        let new = Arc::new(reader);
        {
            let mut readers = self.readers();
            if new.is_command && self.closed.is_cancelled() {
                return Err(stopping());
            }
            let may_give_way = readers.iter().filter(|(_, reader)| !reader.is_command || reader.reason.get().is_some());
            if readers.len() >= MAX_READERS
                && let Some(oldest) = may_give_way.min_by_key(|(_, reader)| *reader.asked()).map(|(id, _)| *id)
                && let Some(oldest) = readers.remove(&oldest)
            {
                oldest.over.cancel();
            }
            readers.insert(id, Arc::clone(&new));
        }
        tokio::spawn(self.clone().watch(id, Arc::downgrade(&new), limit));
        self.answer(id, &new, BEGINNING).await
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
        let piece = match &mut *reader.source.lock().await {
            Some(source) => piece(&mut source.events, patience, &reader.over).await,
            None => Ok(Piece::default()),
        };
        reader.touch();
        let piece = match (piece, reader.reason.get()) {
            // What it has printed before is told before.
            (Ok(piece), _) if piece.ended || !piece.lines.is_empty() => Ok(piece),
            (Ok(_), Some(reason)) => Err(reason.clone()),
            (Ok(piece), None) => Ok(Piece { ended: reader.over.is_cancelled(), ..piece }),
            (Err(problem), _) => Err(problem),
        };
        if !matches!(piece, Ok(Piece { ended: false, .. })) {
            self.end(id);
        }
        piece
    }

    /// Ends every reader, and with them what commands run; from now on none begins.
    pub(crate) async fn close(&self) {
        let all: Vec<_> = {
            let readers = self.readers();
            self.closed.cancel();
            readers.iter().map(|(id, reader)| (*id, Arc::clone(reader))).collect()
        };
        for (id, reader) in all {
            if reader.is_command {
                let reason = "the agent stopped, and ended the command with it";
                reader.give_up(Problem::new(ErrorCode::AgentAway, reason)).await;
            } else {
                self.end(id);
            }
        }
    }

    /// After [`close`](Self::close): returns when no command is held any more, nor one that was about to begin.
    pub(crate) async fn let_go(&self) {
        // An error says that there are no places to wait for.
        let _ = self.places.acquire_many(MAX_COMMANDS.into()).await;
    }

    /// Ends a reader.
    pub(crate) fn end(&self, reader: u64) {
        if let Some(reader) = self.readers().remove(&reader) {
            reader.over.cancel();
        }
    }

    /// Ends a command that takes too long, whether or not somebody asks, and forgets a reader for whom nobody asks.
    async fn watch(self, id: u64, reader: Weak<Reader>, limit: Option<Duration>) {
        let mut deadline = limit.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit)));
        while let Some(reader) = reader.upgrade() {
            let (now, idle) = (Instant::now(), *reader.asked() + IDLE);
            if idle <= now {
                self.end(id);
                return;
            }
            let until = match deadline {
                Some((until, limit)) if until <= now => {
                    reader.give_up(too_long(limit)).await;
                    deadline = None;
                    idle
                }
                Some((until, _)) => until.min(idle),
                None => idle,
            };
            drop(reader);
            sleep_until(until).await;
        }
    }

    fn readers(&self) -> MutexGuard<'_, HashMap<u64, Arc<Reader>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    fn new(events: ExecEvents, place: Option<Place>) -> Self {
        let is_command = place.is_some();
        let source = Source { events: events.peekable(), _place: place };
        Self {
            source: tokio::sync::Mutex::new(Some(source)),
            asked: Mutex::new(Instant::now()),
            is_command,
            over: CancellationToken::new(),
            reason: OnceLock::new(),
        }
    }

    /// Lets a command go, and keeps why for who asks next.
    async fn give_up(&self, reason: Problem) {
        let _ = self.reason.set(reason);
        self.over.cancel();
        self.source.lock().await.take();
    }

    fn touch(&self) {
        *self.asked() = Instant::now();
    }

    fn asked(&self) -> MutexGuard<'_, Instant> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stopping() -> Problem {
    Problem::new(ErrorCode::AgentAway, "the agent is stopping; try again when it is back")
}

fn too_long(limit: Duration) -> Problem {
    let what = "the command was ended, as `deployer.exec_timeout` of its agent says: it".into();
    Problem::from(&DeployError::Timeout { what, limit: format_duration(limit) })
}

/// Lines that came before an error are answered before it.
async fn piece(
    events: &mut Peekable<ExecEvents>,
    patience: Duration,
    over: &CancellationToken,
) -> Result<Piece, Problem> {
    let (mut piece, mut bytes, mut limit) = (Piece::default(), 0, Instant::now() + patience);
    while bytes < PIECE_BYTES {
        match over.run_until_cancelled(timeout_at(limit, Pin::new(&mut *events).peek())).await {
            None | Some(Err(_)) => break,
            Some(Ok(Some(Err(_)))) if !piece.lines.is_empty() => break,
            Some(Ok(_)) => {}
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
    use futures_util::stream;
    use sdp_core::LogStream;

    use super::*;

    fn line(text: &str) -> Result<ExecEvent, DeployError> {
        Ok(ExecEvent::Line(LogLine { stream: LogStream::Stdout, line: text.into() }))
    }

    fn failed() -> Result<ExecEvent, DeployError> {
        Err(DeployError::Engine { action: "follow the log".into(), source: "gone".into() })
    }

    async fn next(events: &mut Peekable<ExecEvents>) -> Result<(usize, bool), ErrorCode> {
        let piece = piece(events, PATIENCE, &CancellationToken::new()).await;
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
            let lines = piece(&mut lines, PATIENCE, &CancellationToken::new()).await.unwrap().lines;
            let bytes = serde_json::to_vec(&lines).unwrap().len();
            assert!(bytes < sdp_core::protocol::MAX_FRAME_BYTES / 2, "{bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_for_whom_nobody_asks_is_forgotten() {
        let outputs = Outputs::default();
        let reader = Arc::new(Reader::new(stream::pending().boxed(), None));
        outputs.readers().insert(1, Arc::clone(&reader));
        let forget = tokio::spawn(outputs.clone().watch(1, Arc::downgrade(&reader), None));
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
        let piece = piece(&mut events, PATIENCE, &CancellationToken::new()).await.unwrap();
        assert_eq!((piece.lines.len(), piece.ended, piece.exit_code), (1, true, Some(3)));
    }

    /// Events that go on for ever, and what is told when they are let go.
    fn endless(lines: &[&str]) -> (ExecEvents, tokio::sync::oneshot::Receiver<()>) {
        let (alive, ended) = tokio::sync::oneshot::channel::<()>();
        let hangs = stream::once(async move {
            let _alive = alive;
            std::future::pending().await
        });
        let lines: Vec<_> = lines.iter().map(|text| line(text)).collect();
        (stream::iter(lines).chain(hangs).boxed(), ended)
    }

    fn command(outputs: &Outputs, events: ExecEvents, limit: Duration) -> Command {
        Command { events, place: outputs.admit_command().unwrap(), limit }
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_takes_too_long_is_ended_and_says_so() {
        let (outputs, (events, ended)) = (Outputs::default(), endless(&["a"]));
        let begun = outputs.begin_command(1, command(&outputs, events, PATIENCE * 3 / 2)).await.unwrap();
        assert_eq!((begun.lines.len(), begun.ended), (1, false));
        assert_eq!(outputs.go_on(1, PATIENCE).await.unwrap(), Piece::default());
        assert_eq!(outputs.go_on(1, PATIENCE).await.unwrap_err().code, ErrorCode::Timeout);
        assert!(ended.await.is_err(), "it was let go");
        assert_eq!(outputs.go_on(1, PATIENCE).await.unwrap_err().code, ErrorCode::NotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_always_has_a_line_is_ended_too() {
        let outputs = Outputs::default();
        let events = stream::repeat_with(|| line("y")).boxed();
        outputs.begin_command(1, command(&outputs, events, PATIENCE)).await.unwrap();
        for _ in 0..100 {
            tokio::time::advance(PATIENCE / 10).await;
            match outputs.go_on(1, PATIENCE).await {
                Ok(piece) => assert!(!piece.ended),
                Err(problem) => return assert_eq!(problem.code, ErrorCode::Timeout),
            }
        }
        panic!("it goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_is_ended_in_time_while_nobody_asks_and_says_so_later() {
        let (outputs, (events, ended)) = (Outputs::default(), endless(&[]));
        outputs.begin_command(1, command(&outputs, events, PATIENCE)).await.unwrap();
        let began = Instant::now();
        assert!(ended.await.is_err(), "it was let go");
        assert!(began.elapsed() <= PATIENCE, "{:?}", began.elapsed());
        assert_eq!(outputs.places.available_permits(), usize::from(MAX_COMMANDS), "its place is free");
        tokio::time::sleep(IDLE / 2).await;
        assert_eq!(outputs.go_on(1, PATIENCE).await.unwrap_err().code, ErrorCode::Timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_waited_for_ends_with_its_reader() {
        let (outputs, (events, ended)) = (Outputs::default(), endless(&[]));
        assert_eq!(outputs.begin_command(1, command(&outputs, events, IDLE)).await.unwrap(), Piece::default());
        let began = Instant::now();
        let (piece, ()) = tokio::join!(outputs.go_on(1, PATIENCE), async { outputs.end(1) });
        assert!(piece.unwrap().ended && began.elapsed() < PATIENCE);
        assert!(ended.await.is_err(), "it was let go");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopping_agent_lets_commands_go_says_so_and_begins_no_more() {
        let (outputs, (waited, first), (other, second)) = (Outputs::default(), endless(&[]), endless(&[]));
        outputs.begin_command(1, command(&outputs, waited, IDLE)).await.unwrap();
        outputs.begin_command(2, command(&outputs, other, IDLE)).await.unwrap();
        let (late, late_ended) = endless(&[]);
        let late = command(&outputs, late, IDLE);
        outputs.begin(3, stream::pending().boxed()).await.unwrap();

        let began = Instant::now();
        let (told, ()) = tokio::join!(outputs.go_on(1, PATIENCE), outputs.close());
        assert!(first.await.is_err() && second.await.is_err(), "they were let go");
        let told = [told, outputs.go_on(2, PATIENCE).await].map(|told| told.unwrap_err());
        for problem in told {
            assert!(problem.code == ErrorCode::AgentAway && problem.detail.contains("stopped"), "{problem}");
        }
        assert_eq!(outputs.admit_command().unwrap_err().code, ErrorCode::AgentAway);
        assert_eq!(outputs.places.available_permits(), usize::from(MAX_COMMANDS) - 1, "one is about to begin");
        let (refused, ()) = tokio::join!(outputs.begin_command(4, late), outputs.let_go());
        assert_eq!(refused.unwrap_err().code, ErrorCode::AgentAway);
        assert!(late_ended.await.is_err(), "it was let go");
        assert!(began.elapsed() < PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn commands_keep_their_places_and_too_many_are_refused() {
        let outputs = Outputs::default();
        // As many as are about to begin at once.
        let places: Vec<_> = (0..MAX_COMMANDS).map(|_| outputs.admit_command().unwrap()).collect();
        assert_eq!(outputs.admit_command().unwrap_err().code, ErrorCode::Conflict);
        for (id, place) in (0..).zip(places) {
            let events = stream::pending().boxed();
            outputs.begin_command(id, Command { events, place, limit: IDLE }).await.unwrap();
        }
        assert_eq!(outputs.admit_command().unwrap_err().code, ErrorCode::Conflict);
        for id in 100..100 + MAX_READERS as u64 {
            outputs.begin(id, stream::pending().boxed()).await.unwrap();
        }
        {
            let readers = outputs.readers();
            let commands = readers.values().filter(|reader| reader.is_command).count();
            assert_eq!((readers.len(), commands), (MAX_READERS, usize::from(MAX_COMMANDS)));
        }
        outputs.end(0);
        outputs.admit_command().unwrap();
    }
}
