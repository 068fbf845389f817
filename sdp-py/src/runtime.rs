//! One Tokio runtime for each process, made when it is first needed, and how Python's threads wait for it.

use std::{
    pin::pin,
    process,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pyo3::{exceptions::PyOSError, prelude::*};
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, timeout},
};

/// How often a waiting thread looks whether Ctrl-C was pressed.
const SIGNALS: Duration = Duration::from_millis(50);

/// The runtime, and the process whose it is. It is asked for with the interpreter's lock held and kept for a moment, so
/// that no `os.fork` happens meanwhile.
static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);

/// This process's runtime. A child that was forked gets one of its own: its parent's threads are not in it.
pub(crate) fn runtime() -> PyResult<&'static Runtime> {
    let mut made = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((owner, runtime)) = *made
        && owner == process::id()
    {
        return Ok(runtime);
    }
    let runtime = Builder::new_multi_thread().thread_name("sdp").enable_all().build();
    let runtime = runtime.map_err(|error| PyOSError::new_err(format!("no threads can be started: {error}")))?;
    // It lives as long as the process.
    let runtime: &'static Runtime = Box::leak(Box::new(runtime));
    *made = Some((process::id(), runtime));
    Ok(runtime)
}

/// Waits for a future without the interpreter's lock; none when `limit` has ended. Ctrl-C and other signals are
/// handled meanwhile, and drop the future if their handler raises.
pub(crate) fn wait<F>(py: Python<'_>, future: F, limit: Option<Duration>) -> PyResult<Option<F::Output>>
where
    F: Future + Send,
    F::Output: Send,
{
    let runtime = runtime()?;
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
