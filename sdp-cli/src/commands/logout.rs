//! `sdp logout`.

use clap::Args;
use sdp_core::{ErrorCode, client::ClientError};

use crate::{context::Context, error::CliError};

/// Ends the session and forgets it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp logout
  sdp logout --everywhere")]
pub(crate) struct Logout {
    /// Ends every session of yours, also in browsers.
    #[arg(long)]
    everywhere: bool,
}

impl Logout {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let (server, _) = context.server()?;
        let mut credentials = context.credentials()?;
        let Some(kept) = credentials.get(&server) else {
            context.out.note(format!("you were not signed in to {server}"));
            return Ok(());
        };
        let client = context.anonymous()?.with_token(kept.token().clone())?;
        let ended = client.sign_out(self.everywhere).await;
        // Forgotten in any case: that is what was asked for.
        credentials.remove(&server)?;
        match ended {
            Ok(()) => {}
            Err(ClientError::Refused(problem)) if problem.code == ErrorCode::NotSignedIn => {
                context.out.note("the session had ended before");
            }
            Err(ClientError::Refused(problem)) if problem.code == ErrorCode::NotAllowed => {
                context.out.warn("what was kept was a token, which still lives: `sdp token revoke` ends it");
            }
            Err(error) => return Err(error.into()),
        }
        context
            .out
            .answer(&serde_json::json!({ "server": server.as_str() }), |_, _| format!("signed out of {server}\n"))
    }
}
