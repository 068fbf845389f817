//! `sdp exec`.

use clap::Args;
use sdp_core::{
    ExecCommand, ExecEvent, LogStream,
    api::exec::ExecEnd,
    client::{ClientError, RunningCommand},
};

use crate::{
    context::Context,
    error::{CliError, exit},
    output::{Output, clean},
    which::WhichDeployment,
};

/// Runs a command where a deployment's program runs, and exits as it does
///
/// In its container, with its variables, without a shell, a terminal or input. What it prints to standard output and
/// standard error comes there. Ctrl-C ends it. Where `sdp` itself fails, it says so in a line `sdp: ...` and exits with a
/// code of its own.
///
/// The agent's operator must allow it, and the audit keeps the command as it is typed: no secret belongs on it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp exec eredar -- ps
  sdp exec illidan --sandbox pay -- ls -la /app
  sdp exec -- sh -c 'env | sort'          # in a checkout: its repo's newest")]
pub(crate) struct Exec {
    #[command(flatten)]
    which: WhichDeployment,
    /// The program and its arguments, after --.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let cure = "name a program after --, as in `sdp exec eredar -- ls -la`";
        let command = ExecCommand::new(self.command).map_err(|error| CliError::usage(error.to_string(), cure))?;
        let client = context.client()?;
        let id = self.which.find_program_to_change(&client).await?.id;
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        let running = async {
            let mut running = client.exec(id, command).await?;
            tell(&mut running, &context.out).await
        };
        tokio::select! {
            told = running => told,
            signal = &mut interrupted => Err(match signal {
                Ok(()) => CliError::Interrupted("the command is told to end".into()),
                Err(error) => CliError::Output(error),
            }),
        }
    }
}

/// Writes what a command prints where it does, until it exits.
async fn tell(running: &mut RunningCommand, out: &Output) -> Result<(), CliError> {
    loop {
        let event = running.next().await.inspect_err(|error| broken(error, out))?;
        match event {
            Some(ExecEvent::Line(line)) if out.is_json() => out.json(&line)?,
            Some(ExecEvent::Line(line)) if line.stream == LogStream::Stderr => out.error_line(clean(&line.line)),
            Some(ExecEvent::Line(line)) => out.line(clean(&line.line))?,
            Some(ExecEvent::Exited(code)) => {
                if out.is_json() {
                    out.json(&ExecEnd::Exited { code })?;
                }
                // A code that no process can exit with is a failure all the same.
                return match u8::try_from(code).unwrap_or(exit::FAILED) {
                    exit::OK => Ok(()),
                    code => Err(CliError::Exited(code)),
                };
            }
            None => return Ok(()),
        }
    }
}

/// Ends the lines for a program as the server does; the error is told besides.
fn broken(error: &ClientError, out: &Output) {
    if let Some(problem) = error.problem().filter(|_| out.is_json()) {
        // An output that cannot be written is the lesser trouble.
        let _ = out.json(&ExecEnd::Broken { problem: Box::new(problem.clone()) });
    }
}
