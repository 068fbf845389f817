//! The command line of the daemon.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{Parser, Subcommand};
use sdp_core::{
    Verdict,
    config::{ConfigError, Layers},
    daemon::{
        FinishSignal, LogFormat, StopSignals, environment, keep_memory_private, key_and_value, log_to_stderr,
        supervisor,
    },
    problem::chain,
};

use crate::{Agent, AgentConfig, LinkState, doctor, images};

/// Runs SDP's agent: it dials the control plane, deploys branches on this machine when asked, and
/// on the gateway's machine switches the gateway's routes.
#[derive(Debug, Parser)]
#[command(version, term_width = 0, after_long_help = AFTER_HELP)]
pub struct Cli {
    /// The configuration file.
    #[arg(short, long, global = true, env = "SDP_AGENT_CONFIG", default_value = "/etc/sdp/sdp-agent.toml")]
    pub config: PathBuf,
    /// Sets a key over file and environment, dotted: `--set deployer.kind=process`. Repeatable.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub set: Vec<(String, String)>,
    /// What to log: `info`, `debug`, or by part, such as `info,sdp_agent::link=debug`.
    #[arg(long, global = true, env = "SDP_AGENT_LOG", default_value = "info")]
    pub log: String,
    /// How to log: `text`, or `json` for machines.
    #[arg(long, global = true, env = "SDP_AGENT_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What to do; without any, the agent runs until it is told to stop: SIGTERM or Ctrl-C cancels what is under way,
    /// SIGQUIT finishes it first.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the daemon can do besides running.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Checks the configuration and the token's file, says what is wrong, and exits.
    CheckConfig,
    /// Examines this machine and the way to the server: what works, what does not, and the cure.
    ///
    /// Nothing is changed. Exits with 0 when nothing is broken, with 1 when something is.
    Doctor {
        /// Prints the findings as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Lists the images that the configured repos need, and says which of them are not on this machine.
    ///
    /// Exits with 0 when all are there, with 1 when one is missing or the engine cannot be asked.
    Images {
        /// Prints them as JSON.
        #[arg(long)]
        json: bool,
    },
}

const AFTER_HELP: &str = concat!(
    "A first configuration:\n\n",
    include_str!("../packaging/sdp-agent.toml"),
    r#"
Every key can be set by an environment variable, SDP_AGENT__DEPLOYER__KIND=process, and by a flag,
--set deployer.kind=process. The flag wins over the variable, the variable over the file. The
token can be given in SDP_AGENT__TOKEN instead of a file."#
);

impl Cli {
    /// The configuration of file, environment and flags.
    ///
    /// # Errors
    /// [`ConfigError`] names file, line and key.
    pub fn load(&self) -> Result<AgentConfig, ConfigError> {
        let text = std::fs::read_to_string(&self.config)
            .map_err(|source| ConfigError::Read { path: self.config.clone(), source })?;
        AgentConfig::load(Layers::new().file(&self.config, text), environment(), &self.set)
    }

    /// Does what the command line says. The log goes to standard error.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn run(&self) -> Result<(), String> {
        keep_memory_private().map_err(|error| format!("core dumps cannot be turned off: {error}"))?;
        log_to_stderr(&self.log, self.log_format)?;
        let config = self.load().map_err(|error| chain(&error))?;
        match self.command {
            Some(Command::CheckConfig) => {
                config.read_token().map_err(|error| chain(&error))?;
                let (repos, path) = (config.repo.len(), self.config.display());
                let text =
                    format!("{path} is valid: agent {}, {repos} repo(s), server {}\n", config.name, config.server);
                io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
            }
            Some(Command::Doctor { json }) => {
                let report = doctor::examine(&config).await;
                let text = match json {
                    true => serde_json::to_string_pretty(&report).map_err(|error| error.to_string())? + "\n",
                    false => report.to_string(),
                };
                io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())?;
                match report.worst() {
                    Verdict::Broken => Err("something is broken".into()),
                    _ => Ok(()),
                }
            }
            Some(Command::Images { json }) => {
                let needed = images::needed(&config).await.map_err(|error| chain(&error))?;
                let text = match json {
                    true => serde_json::to_string_pretty(&needed).map_err(|error| error.to_string())? + "\n",
                    false => images::table(&needed),
                };
                io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())?;
                match needed.iter().filter(|needed| !needed.present).count() {
                    0 => Ok(()),
                    missing => Err(format!("{missing} image(s) missing: {}", images::CURE)),
                }
            }
            None => serve(config).await,
        }
    }
}

async fn serve(config: AgentConfig) -> Result<(), String> {
    let uncaught = |error| format!("signals cannot be received: {error}");
    let mut signals = StopSignals::catch().map_err(uncaught)?;
    let mut finish = FinishSignal::catch().map_err(uncaught)?;
    let mut agent = Agent::start(config).await.map_err(|error| chain(&error))?;
    // A server that is away is no reason not to be ready: deployments go on without it.
    supervisor::ready();
    let telling = tokio::spawn(tell(agent.link()));
    let finishes = tokio::select! {
        () = signals.wait() => false,
        () = finish.wait() => true,
        () = agent.join() => return Err("the agent ended of itself; its log says why".into()),
    };
    telling.abort();
    if finishes {
        tracing::info!("finishing the deployments that are under way; SIGTERM cancels them");
        supervisor::status("finishing the deployments that are under way");
        tokio::select! {
            () = signals.wait() => {}
            () = agent.finish() => {}
        }
    }
    tracing::info!("stopping");
    supervisor::stopping();
    agent.shutdown().await;
    Ok(())
}

/// Tells the supervisor how the connection to the server stands.
async fn tell(mut link: tokio::sync::watch::Receiver<LinkState>) {
    loop {
        let status = match &*link.borrow_and_update() {
            LinkState::Connecting => "dialling the server".into(),
            LinkState::Connected { server, .. } => format!("connected to the server, version {server}"),
            LinkState::Refused(problem) => format!("refused by the server: {}", problem.detail),
            LinkState::Away { reason } => format!("not connected: {reason}"),
        };
        supervisor::status(&status);
        if link.changed().await.is_err() {
            return;
        }
    }
}
