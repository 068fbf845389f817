//! `sdp sandbox deploy`.

use clap::Args;
use sdp_core::{Deployment, SandboxName, api::RefusedService, client::Client};

use crate::{context::Context, error::CliError, follow::follow_all};

/// Deploys every service of a sandbox, side by side, then sets the routes it wants.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sdp sandbox deploy pay --follow")]
pub(crate) struct Deploy {
    /// The sandbox.
    name: SandboxName,
    /// Follows the deployments to their end, and fails if one does.
    #[arg(long, short)]
    follow: bool,
}

impl Deploy {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        deploy(&context.client()?, context, &self.name, self.follow).await
    }
}

/// Deploys every service of a sandbox.
pub(super) async fn deploy(
    client: &Client,
    context: &Context,
    name: &SandboxName,
    follow: bool,
) -> Result<(), CliError> {
    let begun = client.deploy_sandbox(name, None).await?;
    if context.out.is_json() {
        context.out.json(&begun)?;
    } else if begun.deployments.is_empty() && begun.refused.is_empty() {
        context.out.note("it has no services: deploy some into it");
    }
    tell(client, context, &begun.deployments, &begun.refused, follow).await
}

/// Says what has begun and what was refused, and follows what has begun.
pub(super) async fn tell(
    client: &Client,
    context: &Context,
    deployments: &[Deployment],
    refused: &[RefusedService],
    follow: bool,
) -> Result<(), CliError> {
    let out = &context.out;
    if !out.is_json() && !follow {
        for it in deployments {
            out.line(format!("deploying {} {} as {}", it.key, it.branch, it.id))?;
        }
    }
    for RefusedService { repo, problem } in refused {
        out.warn(format!("{repo} is not deployed: {problem}"));
    }
    if follow {
        follow_all(client, out, deployments).await?;
    }
    match refused.len() {
        0 => Ok(()),
        refused => Err(CliError::Refused { refused }),
    }
}
