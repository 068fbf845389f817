//! The playground's control plane: a part of this process, or a process of its own that is looked at from outside.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use sdp_core::{AgentName, config::Layers};
use sdp_server::{Server, Store};
use secrecy::SecretString;

use crate::{Failed, daemon::Daemon, wait::eventually};

/// A control plane that can be stopped, and started again at the same address.
#[derive(Debug)]
pub(crate) struct Control {
    config: PathBuf,
    data_dir: PathBuf,
    address: SocketAddr,
    /// What runs it as `PROGRAM server CONFIG`.
    program: Option<PathBuf>,
    run: Option<Run>,
    client: reqwest::Client,
}

#[derive(Debug)]
enum Run {
    InProcess(Box<Server>),
    Process(Daemon),
}

impl Control {
    /// Starts one with its files in `dir`, and waits until it answers.
    pub(crate) async fn start(dir: &Path, port: u16, settings: &str, program: Option<PathBuf>) -> Result<Self, Failed> {
        let (address, data_dir) = (SocketAddr::from(([127, 0, 0, 1], port)), dir.join("server"));
        let config = dir.join("sdp-server.toml");
        fs::write(&config, format!("listen = \"{address}\"\ndata_dir = {data_dir:?}\n{settings}"))?;
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
        let mut control = Self { config, data_dir, address, program, run: None, client };
        control.resume().await?;
        Ok(control)
    }

    /// Where it is.
    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its database and logs.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Its database.
    pub(crate) fn store(&self) -> Result<Store, Failed> {
        Ok(match &self.run {
            Some(Run::InProcess(server)) => server.state().store().clone(),
            _ => Store::open(&self.data_dir.join("sdp.db"))?,
        })
    }

    /// What it has logged, if it is a process.
    pub(crate) fn log(&self) -> Result<String, Failed> {
        match &self.run {
            Some(Run::Process(daemon)) => daemon.log(),
            _ => Err(Failed("the control plane is no process of its own".into())),
        }
    }

    /// Enrols an agent.
    pub(crate) async fn enrol(&self, name: &AgentName) -> Result<SecretString, Failed> {
        Ok(sdp_server::auth::enrol(&self.store()?, name).await?)
    }

    /// Waits until it has a connection to an agent, or none.
    pub(crate) async fn is_connected(&self, name: &AgentName, wanted: bool) -> Result<(), Failed> {
        let agent = format!("sdp_agent_connected{{agent=\"{name}\",");
        let connected = async || {
            let text = self.read("/metrics").await?;
            let connected = text.lines().any(|line| line.starts_with(&agent) && line.ends_with(" 1"));
            (connected == wanted).then_some(())
        };
        eventually(&format!("the {} of agent {name}", if wanted { "connection" } else { "end" }), connected).await
    }

    async fn read(&self, path: &str) -> Option<String> {
        let answer = self.client.get(format!("{}{path}", self.base())).send().await.ok()?;
        answer.error_for_status().ok()?.text().await.ok()
    }

    /// Stops it. One that is a process is killed.
    pub(crate) async fn stop(&mut self) {
        match self.run.take() {
            Some(Run::InProcess(server)) => server.shutdown().await,
            Some(Run::Process(_)) | None => {}
        }
    }

    /// Starts it again, and waits until it answers.
    pub(crate) async fn resume(&mut self) -> Result<(), Failed> {
        self.run = Some(match &self.program {
            Some(program) => Run::Process(Daemon::start(program, "server", &self.config, None)?),
            None => {
                let layers = Layers::new().file(&self.config, fs::read_to_string(&self.config)?);
                Run::InProcess(Box::new(Server::bind(layers.load()?).await?))
            }
        });
        let ready = eventually("the control plane", async || self.read("/readyz").await).await;
        ready.map(drop).map_err(|failed| Failed(format!("{failed}: {}", self.log().unwrap_or_default())))
    }
}
