//! `sdp config …`.

use clap::Subcommand;

use crate::{
    config::{Config as Settings, Key},
    context::{Context, Named},
    error::CliError,
    output::{Table, clean},
};

/// Shows and sets what holds for every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Shows what is set, and where.
    #[command(after_help = "Example:
  sdp config show")]
    Show,
    /// Sets a key.
    #[command(after_help = "Examples:
  sdp config set server https://sdp.example
  sdp config set ca_file /etc/sdp/ca.pem")]
    Set {
        /// Which.
        key: Key,
        /// To what.
        value: String,
    },
    /// Takes a key out.
    #[command(after_help = "Example:
  sdp config unset ca_file")]
    Unset {
        /// Which.
        key: Key,
    },
}

impl Config {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Show => show(context),
            Self::Set { key, value } => change(context, |config| config.set(key, Some(value))),
            Self::Unset { key } => change(context, |config| config.set(key, None)),
        }
    }
}

fn change(context: &Context, change: impl FnOnce(&mut Settings) -> Result<(), CliError>) -> Result<(), CliError> {
    let path = context.paths()?.config();
    let mut config = context.config()?;
    change(&mut config)?;
    config.write(&path)?;
    context.out.answer(&config, |_, _| format!("{} is written\n", path.display()))
}

fn show(context: &Context) -> Result<(), CliError> {
    let paths = context.paths()?;
    let config = context.config()?;
    let (server, from) = match context.server() {
        Ok((server, Named::Given)) => (Some(server.to_string()), "--server or SDP_SERVER"),
        Ok((server, Named::Config)) => (Some(server.to_string()), "the file"),
        Err(CliError::NoServer) => (None, ""),
        Err(error) => return Err(error),
    };
    let answer = serde_json::json!({
        "server": server, "ca_file": config.ca_file, "config": paths.config(), "credentials": paths.credentials(),
    });
    context.out.answer(&answer, |_, look| {
        let mut table = Table::new(["key", "value", "from"]);
        table.row(["server".into(), server.unwrap_or_default().into(), from.into()]);
        let ca_from = if config.ca_file.is_some() { "the file" } else { "" };
        table.row(["ca_file".into(), config.ca_file.unwrap_or_default().into(), ca_from.into()]);
        let dir = clean(&paths.dir().display().to_string());
        format!("{}\nThe files are in {dir}.\n", table.render(look))
    })
}
