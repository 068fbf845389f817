//! A whole server and its agents in this process.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use pyo3::prelude::*;
use sdp_agent::Agent;
use sdp_core::{AgentName, problem::chain};
use sdp_server::{Server, ServerConfig, store::StoreError};
use tokio::{sync::Mutex, time::timeout};

use crate::{
    doubles::{MemoryDeployer, MemoryRepos, MemoryRoutes, parts},
    error::{Failure, read},
    pipeline::agent_config,
    process::OfProcess,
    runtime::finish,
};

/// How long an agent may take to connect to a server in the same process.
const CONNECT: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Running {
    server: Option<Server>,
    agents: BTreeMap<AgentName, Agent>,
}

/// A server in this process, and agents of it.
#[pyclass(frozen, module = "sdp._sdp")]
#[derive(Debug)]
pub(crate) struct Platform {
    address: SocketAddr,
    running: OfProcess<Arc<Mutex<Running>>>,
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::settings(chain(error))
}

impl Platform {
    fn running(&self, py: Python<'_>) -> PyResult<Arc<Mutex<Running>>> {
        self.running.get().cloned().ok_or_else(|| Failure::forked("this platform").into_err(py))
    }
}

#[pymethods]
impl Platform {
    /// Starts a server with this configuration.
    #[new]
    fn py_new(py: Python<'_>, config: &str) -> PyResult<Self> {
        let start = async {
            let config: ServerConfig = read(config)?;
            Server::bind(config).await.map_err(|error| failed(&error))
        };
        let server = finish(py, start)?.map_err(|failure| failure.into_err(py))?;
        let address = server.local_addr();
        let running = Running { server: Some(server), agents: BTreeMap::new() };
        Ok(Self { address, running: OfProcess::new(Arc::new(Mutex::new(running))) })
    }

    /// Where the server is.
    #[getter]
    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Enrols and starts an agent, and waits until it is connected.
    #[pyo3(signature = (config, repos=None, deployer=None, routes=None))]
    fn start_agent(
        &self,
        py: Python<'_>,
        config: &str,
        repos: Option<&Bound<'_, MemoryRepos>>,
        deployer: Option<&Bound<'_, MemoryDeployer>>,
        routes: Option<&Bound<'_, MemoryRoutes>>,
    ) -> PyResult<()> {
        let running = self.running(py)?;
        let doubles = (repos.map(Bound::get), deployer.map(Bound::get), routes.map(Bound::get));
        let start = async {
            let mut running = running.lock().await;
            let server = running.server.as_ref().ok_or_else(|| Failure::settings("this platform was shut down"))?;
            let address = format!("ws://{}/ws/agent", self.address);
            let mut config = agent_config(config, Some((&address, "none".into())))?;
            let name = config.name.clone();
            let enrolled = server.enrol(&name).await;
            config.token = Some(enrolled.map_err(|error| failed(&error))?);
            let parts = parts(&config, doubles.0, doubles.1, doubles.2).await?;
            let agent = Agent::start_with(config, parts).map_err(|error| failed(&error))?;
            let hub = server.state().hub().clone();
            // The agent knows of the connection a moment before the server does.
            let mut connections = hub.connections();
            let connected = async {
                while !hub.agents().await?.iter().any(|agent| agent.name == name && agent.connected) {
                    if connections.changed().await.is_err() {
                        break;
                    }
                }
                Ok(())
            };
            let connected: Result<_, StoreError> = match timeout(CONNECT, connected).await {
                Ok(looked) => looked.map(|()| true),
                Err(_) => Ok(false),
            };
            if connected.as_ref().is_ok_and(|is_connected| *is_connected) {
                running.agents.insert(name, agent);
                return Ok(());
            }
            agent.shutdown().await;
            connected.map_err(|error| failed(&error))?;
            Err(Failure::settings(format!("agent {name} did not connect to the server in this process")))
        };
        finish(py, start)?.map_err(|failure: Failure| failure.into_err(py))
    }

    /// Stops an agent; what it runs goes on.
    fn stop_agent(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let running = self.running(py)?;
        let stop = async {
            let name: AgentName = name.parse().map_err(|error| failed(&error))?;
            let agent = running.lock().await.agents.remove(&name);
            let Some(agent) = agent else {
                return Err(Failure::settings(format!("there is no agent {name} in this process")));
            };
            agent.shutdown().await;
            Ok(())
        };
        finish(py, stop)?.map_err(|failure: Failure| failure.into_err(py))
    }

    /// Ends everything. Does nothing the second time, and nothing in a forked child.
    fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        let Some(running) = self.running.get() else { return Ok(()) };
        finish(py, async {
            let (agents, server) = {
                let mut running = running.lock().await;
                (std::mem::take(&mut running.agents), running.server.take())
            };
            for agent in agents.into_values() {
                agent.shutdown().await;
            }
            if let Some(server) = server {
                server.shutdown().await;
            }
        })
    }
}
