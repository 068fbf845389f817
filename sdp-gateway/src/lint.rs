//! The gateway's own judge of PHP, run before anything is written.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use sdp_core::RouteError;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::error::io_error;

/// The longest a lint may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Gives `bytes` to `command` on standard input; an exit other than 0 refuses them. `path` is where they would go.
pub(crate) async fn lint(command: &[String], path: &Path, bytes: &[u8]) -> Result<(), RouteError> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let action = format!("have `{}` (gateway.lint) judge", command.join(" "));
    let failed = |source| io_error(&action, path, source);
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A judge that stops reading has made up its mind.
            let _ = stdin.write_all(bytes).await;
        }
    };
    let judged = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = match timeout(LIMIT, judged).await {
        Ok(output) => output.map_err(failed)?,
        Err(_) => return Err(failed(io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {LIMIT:?}")))),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let first = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it gave no reason");
    let line = said.rsplit_once(" on line ").and_then(|(_, rest)| {
        rest.split(|char: char| !char.is_ascii_digit()).next().and_then(|number| number.parse().ok())
    });
    let reason = format!("`{program}` refuses it: {}", first.chars().take(300).collect::<String>());
    Err(RouteError::Invalid { path: path.to_owned(), line: line.unwrap_or(1), reason })
}
