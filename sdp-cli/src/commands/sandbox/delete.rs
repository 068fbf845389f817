//! `sdp sandbox delete`.

use clap::Args;
use sdp_core::SandboxName;

use crate::{context::Context, error::CliError};

/// Tears a sandbox down, with its containers, worktrees and routes.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sdp sandbox delete pay")]
pub(crate) struct Delete {
    /// The sandboxes.
    #[arg(required = true)]
    names: Vec<SandboxName>,
}

impl Delete {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        for name in &self.names {
            match client.delete_sandbox(name, None).await? {
                None => {
                    let gone = serde_json::json!({ "name": name, "state": "deleted" });
                    context.out.answer(&gone, |_, _| format!("sandbox {name} is gone\n"))?;
                }
                Some(rest) => {
                    context.out.answer(&rest, |_, _| format!("sandbox {name} is being torn down\n"))?;
                    if let Some(problem) = &rest.problem {
                        context.out.note(format!("{problem}; it goes on by itself"));
                    }
                }
            }
        }
        Ok(())
    }
}
