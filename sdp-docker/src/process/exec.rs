//! Commands that are run beside a program, with its folder and its variables.

use std::{io, process::Stdio, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use rustix::process::{Pid, Signal, kill_process_group};
use sdp_core::{DeployError, ExecCommand, ExecEvent, ExecEvents, LogLine, LogStream};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{self, Child},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

use super::{journal::Record, system};
use crate::{
    command::{self, CANNOT_RUN, Command, NO_PROGRAM},
    lines, marked,
};

/// How much is read at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// How long, in all, an exited command's output is waited for: what it has left behind may hold it open.
const DRAIN: Duration = Duration::from_millis(500);

/// How much of an exited command's output is told: what its two pipes hold, and what was read ahead. What it has left behind
/// may print for ever.
const DRAIN_BYTES: usize = 256 * 1024;

/// Runs a command. To let the events go before the last one ends it, which `ending` tracks.
pub(crate) fn run(record: &Record, wanted: &ExecCommand, ending: &TaskTracker) -> Result<ExecEvents, DeployError> {
    let mark = marked::of_a_command();
    let (name, value) = mark.split_once('=').unwrap_or((&mark, ""));
    let spawned = process::Command::new(wanted.program())
        .args(&wanted.arguments()[1..])
        .current_dir(&record.dir)
        .env_clear()
        .envs(&record.env)
        .env(name, value)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(source) if !record.dir.is_dir() => {
            return Err(DeployError::Io { action: format!("run a command in {}", record.dir.display()), source });
        }
        Err(error) => return Ok(not_started(wanted, &error)),
    };
    let outputs =
        stream::select(chunks(child.stdout.take(), LogStream::Stdout), chunks(child.stderr.take(), LogStream::Stderr));
    let lines = lines::lines(outputs).boxed().fuse();
    Ok(command::events(Running { child, mark, lines, exited: None, ending: ending.clone() }))
}

/// What a shell says of a program that is not there or cannot be run.
fn not_started(command: &ExecCommand, error: &io::Error) -> ExecEvents {
    let code = if error.kind() == io::ErrorKind::NotFound { NO_PROGRAM } else { CANNOT_RUN };
    let line = LogLine { stream: LogStream::Stderr, line: format!("{}: {error}", command.program()) };
    stream::iter([ExecEvent::Line(line), ExecEvent::Exited(code)].map(Ok)).boxed()
}

/// What comes out of a pipe.
fn chunks(
    pipe: Option<impl AsyncRead + Unpin + Send + 'static>,
    name: LogStream,
) -> BoxStream<'static, Result<(LogStream, Bytes), DeployError>> {
    let chunks = stream::unfold((pipe, name), async |(pipe, name)| {
        let mut pipe = pipe?;
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        match pipe.read_buf(&mut chunk).await {
            Ok(0) => None,
            Ok(_) => Some((Ok((name, chunk.freeze())), (Some(pipe), name))),
            Err(source) => {
                let action = "read what a command prints".into();
                Some((Err(DeployError::Io { action, source }), (None, name)))
            }
        }
    });
    chunks.boxed()
}

/// The command's process and what it prints.
struct Running {
    child: Child,
    mark: String,
    lines: stream::Fuse<BoxStream<'static, Result<LogLine, DeployError>>>,
    exited: Option<Exited>,
    ending: TaskTracker,
}

/// A command that has exited, and what of its output may still be told.
struct Exited {
    code: i64,
    /// How long it may be waited for.
    wait: Duration,
    bytes: usize,
}

#[async_trait]
impl Command for Running {
    async fn next(&mut self) -> Result<ExecEvent, DeployError> {
        let exited = match &mut self.exited {
            Some(exited) => exited,
            None => tokio::select! {
                biased;
                // First, as there may be lines for ever.
                status = self.child.wait() => {
                    let failed = |source| DeployError::Io { action: "wait for a command".into(), source };
                    let code = system::exit_code(status.map_err(failed)?);
                    self.exited.insert(Exited { code, wait: DRAIN, bytes: DRAIN_BYTES })
                }
                // It may close its outputs and go on.
                Some(line) = self.lines.next() => return line.map(ExecEvent::Line),
            },
        };
        if exited.bytes == 0 {
            return Ok(ExecEvent::Exited(exited.code));
        }
        let began = Instant::now();
        match timeout(exited.wait, self.lines.next()).await {
            Ok(Some(line)) => {
                let line = line?;
                exited.wait = exited.wait.saturating_sub(began.elapsed());
                exited.bytes = exited.bytes.saturating_sub(line.line.len() + 1);
                Ok(ExecEvent::Line(line))
            }
            Ok(None) | Err(_) => Ok(ExecEvent::Exited(exited.code)),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.exited.is_some() {
            return;
        }
        if let Some(group) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            // It may have ended by itself meanwhile.
            let _ = kill_process_group(group, Signal::KILL);
        }
        // What left its group; a thread of its own, as this may be the end of the runtime.
        let (mark, token) = (std::mem::take(&mut self.mark), self.ending.token());
        let kill = move || {
            let _token = token;
            marked::kill_marked(&mark, None);
        };
        if let Err(error) = std::thread::Builder::new().spawn(kill) {
            tracing::warn!(%error, "what a command has started was not looked for; it may go on");
        }
    }
}
