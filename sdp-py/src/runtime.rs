//! One Tokio runtime for each process, made when it is first needed, and how Python's threads wait for it.

use std::{
    pin::pin,
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use pyo3::{exceptions::PyOSError, prelude::*};
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, timeout},
};

/// How often a waiting thread looks whether Ctrl-C was pressed.
const SIGNALS: Duration = Duration::from_millis(50);

/// How long the interpreter's end waits for those that tell it something.
const FAREWELL: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(1);

/// A process's runtime.
#[derive(Debug)]
pub(crate) struct Shared {
    owner: u32,
    pub(crate) runtime: Runtime,
    /// How many of its threads use the interpreter now, or are about to.
    telling: AtomicUsize,
}

/// Whether the interpreter ends: no thread of a runtime may touch it any more.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// The runtime, and the process whose it is. It is asked for with the interpreter's lock held and kept for a moment, so
/// that no `os.fork` happens meanwhile.
static RUNTIME: Mutex<Option<&'static Shared>> = Mutex::new(None);

/// This process's runtime. A child that was forked gets one of its own: its parent's threads are not in it.
pub(crate) fn shared() -> PyResult<&'static Shared> {
    let mut made = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = made.filter(|shared| shared.owner == process::id()) {
        return Ok(shared);
    }
    let runtime = Builder::new_multi_thread().thread_name("sdp").enable_all().build();
    let runtime = runtime.map_err(|error| PyOSError::new_err(format!("no threads can be started: {error}")))?;
    // It lives as long as the process.
    let shared: &'static Shared =
        Box::leak(Box::new(Shared { owner: process::id(), runtime, telling: AtomicUsize::new(0) }));
    *made = Some(shared);
    Ok(shared)
}

/// This process's runtime itself.
pub(crate) fn runtime() -> PyResult<&'static Runtime> {
    shared().map(|shared| &shared.runtime)
}

impl Shared {
    /// Uses the interpreter on a thread of the runtime's, unless it ends: then nobody waits any more.
    pub(crate) fn tell(&self, what: impl FnOnce(Python<'_>)) {
        self.telling.fetch_add(1, Ordering::SeqCst);
        if !CLOSED.load(Ordering::SeqCst) {
            // Others go on while this thread waits for the interpreter's lock.
            tokio::task::block_in_place(|| Python::try_attach(what));
        }
        self.telling.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Called when the interpreter begins to end: a thread that were still using it then would crash.
pub(crate) fn close(py: Python<'_>) {
    CLOSED.store(true, Ordering::SeqCst);
    let made = *RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(shared) = made.filter(|shared| shared.owner == process::id()) else { return };
    py.detach(|| {
        let end = Instant::now() + FAREWELL;
        while shared.telling.load(Ordering::SeqCst) > 0 && Instant::now() < end {
            thread::sleep(PAUSE);
        }
    });
}

/// Waits for a future without the interpreter's lock; none when `limit` has ended. Ctrl-C and other signals are
/// handled meanwhile, and drop the future if their handler raises.
pub(crate) fn wait<F>(py: Python<'_>, future: F, limit: Option<Duration>) -> PyResult<Option<F::Output>>
where
    F: Future + Send,
    F::Output: Send,
{
    wait_on(py, runtime()?, future, limit)
}

/// The same, on another runtime.
pub(crate) fn wait_on<F>(
    py: Python<'_>,
    runtime: &Runtime,
    future: F,
    limit: Option<Duration>,
) -> PyResult<Option<F::Output>>
where
    F: Future + Send,
    F::Output: Send,
{
    let mut future = pin!(future);
    let end = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let left = end.map_or(SIGNALS, |end| end.saturating_duration_since(Instant::now()).min(SIGNALS));
        let done = py.detach(|| runtime.block_on(async { timeout(left, future.as_mut()).await.ok() }));
        if done.is_some() {
            return Ok(done);
        }
        py.check_signals()?;
        if end.is_some_and(|end| end <= Instant::now()) {
            return Ok(None);
        }
    }
}

/// Waits for as long as it takes.
pub(crate) fn finish<F>(py: Python<'_>, future: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    let done = wait(py, future, None)?;
    Ok(done.expect("a wait without a limit ends with what was waited for"))
}
