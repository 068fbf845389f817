//! `sdp login`.

use std::{
    fs::File,
    io::{self, BufRead, IsTerminal, Write},
};

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use sdp_core::{Role, UserName, client::Client};
use secrecy::SecretString;

use crate::{
    context::{Context, Named},
    credentials::{Credential, is_empty, secret},
    error::CliError,
    output::Tone,
};

/// Signs in with your git user and password.
///
/// An agent checks them with the git host, and the server uses them for your deployments as long as the session lasts.
/// What is kept here is the session's token, not the password. A server given with --server becomes the one of the
/// configuration, if that has none.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp login --server https://sdp.example
  sdp login --user ada --password-stdin
  sdp login --token-stdin")]
pub(crate) struct Login {
    /// Your git user; asked for when left out.
    #[arg(long, short)]
    user: Option<UserName>,
    /// Reads the password from standard input instead of asking for it.
    #[arg(long, conflicts_with = "token_stdin")]
    password_stdin: bool,
    /// Reads a token of `sdp token create` from standard input and keeps that.
    #[arg(long)]
    token_stdin: bool,
}

impl Login {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let (server, named) = context.server()?;
        let anonymous = context.anonymous()?;
        let mut credentials = context.credentials()?;
        let (client, user, role, expires_at) = if self.token_stdin {
            let client = anonymous.with_token(piped()?)?;
            let me = client.me().await?;
            (client, me.user, me.role, me.expires_at)
        } else {
            if !server.is_tls() && !server.is_loopback() {
                context.out.warn(format!(
                    "the way to {server} is not encrypted, and your password can be read on it: use https:// where the server has it"
                ));
            }
            let user = match self.user {
                Some(user) => user,
                None => ask_user()?,
            };
            let password = if self.password_stdin { piped()? } else { ask_password(&user)? };
            let signed_in = anonymous.sign_in(user, password).await?;
            (signed_in.client, signed_in.user, signed_in.role, signed_in.expires_at)
        };
        let Some(token) = client.token() else { return Err(CliError::NotSignedIn { server: server.to_string() }) };
        credentials.set(&server, Credential::new(user.clone(), token.clone(), expires_at))?;
        if named == Named::Given {
            remember(context, &client)?;
        }
        if context.has_token_of_environment() {
            context.out.warn("SDP_TOKEN is set, and is used instead");
        }
        let answer =
            serde_json::json!({ "server": server.as_str(), "user": user, "role": role, "expires_at": expires_at });
        context.out.answer(&answer, |_, look| {
            format!("signed in to {server} as {} ({role})\n", look.paint(Tone::Strong, &user))
        })?;
        if role == Role::Viewer {
            context.out.note("viewers look at everything and change nothing; an admin gives roles");
        }
        Ok(())
    }
}

/// Keeps the server for next time, where there is none yet.
fn remember(context: &Context, client: &Client) -> Result<(), CliError> {
    let path = context.paths()?.config();
    let mut config = context.config()?;
    if config.server.is_none() {
        config.server = Some(client.address().to_string());
        config.write(&path)?;
        context.out.note(format!("{} is now the server that sdp asks", client.address()));
    }
    Ok(())
}

/// The first line of standard input.
fn piped() -> Result<SecretString, CliError> {
    let mut text = String::new();
    let read = io::stdin().lock().read_line(&mut text);
    read.map_err(|source| CliError::Prompt { what: "standard input", source })?;
    let secret = secret(text);
    if is_empty(&secret) {
        return Err(CliError::usage("standard input is empty", "pipe the secret into it, on one line"));
    }
    Ok(secret)
}

fn ask_user() -> Result<UserName, CliError> {
    let failed = |source| CliError::Prompt { what: "the user", source };
    if !io::stdin().is_terminal() {
        return Err(CliError::usage("no user is named, and nobody is there to be asked", "name one with --user"));
    }
    let mut text = String::new();
    let mut err = io::stderr().lock();
    write!(err, "Git user: ").and_then(|()| err.flush()).map_err(failed)?;
    io::stdin().lock().read_line(&mut text).map_err(failed)?;
    text.trim().parse().map_err(|error| CliError::usage(format!("{error}"), "type your user name of the git host"))
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Quiet {
    terminal: File,
    before: Termios,
}

impl Quiet {
    /// None where nobody types.
    fn begin() -> Option<Self> {
        let terminal = File::open("/dev/tty").ok()?;
        let before = tcgetattr(&terminal).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&terminal, OptionalActions::Now, &quiet).ok()?;
        Some(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

fn ask_password(user: &UserName) -> Result<SecretString, CliError> {
    // Before it is asked for: what is typed ahead is not shown either.
    let _quiet = Quiet::begin();
    let typed = rpassword::prompt_password(format!("Git password of {user}: "));
    typed.map(secret).map_err(|source| CliError::Prompt { what: "the password", source })
}
