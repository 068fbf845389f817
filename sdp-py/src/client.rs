//! The client.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pyo3::{exceptions::PyTimeoutError, prelude::*};
use sdp_core::{
    DeploymentId,
    api::logs::OutputTail,
    client::{self, ClientOptions, ServerAddress},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::{
    calls::Calls,
    error::{Failure, read},
    process::OfProcess,
    request::{With, perform},
    stream::Stream,
    task::{Task, begin},
};

/// How patient it is; times are in seconds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    connect_timeout: Option<f64>,
    request_timeout: Option<f64>,
    reconnect_for: Option<f64>,
    retries: Option<u32>,
    ca_file: Option<PathBuf>,
}

impl Options {
    fn apply(self) -> Result<ClientOptions, Failure> {
        let mut options = ClientOptions::default();
        for (name, given, option) in [
            ("connect_timeout", self.connect_timeout, &mut options.connect_timeout),
            ("request_timeout", self.request_timeout, &mut options.request_timeout),
            ("reconnect_for", self.reconnect_for, &mut options.reconnect_for),
        ] {
            if let Some(seconds) = given {
                *option = Duration::try_from_secs_f64(seconds)
                    .map_err(|_| Failure::settings(format!("{name} is {seconds}; write seconds, 0 or more")))?;
            }
        }
        options.retries = self.retries.unwrap_or(options.retries);
        options.ca_file = self.ca_file;
        options.user_agent = concat!("sdp-python/", env!("CARGO_PKG_VERSION")).into();
        Ok(options)
    }
}

/// A client of one server, for one person or script.
#[pyclass(frozen, module = "sdp._sdp")]
#[derive(Debug)]
pub(crate) struct Client {
    address: ServerAddress,
    options: ClientOptions,
    token: Option<SecretString>,
    /// With its connections, which a forked child does not share.
    made: Mutex<OfProcess<client::Client>>,
    /// For calls that are waited for, once there was one.
    calls: Mutex<Option<OfProcess<Arc<Calls>>>>,
}

impl Client {
    fn new(address: ServerAddress, options: ClientOptions, token: Option<SecretString>) -> Result<Self, Failure> {
        let made = Mutex::new(OfProcess::new(make(&address, &options, token.clone())?));
        Ok(Self { address, options, token, made, calls: Mutex::new(None) })
    }

    fn client(&self) -> Result<client::Client, Failure> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get() {
            return Ok(client.clone());
        }
        let client = make(&self.address, &self.options, self.token.clone())?;
        *made = OfProcess::new(client.clone());
        Ok(client)
    }

    fn calls(&self, py: Python<'_>) -> PyResult<Arc<Calls>> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = calls.as_ref().and_then(OfProcess::get) {
            return Ok(Arc::clone(calls));
        }
        let client = self.client().map_err(|failure| failure.into_err(py))?;
        let made = Arc::new(Calls::new(&client)?);
        *calls = Some(OfProcess::new(Arc::clone(&made)));
        Ok(made)
    }
}

fn make(
    address: &ServerAddress,
    options: &ClientOptions,
    token: Option<SecretString>,
) -> Result<client::Client, Failure> {
    let client = client::Client::new(address.clone(), options.clone())?;
    Ok(match token {
        Some(token) => client.with_token(token)?,
        None => client,
    })
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (url, token, options))]
    fn py_new(py: Python<'_>, url: &str, token: Option<String>, options: &str) -> PyResult<Self> {
        let made = || {
            let address = url.parse::<ServerAddress>().map_err(|error| Failure::settings(error.to_string()))?;
            Self::new(address, read::<Options>(options)?.apply()?, token.map(Into::into))
        };
        made().map_err(|failure: Failure| failure.into_err(py))
    }

    /// The same with another token, or none.
    #[pyo3(signature = (token))]
    fn with_token(&self, py: Python<'_>, token: Option<String>) -> PyResult<Self> {
        let client = Self::new(self.address.clone(), self.options.clone(), token.map(Into::into));
        client.map_err(|failure| failure.into_err(py))
    }

    #[getter]
    fn url(&self) -> &str {
        self.address.as_str()
    }

    #[getter]
    fn token(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.expose_secret())
    }

    /// Does what `op` names with the JSON `body`, and answers JSON. `timeout` is in seconds.
    #[pyo3(signature = (op, body, timeout=None))]
    fn call(&self, py: Python<'_>, op: &str, body: &str, timeout: Option<f64>) -> PyResult<String> {
        match self.calls(py)?.call(py, op, body, limit(timeout))? {
            Some(outcome) => outcome.map_err(|failure| failure.into_err(py)),
            None => Err(late(timeout)),
        }
    }

    /// The same, and tells `callback(answer, error)` how it ended.
    fn begin(&self, py: Python<'_>, op: String, body: String, callback: Py<PyAny>) -> PyResult<Task> {
        let client = self.client().map_err(|failure| failure.into_err(py))?;
        begin(async move { perform(client, &op, &body).await.map(Some) }, callback)
    }

    /// A deployment's log from a line on.
    fn follow(&self, py: Python<'_>, id: &str, from: u64) -> PyResult<Stream> {
        let id = read(&serde_json::Value::from(id).to_string()).map_err(|failure| failure.into_err(py))?;
        let client = self.client().map_err(|failure| failure.into_err(py))?;
        Ok(Stream::follow(client.follow(id, from)))
    }

    /// What a deployment's program prints; the JSON `body` names it, and says how much of what was printed already.
    fn follow_output(&self, py: Python<'_>, body: &str) -> PyResult<Stream> {
        let asked = read::<With<DeploymentId, OutputTail>>(body).map_err(|failure| failure.into_err(py))?;
        let client = self.client().map_err(|failure| failure.into_err(py))?;
        Ok(Stream::output(client, asked.name, asked.body.tail))
    }

    /// What changes, from an event on or from now on.
    #[pyo3(signature = (from))]
    fn events(&self, py: Python<'_>, from: Option<u64>) -> PyResult<Stream> {
        let client = self.client().map_err(|failure| failure.into_err(py))?;
        Ok(Stream::live(client.events(from)))
    }
}

/// Seconds as Python has them; for ever when there is no such time.
pub(crate) fn limit(seconds: Option<f64>) -> Option<Duration> {
    seconds.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

pub(crate) fn late(timeout: Option<f64>) -> PyErr {
    PyTimeoutError::new_err(format!("that took longer than {} s", timeout.unwrap_or_default()))
}
