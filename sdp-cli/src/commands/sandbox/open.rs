//! `sdp sandbox open`.

use std::{
    io,
    process::{Command, Stdio},
};

use clap::Args;
use sdp_core::{RepoName, SandboxName};

use crate::{context::Context, error::CliError};

/// Opens a sandbox's page of the dashboard in the browser, or one of its services.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp sandbox open pay
  sdp sandbox open pay --service eredar --print")]
pub(crate) struct Open {
    /// The sandbox.
    name: SandboxName,
    /// The repo of a service that runs in it.
    #[arg(long)]
    service: Option<RepoName>,
    /// Prints the address instead.
    #[arg(long)]
    print: bool,
}

impl Open {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        let detail = client.sandbox(&self.name).await?.value;
        let url = match &self.service {
            None => format!("{}/sandboxes/{}", client.address(), self.name),
            Some(repo) => {
                let newest = detail.deployments.iter().find(|deployment| deployment.key.repo == *repo);
                newest.and_then(|deployment| deployment.url.clone()).ok_or_else(|| {
                    let cure = format!("sdp deploy {repo} BRANCH --sandbox {}", self.name);
                    CliError::nothing(format!("nothing of {repo} runs in sandbox {}", self.name), cure)
                })?
            }
        };
        if context.out.is_json() {
            return context.out.json(&serde_json::json!({ "url": url }));
        }
        context.out.line(&url)?;
        if !self.print
            && let Err(error) = open(&url)
        {
            context.out.note(format!("no browser could be started ({error}): open the address above"));
        }
        Ok(())
    }
}

/// Hands an address to the desktop.
fn open(url: &str) -> io::Result<()> {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    let status = command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{program} ended with {status}"))) }
}
