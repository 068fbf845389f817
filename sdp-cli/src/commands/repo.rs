//! `sdp repo …`.

use clap::Subcommand;
use sdp_core::{
    Branch, RepoName,
    api::{BranchFilter, Repo as Record},
};

use super::show::maybe;
use crate::{
    context::Context,
    error::CliError,
    output::{Cell, Table, Tone},
};

/// Shows what can be deployed.
#[derive(Debug, Subcommand)]
pub(crate) enum Repo {
    /// Lists the repos, and the agents that can deploy them.
    #[command(after_help = "Example:
  sdp repo list")]
    List,
    /// Lists a repo's branches as the remote has them now.
    #[command(after_help = "Examples:
  sdp repo branches eredar
  sdp repo branches eredar SHOP-12 --limit 10")]
    Branches {
        /// The repo.
        repo: RepoName,
        /// Only names that contain this, whatever their case.
        query: Option<String>,
        /// At most so many.
        #[arg(long, short = 'n', default_value_t = 100)]
        limit: u32,
    },
}

impl Repo {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        match self {
            Self::List => {
                let repos = client.repos().await?;
                context.out.list(&repos, "no agent has told of repos", table)
            }
            Self::Branches { repo, query, limit } => {
                let branches = client.branches(&repo, &BranchFilter { q: query, limit: Some(limit) }).await?;
                context.out.list(&branches, "no branch matches", branch_table)
            }
        }
    }
}

fn table(repos: &[Record]) -> Table {
    let mut table = Table::new(["repo", "service", "agents"]);
    for repo in repos {
        let agents: Vec<_> = repo.agents.iter().map(|name| name.as_str()).collect();
        let service = if repo.gateway { Cell::new(Tone::Dim, "the gateway") } else { maybe(repo.service.as_ref()) };
        table.row([Cell::new(Tone::Strong, &repo.name), service, agents.join(", ").into()]);
    }
    table
}

fn branch_table(branches: &[Branch]) -> Table {
    let mut table = Table::new(["branch", "commit"]);
    branches.iter().for_each(|it| table.row([(&it.name).into(), Cell::new(Tone::Dim, it.commit.short())]));
    table
}
