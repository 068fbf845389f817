//! `sdp sandbox create` and `sdp sandbox clone`.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use jiff::Timestamp;
use sdp_core::{
    BranchName, EnvironmentName, RepoName, SandboxName, TemplateName, api::CreateSandbox, model::units::parse_duration,
};

use super::deploy::deploy;
use crate::{context::Context, error::CliError, output::left, values::branch_of};

/// Makes a sandbox: plain, or from a template.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp sandbox create pay
  sdp sandbox create pay --template checkout --branch eredar=feature/greeting --deploy --follow")]
pub(crate) struct Create {
    /// Its name: lower-case letters, digits and hyphens.
    name: SandboxName,
    /// The template it begins with.
    #[arg(long, short)]
    template: Option<TemplateName>,
    /// Where it lives; `default` when left out.
    #[arg(long, short)]
    environment: Option<EnvironmentName>,
    #[command(flatten)]
    more: More,
}

/// Makes a sandbox with the services and routes of another.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sdp sandbox clone pay pay-2 --branch eredar=feature/other --deploy --follow")]
pub(crate) struct Clone {
    /// The sandbox it is made like.
    from: SandboxName,
    /// Its name.
    name: SandboxName,
    #[command(flatten)]
    more: More,
}

#[derive(Debug, Args)]
struct More {
    /// Another branch of one of its repos. Repeatable.
    #[arg(long = "branch", short, value_name = "REPO=BRANCH", value_parser = branch_of)]
    branches: Vec<(RepoName, BranchName)>,
    /// How long it lives: 12h, 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expires_in: Option<Duration>,
    /// Deploys its services, too.
    #[arg(long)]
    deploy: bool,
    /// Follows their deployments to their end, and fails if one does.
    #[arg(long, short, requires = "deploy")]
    follow: bool,
}

impl Create {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let body =
            CreateSandbox { template: self.template, environment: self.environment, ..CreateSandbox::new(self.name) };
        self.more.create(body, context).await
    }
}

impl Clone {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let body = CreateSandbox { clone_of: Some(self.from), ..CreateSandbox::new(self.name) };
        self.more.create(body, context).await
    }
}

impl More {
    async fn create(self, body: CreateSandbox, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        let branches: BTreeMap<_, _> = self.branches.into_iter().collect();
        let body = CreateSandbox { branches, expires_in: self.expires_in, ..body };
        let sandbox = client.create_sandbox(&body).await?;
        context.out.answer(&sandbox, |it, _| {
            format!("sandbox {} is made; it expires {}\n", it.name, left(it.expires_at, Timestamp::now()))
        })?;
        if self.deploy {
            return deploy(&client, context, &sandbox.name, self.follow).await;
        }
        Ok(())
    }
}
