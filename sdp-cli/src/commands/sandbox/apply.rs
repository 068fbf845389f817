//! `sdp sandbox apply`.

use clap::Args;
use sdp_core::SandboxName;

use super::{deploy::tell, file::File};
use crate::{context::Context, error::CliError};

/// Makes or changes a sandbox as a document says, with exactly the changes that it takes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp sandbox apply --file sandbox.yaml --follow
  sdp sandbox export pay | sdp sandbox apply pay-2 --file -")]
pub(crate) struct Apply {
    /// The sandbox; the one that the document names when left out.
    name: Option<SandboxName>,
    #[command(flatten)]
    file: File,
    /// Follows the deployments to their end, and fails if one does.
    #[arg(long, short = 'F')]
    follow: bool,
}

impl Apply {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let (name, document) = self.file.read(self.name)?;
        let client = context.client()?;
        let applied = client.apply_sandbox(&name, &document).await?;
        if context.out.is_json() {
            context.out.json(&applied)?;
        } else if applied.changes.is_empty() && applied.deployments.is_empty() {
            context.out.line(format!("sandbox {name} is as the document says"))?;
        }
        if !context.out.is_json() {
            applied.changes.iter().try_for_each(|change| context.out.line(format!("{name}: {change}")))?;
        }
        tell(&client, context, &applied.deployments, &applied.refused, self.follow).await
    }
}
