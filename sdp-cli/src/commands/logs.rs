//! `sdp logs`.

use bytes::Bytes;
use clap::Args;
use futures_util::{TryStreamExt, stream::BoxStream};
use sdp_core::{
    DeploymentId,
    api::logs::{LogFormat, LogQuery, OutputQuery},
    client::{Client, ClientError},
};

use crate::{
    context::Context,
    error::CliError,
    follow::{Show, follow},
    output::{Output, clean},
    which::WhichDeployment,
};

/// Shows a deployment's log: each stage, what its build printed, and how it went
///
/// With --container: what its program prints.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp logs --follow                       # in a checkout: its repo's newest deployment
  sdp logs eredar --sandbox pay --tail 50
  sdp logs eredar --container --follow --tail 20
  sdp logs 0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55 > deployment.log")]
pub(crate) struct Logs {
    #[command(flatten)]
    which: WhichDeployment,
    /// Shows new lines as they come, to the deployment's end, and fails if it does. With --container: until the program
    /// ends.
    #[arg(long, short)]
    follow: bool,
    /// Only the last lines, so many.
    #[arg(long, short = 'n', value_name = "LINES")]
    tail: Option<u32>,
    /// Only from this line on.
    #[arg(long, value_name = "LINE", conflicts_with = "tail")]
    from: Option<u64>,
    /// What the running program prints, instead of how it was deployed. Of a repo: the newest deployment that runs.
    #[arg(long, short, conflicts_with = "from")]
    container: bool,
}

impl Logs {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        let out = &context.out;
        let format = if out.is_json() { LogFormat::Ndjson } else { LogFormat::Text };
        if self.container {
            let id = self.which.find_program(&client).await?.id;
            if self.follow {
                return follow_program(&client, out, id, self.tail).await;
            }
            return copy(out, client.output(id, &OutputQuery { tail: self.tail, format }).await?).await;
        }
        let id = self.which.find(&client).await?.id;
        let tail = self.tail.map(|lines| lines as usize);
        if self.follow {
            let mut from = self.from.unwrap_or(1);
            if let Some(lines) = tail {
                let last = LogQuery { tail: Some(lines.max(1)), ..LogQuery::default() };
                let events = client.log_events(id, &last).await?;
                let first = events.first().map_or(1, |event| event.seq);
                from = if lines == 0 { events.last().map_or(1, |event| event.seq + 1) } else { first };
            }
            return follow(&client, out, id, from, Show::Lines).await.map(drop);
        }
        copy(out, client.log_stream(id, &LogQuery { from: self.from, tail, format }).await?).await
    }
}

/// Writes a document as it comes.
async fn copy(out: &Output, mut document: BoxStream<'static, Result<Bytes, ClientError>>) -> Result<(), CliError> {
    let mut rest = Vec::new();
    while let Some(bytes) = document.try_next().await? {
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

/// Writes what a program prints, until it ends.
async fn follow_program(client: &Client, out: &Output, id: DeploymentId, tail: Option<u32>) -> Result<(), CliError> {
    let mut program = client.follow_output(id, tail).await?;
    while let Some(line) = program.next().await? {
        if out.is_json() {
            out.json(&line)?;
        } else {
            out.line(clean(&line.line))?;
        }
    }
    out.note("the program has ended, or another has taken its place");
    Ok(())
}
