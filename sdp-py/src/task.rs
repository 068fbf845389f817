//! What goes on while Python does something else, for `asyncio`.

use pyo3::prelude::*;
use tokio::task::AbortHandle;

use crate::{error::Failure, process::OfProcess, runtime::shared};

/// Something under way, whose outcome a callback is told.
#[pyclass(frozen, module = "sdp._sdp")]
#[derive(Debug)]
pub(crate) struct Task {
    abort: OfProcess<AbortHandle>,
}

#[pymethods]
impl Task {
    /// Gives it up, if it is not done.
    fn cancel(&self) {
        if let Some(abort) = self.abort.get() {
            abort.abort();
        }
    }
}

/// Begins something, and tells `callback(answer, error)` how it ended, on a thread of the runtime's.
pub(crate) fn begin(
    future: impl Future<Output = Result<Option<String>, Failure>> + Send + 'static,
    callback: Py<PyAny>,
) -> PyResult<Task> {
    let shared = shared()?;
    let task = shared.runtime.spawn(async move {
        let outcome = future.await;
        shared.tell(|py| tell(py, &outcome, &callback));
    });
    Ok(Task { abort: OfProcess::new(task.abort_handle()) })
}

fn tell(py: Python<'_>, outcome: &Result<Option<String>, Failure>, callback: &Py<PyAny>) {
    let told = match outcome {
        Ok(answer) => callback.call1(py, (answer.as_deref(), py.None())),
        Err(failure) => match failure.exception(py) {
            Ok(exception) => callback.call1(py, (py.None(), exception)),
            Err(error) => callback.call1(py, (py.None(), error.into_value(py))),
        },
    };
    if let Err(error) = told {
        error.write_unraisable(py, None);
    }
}
