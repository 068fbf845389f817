//! `sdp whoami`.

use clap::Args;
use jiff::Timestamp;

use crate::{context::Context, error::CliError, output::left};

/// Shows who is signed in, and for how long.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sdp whoami")]
pub(crate) struct Whoami {}

impl Whoami {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        let me = client.me().await?;
        context.out.answer(&me, |me, _| {
            let with = me.token.as_ref().map(|token| format!(" with the token {:?}", token.name.as_str()));
            let (server, with) = (client.address(), with.unwrap_or_default());
            let ends = left(me.expires_at, Timestamp::now());
            format!("{} ({}) on {server}{with}, which ends {ends}\n", me.user, me.role)
        })
    }
}
