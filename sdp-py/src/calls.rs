//! Calls that are waited for. They have a runtime of their own that only the waiting threads drive: a request goes out, and
//! its answer comes in, on the thread that asked, with no other to be woken on the way.

use std::time::Duration;

use pyo3::{exceptions::PyOSError, prelude::*};
use sdp_core::client::Client;
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
};

use crate::{error::Failure, request::perform, runtime::wait_on};

/// A client for calls that are waited for.
#[derive(Debug)]
pub(crate) struct Calls {
    client: Client,
    /// Taken when this is dropped.
    runtime: Option<Runtime>,
}

impl Calls {
    /// The same client as another, with connections on a runtime of its own.
    pub(crate) fn new(client: &Client) -> PyResult<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| PyOSError::new_err(format!("no requests can be made: {error}")))?;
        Ok(Self { client: client.with_own_connections(), runtime: Some(runtime) })
    }

    /// Does what `op` names with the JSON `body`; none when `limit` has ended.
    pub(crate) fn call(
        &self,
        py: Python<'_>,
        op: &str,
        body: &str,
        limit: Option<Duration>,
    ) -> PyResult<Option<Result<String, Failure>>> {
        let runtime = self.runtime.as_ref().expect("it is there until this is dropped");
        let call = async {
            // One that the server has closed meanwhile is not used again.
            look().await;
            perform(self.client.clone(), op, body).await
        };
        let told = wait_on(py, runtime, call, limit);
        if !matches!(told, Ok(Some(_))) {
            // The connection of what was given up is closed now and not with the next call: the server has it end.
            py.detach(|| runtime.block_on(look()));
        }
        told
    }
}

/// Between calls nobody looks at the connections: first the runtime sees what came, then the connections do.
async fn look() {
    yield_now().await;
    yield_now().await;
}

impl Drop for Calls {
    fn drop(&mut self) {
        // Waiting for a look-up of a name, which may be under way, is not allowed everywhere.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
