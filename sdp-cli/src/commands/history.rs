//! `sdp history`.

use clap::Args;
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use sdp_core::{DeploymentState, RepoName, SandboxName, UserName, api::DeploymentFilter};

use super::show;
use crate::{context::Context, error::CliError};

/// The most that is asked for at once.
const PAGE: usize = 500;

/// Lists deployments, the newest first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp history --sandbox pay
  sdp history --repo eredar --state failed --limit 5")]
pub(crate) struct History {
    /// Only of this sandbox.
    #[arg(long, short)]
    sandbox: Option<SandboxName>,
    /// Only of this repo.
    #[arg(long, short)]
    repo: Option<RepoName>,
    /// Only what this user asked for.
    #[arg(long, short)]
    user: Option<UserName>,
    /// Only those in this state: running, failed, cancelled, stopped, superseded or a stage.
    #[arg(long)]
    state: Option<DeploymentState>,
    /// At most so many.
    #[arg(long, short = 'n', default_value_t = 20)]
    limit: usize,
}

impl History {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let filter = DeploymentFilter {
            sandbox: self.sandbox,
            repo: self.repo,
            user: self.user,
            state: self.state,
            before: None,
            limit: Some(self.limit.clamp(1, PAGE) as u32),
        };
        let deployments = context.client()?.all_deployments(filter).take(self.limit);
        let deployments: Vec<_> = deployments.try_collect().await?;
        context.out.list(&deployments, "nothing was deployed", |items| show::deployments(items, Timestamp::now()))
    }
}
