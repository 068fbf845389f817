//! `sdp token …`.

use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use sdp_core::{ApiToken, Scope, TokenId, TokenName, api::people::CreateToken, model::units::parse_duration};
use secrecy::ExposeSecret;

use super::show::expiry;
use crate::{
    context::Context,
    error::CliError,
    output::{Cell, Table, Tone, ago},
};

/// Makes, lists and revokes tokens for scripts. That needs a session: sign in with `sdp login` first.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Lists your tokens, the newest first.
    #[command(after_help = "Example:
  sdp token list")]
    List,
    Create(Create),
    /// Revokes a token; an admin revokes anybody's.
    #[command(after_help = "Example:
  sdp token revoke 0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55")]
    Revoke {
        /// The token's id, as `sdp token list` shows it.
        id: TokenId,
    },
}

/// Makes a token and prints it, once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp token create nightly --scope deploy --expires-in 30d
  sdp token create watcher --scope read > watcher.token")]
pub(crate) struct Create {
    /// What it is for.
    name: TokenName,
    /// What it may be used for: read, deploy, admin. Repeatable.
    #[arg(long = "scope", required = true)]
    scopes: Vec<Scope>,
    /// How long it lives, 366d at most; 90d when left out.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expires_in: Option<Duration>,
}

impl Token {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        match self {
            Self::List => {
                let tokens = client.tokens().await?;
                context.out.list(&tokens, "you have no tokens", |items| table(items, Timestamp::now()))
            }
            Self::Create(Create { name, scopes, expires_in }) => {
                let body = CreateToken { name, scopes: scopes.into_iter().collect(), expires_in };
                let issued = client.create_token(&body).await?;
                let (token, secret) = (&issued.token, issued.secret.expose_secret());
                context.out.note(format!(
                    "the token {:?}, for SDP_TOKEN or `sdp login --token-stdin`; it is shown this once:",
                    token.name.as_str()
                ));
                let answer = serde_json::json!({ "secret": secret, "token": token });
                context.out.answer(&answer, |_, _| format!("{secret}\n"))
            }
            Self::Revoke { id } => {
                client.revoke_token(id).await?;
                let gone = serde_json::json!({ "id": id, "state": "revoked" });
                context.out.answer(&gone, |_, _| format!("token {id} is revoked\n"))
            }
        }
    }
}

fn table(tokens: &[ApiToken], now: Timestamp) -> Table {
    let mut table = Table::new(["id", "name", "scopes", "made", "used", "expires"]);
    for token in tokens {
        let scopes: Vec<_> = token.scopes.iter().map(|scope| scope.as_str()).collect();
        table.row([
            Cell::new(Tone::Dim, token.id),
            Cell::new(Tone::Strong, &token.name),
            scopes.join(", ").into(),
            ago(token.created_at, now).into(),
            token.last_used.map_or("never".into(), |used| ago(used, now)).into(),
            expiry(token.expires_at, now),
        ]);
    }
    table
}
