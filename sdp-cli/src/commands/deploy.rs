//! `sdp deploy`.

use std::path::Path;

use clap::Args;
use sdp_core::{AgentName, BranchName, EnvName, HostPort, RepoName, SandboxName, api::CreateDeployment};

use crate::{context::Context, error::CliError, follow::follow_new, git, values::variable};

/// Deploys a branch: into a sandbox, or outside any.
///
/// In a checkout, repo and branch are its own unless named. What is deployed is what the branch's remote has.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp deploy eredar feature/greeting --sandbox pay --follow
  sdp deploy --sandbox pay                # in a checkout: its repo and branch
  sdp deploy eredar main --port 20100 --env LOG_LEVEL=debug --env MODE=test")]
pub(crate) struct Deploy {
    /// The repo, as the agents declare it; that of this checkout when left out.
    repo: Option<RepoName>,
    /// The branch; that of this checkout when left out.
    branch: Option<BranchName>,
    /// The sandbox.
    #[arg(long, short)]
    sandbox: Option<SandboxName>,
    /// The host port; kept or picked when left out.
    #[arg(long, short)]
    port: Option<HostPort>,
    /// An environment variable. Repeatable.
    #[arg(long = "env", short, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(EnvName, String)>,
    /// The agent; chosen when left out.
    #[arg(long)]
    agent: Option<AgentName>,
    /// Replaces what runs also when it is just as it would come out.
    #[arg(long)]
    force: bool,
    /// Follows it to its end, and fails if it does.
    #[arg(long, short)]
    follow: bool,
}

impl Deploy {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let (repo, branch) = what(self.repo, self.branch, context)?;
        let body = CreateDeployment {
            host_port: self.port,
            env: self.env.into_iter().collect(),
            agent: self.agent,
            force: self.force,
            ..CreateDeployment::new(repo, branch)
        };
        let client = context.client()?;
        let deployment = match &self.sandbox {
            Some(sandbox) => client.deploy_into(sandbox, &body).await?,
            None => client.deploy(&body).await?,
        };
        let id = deployment.id;
        if self.follow {
            return follow_new(&client, &context.out, &deployment).await.map(drop);
        }
        context.out.answer(&deployment, |it, _| {
            format!("deploying {} {} as {id}\n  follow it with: sdp logs --follow {id}\n", it.key, it.branch)
        })
    }
}

/// Repo and branch, as named or as the checkout says.
fn what(
    repo: Option<RepoName>,
    branch: Option<BranchName>,
    context: &Context,
) -> Result<(RepoName, BranchName), CliError> {
    let (repo, branch) = match (repo, branch) {
        (Some(repo), Some(branch)) => return Ok((repo, branch)),
        given => given,
    };
    let here = git::here(Path::new("."))?;
    if let Some(repo) = repo.filter(|repo| *repo != here.repo) {
        let sentence = format!("no branch is named, and this is a checkout of {}, not of {repo}", here.repo);
        return Err(CliError::usage(sentence, format!("name one: sdp deploy {repo} BRANCH")));
    }
    let branch = branch.or(here.branch).ok_or_else(|| {
        let cure = format!("name one: sdp deploy {} BRANCH", here.repo);
        CliError::usage("no branch is checked out here", cure)
    })?;
    context.out.note(format!("{} {branch}, as checked out here", here.repo));
    if here.unpushed > 0 {
        context.out.warn(format!("{} commit(s) are not pushed, and are not deployed", here.unpushed));
    }
    Ok((here.repo, branch))
}
