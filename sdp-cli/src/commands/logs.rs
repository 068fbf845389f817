//! `sdp logs`.

use clap::Args;
use futures_util::TryStreamExt;
use sdp_core::api::logs::{LogFormat, LogQuery};

use crate::{
    context::Context,
    error::CliError,
    follow::{Show, follow},
    output::clean,
    which::WhichDeployment,
};

/// Shows a deployment's log: each stage, what its build printed, and how it went.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp logs --follow                       # in a checkout: its repo's newest deployment
  sdp logs eredar --sandbox pay --tail 50
  sdp logs 0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55 > deployment.log")]
pub(crate) struct Logs {
    #[command(flatten)]
    which: WhichDeployment,
    /// Shows new lines as they come, to the deployment's end, and fails if it does.
    #[arg(long, short)]
    follow: bool,
    /// Only the last lines, so many.
    #[arg(long, short = 'n', value_name = "LINES")]
    tail: Option<usize>,
    /// Only from this line on.
    #[arg(long, value_name = "LINE", conflicts_with = "tail")]
    from: Option<u64>,
}

impl Logs {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        let id = self.which.find(&client).await?.id;
        let out = &context.out;
        if self.follow {
            let mut from = self.from.unwrap_or(1);
            if let Some(lines) = self.tail {
                let last = LogQuery { tail: Some(lines.max(1)), ..LogQuery::default() };
                let events = client.log_events(id, &last).await?;
                let first = events.first().map_or(1, |event| event.seq);
                from = if lines == 0 { events.last().map_or(1, |event| event.seq + 1) } else { first };
            }
            return follow(&client, out, id, from, Show::Lines).await.map(drop);
        }
        let format = if out.is_json() { LogFormat::Ndjson } else { LogFormat::Text };
        let query = LogQuery { from: self.from, tail: self.tail, format };
        let mut log = client.log_stream(id, &query).await?;
        let mut rest = Vec::new();
        while let Some(bytes) = log.try_next().await? {
            if out.is_json() {
                out.write_bytes(&bytes)?;
                continue;
            }
            rest.extend_from_slice(&bytes);
            // Whole lines, so that nothing is cut within a letter or an escape sequence.
            let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            out.write(&clean(&String::from_utf8_lossy(&rest[..end])))?;
            rest.drain(..end);
        }
        out.write(&clean(&String::from_utf8_lossy(&rest)))
    }
}
