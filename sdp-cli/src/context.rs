//! What every command works with: the server, who is signed in, and where to write.

use std::path::PathBuf;

use sdp_core::client::{Client, ClientOptions, ServerAddress};

use crate::{
    cli::Globals,
    config::Config,
    credentials::Credentials,
    error::CliError,
    output::Output,
    paths::{Paths, Variables},
};

/// The variable with a token, for scripts.
pub(crate) const TOKEN: &str = "SDP_TOKEN";

/// Who says which server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// `--server` or `SDP_SERVER`.
    Given,
    /// The configuration.
    Config,
}

/// See above.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) out: Output,
    server: Option<String>,
    token: Option<String>,
    paths: Option<Paths>,
}

impl Context {
    pub(crate) fn new(globals: &Globals, variables: &Variables) -> Self {
        Self {
            out: Output::new(globals.json, globals.color),
            server: globals.server.clone().filter(|server| !server.is_empty()),
            token: variables.text(TOKEN).map(str::to_owned),
            paths: Paths::new(variables),
        }
    }

    /// Where the command's files are.
    pub(crate) fn paths(&self) -> Result<&Paths, CliError> {
        self.paths.as_ref().ok_or(CliError::NoHome)
    }

    /// What the person set.
    pub(crate) fn config(&self) -> Result<Config, CliError> {
        match &self.paths {
            Some(paths) => Config::read(&paths.config()),
            None => Ok(Config::default()),
        }
    }

    /// Whom they are signed in as.
    pub(crate) fn credentials(&self) -> Result<Credentials, CliError> {
        Credentials::read(&self.paths()?.credentials())
    }

    /// The server, and who named it.
    pub(crate) fn server(&self) -> Result<(ServerAddress, Named), CliError> {
        match &self.server {
            Some(given) => Ok((given.parse()?, Named::Given)),
            None => Ok((self.config()?.server.ok_or(CliError::NoServer)?.parse()?, Named::Config)),
        }
    }

    /// Whether the token comes from the environment.
    pub(crate) fn has_token_of_environment(&self) -> bool {
        self.token.is_some()
    }

    /// A client that nobody is signed in with.
    pub(crate) fn anonymous(&self) -> Result<Client, CliError> {
        let mut options = ClientOptions::default();
        options.ca_file = self.config()?.ca_file.map(PathBuf::from);
        options.user_agent = concat!("sdp/", env!("CARGO_PKG_VERSION")).into();
        Ok(Client::new(self.server()?.0, options)?)
    }

    /// A client of who is signed in.
    pub(crate) fn client(&self) -> Result<Client, CliError> {
        let client = self.anonymous()?;
        if let Some(token) = &self.token {
            return Ok(client.with_token(token.clone().into())?);
        }
        let credentials = self.credentials()?;
        let server = client.address();
        let kept = credentials.get(server).ok_or_else(|| CliError::NotSignedIn { server: server.to_string() })?;
        Ok(client.with_token(kept.token().clone())?)
    }
}
