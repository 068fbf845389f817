//! `sdp sandbox diff`.

use clap::Args;
use sdp_core::SandboxName;

use super::file::File;
use crate::{context::Context, error::CliError};

/// Shows what applying a document would change, and changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sdp sandbox diff pay --file sandbox.yaml")]
pub(crate) struct Diff {
    /// The sandbox; the one that the document names when left out.
    name: Option<SandboxName>,
    #[command(flatten)]
    file: File,
}

impl Diff {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let (name, document) = self.file.read(self.name)?;
        let changes = context.client()?.diff_sandbox(&name, &document).await?;
        context.out.answer(&changes, |it, _| {
            if it.changes.is_empty() {
                return format!("sandbox {name} is as the document says\n");
            }
            it.changes.iter().map(|change| format!("{name}: {change}\n")).collect()
        })
    }
}
