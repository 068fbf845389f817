//! The pipeline in this process: git, a deployer and a gateway, without a server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use pyo3::prelude::*;
use sdp_agent::{AgentConfig, Parts};
use sdp_core::{
    DeployRequest, Deployer, ErrorCode, Gateways, InstanceKey, Problem, RepoName, RepoSource, RouteChanges,
    SandboxName,
    deploy::{self, PortPool},
    protocol::CredentialsFrame,
    testing::ChannelSink,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{late, limit},
    doubles::{MemoryDeployer, MemoryRepos, MemoryRoutes, parts},
    error::{Failure, read, write},
    process::OfProcess,
    request::unknown,
    runtime::{finish, runtime, wait},
    stream::{Run, Stream},
};

/// How many events may wait for Python.
const EVENTS_UNDER_WAY: usize = 256;

/// What there is to deploy, and how.
#[derive(Debug, Clone)]
struct Local {
    source: Arc<dyn RepoSource>,
    deployer: Arc<dyn Deployer>,
    gateways: Option<Gateways>,
    pipeline: deploy::Pipeline,
    /// The deployments of one key come one after another.
    turns: Arc<Mutex<HashMap<InstanceKey, Arc<tokio::sync::Mutex<()>>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deploy {
    request: Value,
    credentials: Option<CredentialsFrame>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfRepo {
    repo: RepoName,
    credentials: Option<CredentialsFrame>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfGateway {
    sandbox: Option<SandboxName>,
    changes: Option<RouteChanges>,
}

impl Local {
    fn new(config: &AgentConfig, parts: Parts) -> Self {
        let ports = Arc::new(PortPool::new(config.deployer.port_range.0.clone(), config.deployer.publish));
        let (source, deployer) = (Arc::clone(&parts.source), Arc::clone(&parts.deployer));
        let gateways = config.gateway.as_ref().zip(parts.routes).map(|(gateway, routes)| {
            let gateways = Gateways::new(gateway.repo.clone(), routes);
            parts.own_gateways.into_iter().fold(gateways, Gateways::own)
        });
        let mut pipeline = deploy::Pipeline::new(source, deployer, ports, config.advertise.clone())
            .builds(config.deployer.builds())
            .deadlines(parts.deadlines);
        if let Some(gateways) = &gateways {
            pipeline = pipeline.gateways(gateways.clone());
        }
        Self { source: parts.source, deployer: parts.deployer, gateways, pipeline, turns: Arc::default() }
    }

    fn turn(&self, key: &InstanceKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(key.clone()).or_default())
    }

    /// Begins a deployment. It must be called on the runtime.
    fn begin(&self, body: &str) -> Result<Run, Failure> {
        let Deploy { mut request, credentials } = read(body)?;
        // Python does not make ids.
        request["deployment"] = json!(sdp_core::DeploymentId::new());
        let request: DeployRequest = read(&request.to_string())?;
        let credentials = credentials.map(|CredentialsFrame(given)| given);
        let (sink, events) = ChannelSink::new(EVENTS_UNDER_WAY);
        let cancel = CancellationToken::new();
        let (local, cancelled) = (self.clone(), cancel.clone());
        let task = tokio::spawn(async move {
            let turn = local.turn(&request.key);
            let _turn = turn.lock().await;
            let finished = local.pipeline.run(&request, credentials, &sink, &cancelled).await;
            if let Some(replacement) = &finished.retiring
                && let Err(error) = local.pipeline.retire(replacement).await
            {
                // The next deployment of the key does it too.
                tracing::warn!(%error, "the previous instance could not be ended yet");
            }
            finished
        });
        Ok(Run { events, cancel, task, ended: None })
    }

    async fn perform(&self, op: &str, body: &str) -> Result<String, Failure> {
        match op {
            "repos" => write(&self.source.repos()),
            "branches" => {
                let OfRepo { repo, credentials } = read(body)?;
                let credentials = credentials.map(|CredentialsFrame(given)| given);
                let never = CancellationToken::new();
                let branches = self.source.branches(&repo, credentials.as_ref(), &never).await;
                write(&branches.map_err(|error| Problem::from(&error))?)
            }
            "instances" => write(&self.deployer.list().await.map_err(|error| Problem::from(&error))?),
            "routes" => {
                let OfGateway { sandbox, changes } = read(body)?;
                let gateways = self.gateways.as_ref().ok_or_else(no_gateway)?;
                let routes = gateways.routes(sandbox.as_ref()).map_err(|error| Problem::from(&error))?;
                let table = match changes {
                    None => routes.table().await,
                    Some(changes) => routes.apply(&changes).await,
                };
                write(&table.map_err(|error| Problem::from(&error))?)
            }
            "close" => {
                let instances = self.deployer.list().await.map_err(|error| Problem::from(&error))?;
                for instance in instances {
                    self.remove(&instance.key).await?;
                }
                Ok("null".into())
            }
            "inspect" | "stop" | "restart" | "remove" | "stats" => {
                let key: InstanceKey = read(body)?;
                let turn = self.turn(&key);
                let _turn = turn.lock().await;
                match op {
                    "inspect" => write(&self.deployer.inspect(&key).await.map_err(|error| Problem::from(&error))?),
                    "stats" => write(&self.deployer.stats(&key).await.map_err(|error| Problem::from(&error))?),
                    "stop" => write(&self.deployer.stop(&key).await.map_err(|error| Problem::from(&error))?),
                    "restart" => write(&self.deployer.restart(&key).await.map_err(|error| Problem::from(&error))?),
                    _ => write(&self.remove(&key).await?),
                }
            }
            _ => Err(unknown(op)),
        }
    }

    async fn remove(&self, key: &InstanceKey) -> Result<(), Failure> {
        self.deployer.remove(key).await.map_err(|error| Problem::from(&error))?;
        if key.sandbox.is_some() {
            self.source.discard(key).await.map_err(|error| Problem::from(&error))?;
        }
        Ok(())
    }
}

fn no_gateway() -> Failure {
    Problem::new(ErrorCode::NotFound, "this pipeline has no gateway: name one when it is made").into()
}

/// The pipeline in this process.
#[pyclass(frozen, module = "sdp._sdp")]
#[derive(Debug)]
pub(crate) struct Pipeline {
    local: OfProcess<Local>,
}

impl Pipeline {
    fn local(&self, py: Python<'_>) -> PyResult<&Local> {
        self.local.get().ok_or_else(|| Failure::forked("this pipeline").into_err(py))
    }
}

#[pymethods]
impl Pipeline {
    #[new]
    #[pyo3(signature = (config, repos=None, deployer=None, routes=None))]
    fn py_new(
        py: Python<'_>,
        config: &str,
        repos: Option<&Bound<'_, MemoryRepos>>,
        deployer: Option<&Bound<'_, MemoryDeployer>>,
        routes: Option<&Bound<'_, MemoryRoutes>>,
    ) -> PyResult<Self> {
        let made = agent_config(config, None);
        let config = made.map_err(|failure| failure.into_err(py))?;
        let doubles = (repos.map(Bound::get), deployer.map(Bound::get), routes.map(Bound::get));
        let parts = finish(py, parts(&config, doubles.0, doubles.1, doubles.2))?;
        let parts = parts.map_err(|failure| failure.into_err(py))?;
        Ok(Self { local: OfProcess::new(Local::new(&config, parts)) })
    }

    /// Begins a deployment, whose events come one after another.
    fn deploy(&self, py: Python<'_>, body: &str) -> PyResult<Stream> {
        let local = self.local(py)?;
        let _on = runtime()?.enter();
        local.begin(body).map(Stream::run).map_err(|failure| failure.into_err(py))
    }

    /// Does what `op` names with the JSON `body`, and answers JSON. `timeout` is in seconds.
    #[pyo3(signature = (op, body, timeout=None))]
    fn call(&self, py: Python<'_>, op: &str, body: &str, timeout: Option<f64>) -> PyResult<String> {
        let local = self.local(py)?;
        match wait(py, local.perform(op, body), limit(timeout))? {
            Some(outcome) => outcome.map_err(|failure| failure.into_err(py)),
            None => Err(late(timeout)),
        }
    }
}

/// An agent's configuration from Python, at the server that is given, or for no server.
pub(crate) fn agent_config(text: &str, server: Option<(&str, String)>) -> Result<AgentConfig, Failure> {
    let mut value: Value = read(text)?;
    let (address, token) = server.unwrap_or(("ws://127.0.0.1:1/ws/agent", "none".into()));
    value["server"] = address.into();
    let mut config: AgentConfig = read(&value.to_string())?;
    config.token = Some(token.into());
    config.check().map_err(|error| Failure::settings(sdp_core::problem::chain(&error)))?;
    Ok(config)
}
