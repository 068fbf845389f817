//! The command line of the daemon.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Parser, Subcommand};
use sdp_core::{
    AgentName, AuditSubject,
    api::audit::AuditAction,
    config::{ConfigError, Layers},
    daemon::{LogFormat, StopSignals, environment, keep_memory_private, key_and_value, log_to_stderr, supervisor},
    problem::chain,
};
use secrecy::ExposeSecret;

use crate::{
    Server, ServerConfig, Store, api, auth,
    backup::{self, BackupError, Manifest},
    integrations::Integrations,
    store::Deed,
};

const DEFAULT_CONFIG: &str = "/etc/sdp/sdp-server.toml";

/// Runs SDP's control plane: the HTTP API, the agents' connections, the deployments' logs.
#[derive(Debug, Parser)]
#[command(version, term_width = 0, after_long_help = AFTER_HELP)]
pub struct Cli {
    /// The configuration file; /etc/sdp/sdp-server.toml, if it exists, when not given.
    #[arg(short, long, global = true, env = "SDP_SERVER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Sets a key over file and environment, dotted: `--set session.idle=2h`. Repeatable.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub set: Vec<(String, String)>,
    /// What to log: `info`, `debug`, or by part, such as `info,sdp_server::hub=debug`.
    #[arg(long, global = true, env = "SDP_SERVER_LOG", default_value = "info")]
    pub log: String,
    /// How to log: `text`, or `json` for machines.
    #[arg(long, global = true, env = "SDP_SERVER_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What to do; without any, the server runs until it is told to stop (SIGTERM or Ctrl-C).
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the daemon can do besides serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Checks the configuration, says what is wrong, and exits.
    CheckConfig,
    /// Makes a backup of database and logs while the server runs.
    ///
    /// Example: sdp-server backup /var/backups/sdp-$(date +%F)
    Backup {
        /// The directory to make for it.
        to: PathBuf,
    },
    /// Checks that a backup is whole.
    CheckBackup {
        /// Its directory.
        backup: PathBuf,
    },
    /// Puts a backup into an empty data directory. The server must not run.
    Restore {
        /// The backup's directory.
        backup: PathBuf,
    },
    /// Prints the description of the API, OpenAPI 3.1.
    Openapi,
    /// Enrols, lists and revokes agents. The server may be running meanwhile.
    #[command(subcommand)]
    Agent(AgentCommand),
}

/// `sdp-server agent …`.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Enrols an agent and prints its token, once: only a hash is kept.
    Add {
        /// Its name: lower-case letters, digits and hyphens.
        name: AgentName,
    },
    /// Lists the enrolled agents and when they were last heard of.
    List,
    /// Revokes an agent's token; its connection ends within seconds.
    #[command(alias = "remove")]
    Revoke {
        /// Its name.
        name: AgentName,
    },
    /// Gives an agent another token and prints it, once; the connection of the earlier one ends within seconds.
    Rotate {
        /// Its name.
        name: AgentName,
    },
}

const AFTER_HELP: &str = concat!(
    "A first configuration:\n\n",
    include_str!("../packaging/sdp-server.toml"),
    r#"
Every key can be set by an environment variable, SDP_SERVER__SESSION__IDLE=2h, and by a flag,
--set session.idle=2h. The flag wins over the variable, the variable over the file. Secrets of integrations can be given
in SDP_SERVER__BITBUCKET__CORP__SECRET, SDP_SERVER__BITBUCKET__CORP__TOKEN and SDP_SERVER__WEBHOOK__CHAT__SECRET instead
of files.

First steps:

  (umask 077; sdp-server agent add micro-92 > micro-92.token)    # copy it to the agent's token_file
  sdp-server                                        # then open http://127.0.0.1:3452/"#
);

impl Cli {
    /// The configuration of file, environment and flags.
    ///
    /// # Errors
    /// [`ConfigError`] names file, line and key.
    pub fn load(&self) -> Result<ServerConfig, ConfigError> {
        let fallback = Some(PathBuf::from(DEFAULT_CONFIG)).filter(|path| path.exists());
        let layers = match self.config.clone().or(fallback) {
            Some(path) => match std::fs::read_to_string(&path) {
                Ok(text) => Layers::new().file(path, text),
                Err(source) => return Err(ConfigError::Read { path, source }),
            },
            None => Layers::new(),
        };
        ServerConfig::load(layers, environment(), &self.set)
    }

    /// Does what the command line says. The log goes to standard error.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn run(&self) -> Result<(), String> {
        keep_memory_private().map_err(|error| format!("core dumps cannot be turned off: {error}"))?;
        if let Some(Command::Openapi) = self.command {
            return print(&String::from_utf8_lossy(&api::document()));
        }
        log_to_stderr(&self.log, self.log_format)?;
        let config = self.load().map_err(|error| chain(&error))?;
        match &self.command {
            None | Some(Command::Openapi) => serve(config).await,
            Some(Command::CheckConfig) => {
                Integrations::new(&config).map_err(|error| chain(&error))?;
                let text =
                    format!("the configuration is valid: {}, data in {}\n", config.listen, config.data_dir.display());
                print(&text)
            }
            Some(Command::Backup { to }) => {
                let backup = move |to: &Path| backup::create(&config.data_dir, to);
                print(&in_background(to, backup, "holds a backup").await?)
            }
            Some(Command::CheckBackup { backup }) => print(&in_background(backup, backup::check, "is whole").await?),
            Some(Command::Restore { backup }) => {
                let restore = move |backup: &Path| backup::restore(backup, &config.data_dir);
                print(&in_background(backup, restore, "is restored; start the server").await?)
            }
            Some(Command::Agent(command)) => print(&agent(&config.data_dir, command).await?),
        }
    }
}

/// Does something with a backup that takes as long as its size, and tells of it.
async fn in_background(
    backup: &Path,
    work: impl FnOnce(&Path) -> Result<Manifest, BackupError> + Send + 'static,
    done: &str,
) -> Result<String, String> {
    let path = backup.to_owned();
    let worked = tokio::task::spawn_blocking(move || work(&path)).await.map_err(|error| error.to_string())?;
    let manifest = worked.map_err(|error| chain(&error))?;
    let mib = manifest.bytes() as f64 / f64::from(1 << 20);
    let (files, at, version) = (manifest.files.len(), manifest.made_at, manifest.version);
    Ok(format!("{} {done}: {files} files, {mib:.1} MiB, made at {at} by version {version}\n", backup.display()))
}

fn print(text: &str) -> Result<(), String> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
}

async fn agent(data_dir: &Path, command: &AgentCommand) -> Result<String, String> {
    std::fs::create_dir_all(data_dir).map_err(|error| format!("{} cannot be made: {error}", data_dir.display()))?;
    let store = Store::open(&data_dir.join("sdp.db")).map_err(|error| chain(&error))?;
    match command {
        AgentCommand::Add { name } => {
            let token = auth::enrol(&store, name).await.map_err(|error| chain(&error))?;
            audit(&store, AuditAction::AgentEnrol, name).await?;
            Ok(format!("{}\n", token.expose_secret()))
        }
        AgentCommand::List => {
            let agents = store.agents().await.map_err(|error| chain(&error))?;
            let line = |(name, seen, _): &(AgentName, Option<jiff::Timestamp>, _)| {
                format!("{name}\t{}\n", seen.map_or("never seen".into(), |at| format!("last seen {at}")))
            };
            Ok(agents.iter().map(line).collect())
        }
        AgentCommand::Rotate { name } => match auth::rotate(&store, name).await.map_err(|error| chain(&error))? {
            Some(token) => {
                audit(&store, AuditAction::AgentRotate, name).await?;
                Ok(format!("{}\n", token.expose_secret()))
            }
            None => Err(unknown_agent(name)),
        },
        AgentCommand::Revoke { name } => match store.remove_agent(name).await.map_err(|error| chain(&error))? {
            true => {
                audit(&store, AuditAction::AgentRevoke, name).await?;
                Ok(format!("{name} is revoked\n"))
            }
            false => Err(unknown_agent(name)),
        },
    }
}

fn unknown_agent(name: &AgentName) -> String {
    format!("no agent is called {name}; `sdp-server agent list` shows those there are")
}

async fn audit(store: &Store, action: AuditAction, name: &AgentName) -> Result<(), String> {
    let deed = Deed::of_the_platform(action, AuditSubject::agent(name)).detail("by `sdp-server agent` on the server");
    store.append_audit(vec![deed]).await.map_err(|error| chain(&error))
}

async fn serve(config: ServerConfig) -> Result<(), String> {
    let mut signals = StopSignals::catch().map_err(|error| format!("signals cannot be received: {error}"))?;
    let mut server = Server::bind(config).await.map_err(|error| chain(&error))?;
    supervisor::ready();
    supervisor::status(&format!("serving on {}", server.local_addr()));
    tokio::select! {
        () = signals.wait() => {}
        () = server.join() => return Err("the server ended of itself; its log says why".into()),
    }
    tracing::info!("stopping");
    supervisor::stopping();
    server.shutdown().await;
    Ok(())
}
