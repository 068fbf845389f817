//! What comes one after another: a log that is followed, what a program prints, what changes on the platform, a deployment
//! in this process.

use std::sync::Arc;

use pyo3::prelude::*;
use sdp_core::{
    DeploymentId, ErrorCode, Event, Problem,
    client::{Client, Follow, FollowOutput, Live, LiveFollow},
    deploy::Finished,
};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{late, limit},
    error::{Failure, write},
    process::OfProcess,
    runtime::wait,
    task::{Task, begin},
};

/// A deployment that runs in this process. Given up, it is cancelled and undone.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) cancel: CancellationToken,
    pub(crate) task: JoinHandle<Finished>,
    pub(crate) ended: Option<Value>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// What a program prints. The connection is made when the first line is asked for.
#[derive(Debug)]
enum Output {
    Asked { client: Client, id: DeploymentId, tail: Option<u32> },
    Open(Box<FollowOutput>),
}

impl Output {
    async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            match self {
                Self::Asked { client, id, tail } => {
                    *self = Self::Open(Box::new(client.follow_output(*id, *tail).await?))
                }
                Self::Open(follow) => return follow.next().await?.map(|line| write(&line)).transpose(),
            }
        }
    }
}

#[derive(Debug)]
enum Source {
    Follow(Box<Follow>),
    Output(Output),
    Live(Box<LiveFollow>),
    Run(Box<Run>),
}

impl Source {
    async fn next(&mut self) -> Result<Option<String>, Failure> {
        match self {
            Self::Follow(follow) => follow.next().await?.map(|event| line(&event)).transpose(),
            Self::Output(output) => output.next().await,
            Self::Live(live) => Ok(Some(match live.next().await? {
                Live::Event(event) => write(&event)?,
                Live::Begins(next) => write(&json!({ "type": "position", "next": next }))?,
                Live::Gap { from, oldest } => write(&json!({ "type": "gap", "from": from, "oldest": oldest }))?,
            })),
            Self::Run(run) => {
                if let Some(event) = run.events.recv().await {
                    return line(&event).map(Some);
                }
                if run.ended.is_none() {
                    let finished = (&mut run.task).await;
                    let finished = finished.map_err(|error| {
                        Problem::new(ErrorCode::Internal, format!("the deployment broke off: {error}"))
                    })?;
                    run.ended = Some(ended(&finished));
                }
                Ok(None)
            }
        }
    }

    fn end(&self) -> Option<Value> {
        match self {
            Self::Follow(follow) => follow.end().map(|(state, last)| json!({ "state": state, "last": last })),
            Self::Output(_) | Self::Live(_) => None,
            Self::Run(run) => run.ended.clone(),
        }
    }

    fn position(&self) -> Option<u64> {
        match self {
            Self::Follow(follow) => Some(follow.position()),
            Self::Live(live) => live.position(),
            Self::Output(_) | Self::Run(_) => None,
        }
    }
}

/// An event with its line for people.
fn line(event: &Event) -> Result<String, Failure> {
    let mut value = serde_json::to_value(event).unwrap_or_default();
    value["text"] = event.to_string().into();
    write(&value)
}

fn ended(finished: &Finished) -> Value {
    json!({
        "state": finished.state,
        "failure": finished.failure,
        "instance": finished.instance,
        "kept": finished.kept,
    })
}

/// What comes one after another.
#[pyclass(frozen, module = "sdp._sdp")]
#[derive(Debug)]
pub(crate) struct Stream {
    source: OfProcess<Arc<Mutex<Source>>>,
    cancel: CancellationToken,
}

impl Stream {
    pub(crate) fn follow(follow: Follow) -> Self {
        Self::new(Source::Follow(Box::new(follow)), CancellationToken::new())
    }

    pub(crate) fn output(client: Client, id: DeploymentId, tail: Option<u32>) -> Self {
        Self::new(Source::Output(Output::Asked { client, id, tail }), CancellationToken::new())
    }

    pub(crate) fn live(live: LiveFollow) -> Self {
        Self::new(Source::Live(Box::new(live)), CancellationToken::new())
    }

    pub(crate) fn run(run: Run) -> Self {
        let cancel = run.cancel.clone();
        Self::new(Source::Run(Box::new(run)), cancel)
    }

    fn new(source: Source, cancel: CancellationToken) -> Self {
        Self { source: OfProcess::new(Arc::new(Mutex::new(source))), cancel }
    }

    fn source(&self, py: Python<'_>) -> PyResult<Arc<Mutex<Source>>> {
        self.source.get().cloned().ok_or_else(|| Failure::forked("what is followed here").into_err(py))
    }
}

#[pymethods]
impl Stream {
    /// What comes next; none at the end. `timeout` is in seconds.
    #[pyo3(signature = (timeout=None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<String>> {
        let source = self.source(py)?;
        match wait(py, async { source.lock().await.next().await }, limit(timeout))? {
            Some(outcome) => outcome.map_err(|failure| failure.into_err(py)),
            None => Err(late(timeout)),
        }
    }

    /// The same, and tells `callback(answer, error)` how it ended.
    fn begin_next(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<Task> {
        let source = self.source(py)?;
        begin(async move { source.lock().await.next().await }, callback)
    }

    /// How it ended; none before, which it is while somebody waits for what comes next.
    fn end(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let end = self.source(py)?.try_lock().ok().and_then(|source| source.end());
        end.map(|end| write(&end)).transpose().map_err(|failure| failure.into_err(py))
    }

    /// The number of what comes next, where it has one and nobody waits for it.
    fn position(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        Ok(self.source(py)?.try_lock().ok().and_then(|source| source.position()))
    }

    /// Cancels a deployment of this process, which goes on to its end then.
    fn cancel(&self) {
        self.cancel.cancel();
    }
}
