//! Commands that are run where a deployment runs.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use memchr::memchr;
use serde::Serialize;
use tokio::time::timeout;

use super::{Client, ClientError, call::Call, deployments::path, exchange::MAX_ANSWER_BYTES};
use crate::{
    api::exec::{ExecEnd, RunCommand},
    deployer::{ExecEvent, LogLine},
    model::{command::ExecCommand, event::LogStream, ids::DeploymentId},
};

/// The longest record: a line of output is 64 KiB at most, and JSON writes some characters with six bytes.
const MAX_RECORD_BYTES: usize = 1024 * 1024;

/// A command under way. Letting it go before it has exited ends it.
pub struct RunningCommand {
    answer: BoxStream<'static, Result<Bytes, ClientError>>,
    /// What has come and is not told yet.
    rest: BytesMut,
    has_ended: bool,
    client: Client,
    what: String,
}

/// All of a command that has exited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CompletedCommand {
    /// What it printed to standard output; each line has an end.
    pub stdout: String,
    /// What it printed to standard error.
    pub stderr: String,
    /// Its exit code; 128 and the signal's number when it was killed.
    pub code: i64,
}

impl Client {
    /// Runs a command where a deployment's program runs, and reads what it prints as it does. It is sent once: whether a
    /// command whose answer was lost has run, nobody knows.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorCode::Conflict) when the deployment is not running,
    /// [`NotAllowed`](crate::ErrorCode::NotAllowed) when its agent's configuration or the role does not allow it; whatever
    /// the agent answers.
    pub async fn exec(&self, id: DeploymentId, command: ExecCommand) -> Result<RunningCommand, ClientError> {
        let call = Call::post(format!("{}/exec", path(id))).json(&RunCommand { command }).accept("*/*");
        let what = call.to_string();
        let answer = self.download(call).await?;
        Ok(RunningCommand { answer, rest: BytesMut::new(), has_ended: false, client: self.clone(), what })
    }
}

impl RunningCommand {
    /// The next line, once there is one, and at last how the command has exited; then none. May be given up while it
    /// waits, and loses nothing then.
    ///
    /// # Errors
    /// When it is not known how the command goes on: the connection broke or its agent went away. Then there is no more.
    pub async fn next(&mut self) -> Result<Option<ExecEvent>, ClientError> {
        if self.has_ended {
            return Ok(None);
        }
        let told = self.read().await;
        self.has_ended = !matches!(told, Ok(ExecEvent::Line(_)));
        told.map(Some)
    }

    async fn read(&mut self) -> Result<ExecEvent, ClientError> {
        let mut searched = 0;
        loop {
            if let Some(end) = memchr(b'\n', &self.rest[searched..]).map(|at| searched + at) {
                searched = 0;
                let record = self.rest.split_to(end);
                self.rest.advance(1);
                if record.is_empty() {
                    continue;
                }
                if let Ok(line) = serde_json::from_slice(&record) {
                    return Ok(ExecEvent::Line(line));
                }
                return match serde_json::from_slice(&record) {
                    Ok(ExecEnd::Exited { code }) => Ok(ExecEvent::Exited(code)),
                    Ok(ExecEnd::Broken { problem }) => Err(ClientError::Refused(*problem)),
                    Err(source) => {
                        let server = self.client.address().to_string();
                        Err(ClientError::Unreadable { server, what: self.what.clone(), source })
                    }
                };
            }
            searched = self.rest.len();
            if searched > MAX_RECORD_BYTES {
                return Err(self.broken("a line of it is too long"));
            }
            let limit = self.client.options().silence;
            match timeout(limit, self.answer.next()).await {
                Ok(Some(bytes)) => self.rest.extend_from_slice(&bytes?),
                Ok(None) => return Err(self.broken("it ended before it told how the command has exited")),
                Err(_) => return Err(self.broken(&format!("nothing came for {limit:?}"))),
            }
        }
    }

    fn broken(&self, how: &str) -> ClientError {
        ClientError::Broken { server: self.client.address().to_string(), what: self.what.clone(), source: how.into() }
    }

    /// Reads it to its end, and keeps all of it: 256 MiB at most.
    ///
    /// # Errors
    /// As [`next`](Self::next), and when it prints more than that.
    pub async fn complete(mut self) -> Result<CompletedCommand, ClientError> {
        let mut completed = CompletedCommand::default();
        while let Some(event) = self.next().await? {
            match event {
                ExecEvent::Line(LogLine { stream, line }) => {
                    let text = if stream == LogStream::Stderr { &mut completed.stderr } else { &mut completed.stdout };
                    text.push_str(&line);
                    text.push('\n');
                    if completed.stdout.len() + completed.stderr.len() > MAX_ANSWER_BYTES {
                        return Err(self.broken("it prints more than is kept; read it as it comes"));
                    }
                }
                ExecEvent::Exited(code) => completed.code = code,
            }
        }
        Ok(completed)
    }

    /// The same as a stream, which ends with the command or the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<ExecEvent, ClientError>> + Send {
        stream::try_unfold(self, |mut running| async { Ok(running.next().await?.map(|event| (event, running))) })
    }
}

impl fmt::Debug for RunningCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningCommand").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}
