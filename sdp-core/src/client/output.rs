//! What a deployment's program prints.

use std::{collections::VecDeque, fmt};

use bytes::Bytes;
use futures_util::{
    Stream,
    stream::{self, BoxStream},
};

use super::{
    Client, ClientError,
    call::{Call, segment},
    deployments::path,
    socket::Socket,
};
use crate::{
    api::logs::{OutputEnd, OutputQuery, OutputTail},
    deployer::LogLine,
    model::ids::DeploymentId,
};

/// What a program prints, from some line on until it ends. Nothing is kept of it: when the connection breaks, it ends
/// with an error.
pub struct FollowOutput {
    socket: Socket,
    ready: VecDeque<LogLine>,
    has_ended: bool,
}

fn call(id: DeploymentId, query: &OutputQuery) -> Call {
    Call::get(format!("{}/output", path(id))).query(query).accept("*/*")
}

impl Client {
    /// What a deployment's program has printed so far, as it comes, and as text of the format asked for.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorCode::Conflict) when no program of it is there; whatever its agent answers.
    pub async fn output(
        &self,
        id: DeploymentId,
        query: &OutputQuery,
    ) -> Result<BoxStream<'static, Result<Bytes, ClientError>>, ClientError> {
        self.download(call(id, query)).await
    }

    /// The same, whole.
    ///
    /// # Errors
    /// As [`output`](Self::output).
    pub async fn output_text(&self, id: DeploymentId, query: &OutputQuery) -> Result<String, ClientError> {
        Ok(self.send(call(id, query)).await?.text())
    }

    /// Follows what a deployment's program prints, from its last lines on, so many, or all of them.
    ///
    /// # Errors
    /// As [`output`](Self::output); when no WebSocket gets through.
    pub async fn follow_output(&self, id: DeploymentId, tail: Option<u32>) -> Result<FollowOutput, ClientError> {
        let call = Call::get(format!("/ws/deployments/{}/output", segment(id.to_string()))).query(&OutputTail { tail });
        Ok(FollowOutput { socket: self.socket(&call).await?, ready: VecDeque::new(), has_ended: false })
    }
}

impl FollowOutput {
    /// The next line, once there is one; none when the program has ended. May be given up while it waits, and loses
    /// nothing then.
    ///
    /// # Errors
    /// When the connection broke, the session ended or the agent went away; then there is no more.
    pub async fn next(&mut self) -> Result<Option<LogLine>, ClientError> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            if self.has_ended {
                return Ok(None);
            }
            let text = self.socket.text().await.inspect_err(|_| self.has_ended = true)?;
            for line in text.lines() {
                if let Ok(line) = serde_json::from_str(line) {
                    self.ready.push_back(line);
                    continue;
                }
                self.has_ended = true;
                match serde_json::from_str(line) {
                    Ok(OutputEnd::End) => {}
                    Ok(OutputEnd::Broken { problem }) => return Err(ClientError::Refused(*problem)),
                    Err(source) => return Err(self.socket.unreadable(source)),
                }
            }
        }
    }

    /// The same as a stream, which ends with the program or the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<LogLine, ClientError>> + Send {
        stream::try_unfold(self, |mut follow| async { Ok(follow.next().await?.map(|line| (line, follow))) })
    }
}

impl fmt::Debug for FollowOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowOutput").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}
