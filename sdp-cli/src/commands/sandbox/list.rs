//! `sdp sandbox list`.

use clap::Args;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use sdp_core::{EnvironmentName, SandboxState, UserName, api::SandboxFilter};

use super::super::show;
use crate::{context::Context, error::CliError};

/// Lists sandboxes by name.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp sandbox list --mine
  sdp sandbox list --state asleep --json")]
pub(crate) struct List {
    /// Only yours.
    #[arg(long, conflicts_with = "owner")]
    mine: bool,
    /// Only of this user.
    #[arg(long)]
    owner: Option<UserName>,
    /// Only in this environment.
    #[arg(long, short)]
    environment: Option<EnvironmentName>,
    /// Only those in this state: active, asleep, deleting.
    #[arg(long)]
    state: Option<SandboxState>,
}

impl List {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        let owner = if self.mine { Some(client.me().await?.user) } else { self.owner };
        let filter =
            SandboxFilter { owner, environment: self.environment, state: self.state, limit: Some(500), after: None };
        let sandboxes: Vec<_> = client.all_sandboxes(filter).try_collect().await?;
        let none = "there are no sandboxes; `sdp sandbox create NAME` makes one";
        context.out.list(&sandboxes, none, |items| show::sandboxes(items, Timestamp::now()))
    }
}
