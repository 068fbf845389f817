//! `sdp sandbox export`.

use clap::Args;
use sdp_core::SandboxName;

use crate::{context::Context, error::CliError};

/// Writes the document that, applied, gives the same sandbox: YAML, to be kept beside the code.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sdp sandbox export pay > sandbox.yaml")]
pub(crate) struct Export {
    /// The sandbox.
    name: SandboxName,
}

impl Export {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        if context.out.is_json() {
            return context.out.json(&client.export_sandbox(&self.name).await?);
        }
        context.out.write(&client.export_sandbox_yaml(&self.name).await?)
    }
}
