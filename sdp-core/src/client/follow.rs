//! A deployment's log, as it is written.

use std::{collections::VecDeque, fmt, time::Duration};

use futures_util::{Stream, stream};
use tokio::time::sleep;

use super::{
    Client, ClientError,
    call::{Call, segment},
    socket::{Attempts, Socket},
};
use crate::{
    api::{
        StreamEnd,
        logs::{FollowQuery, LogFormat, LogQuery},
    },
    model::{
        deployment::{Deployment, DeploymentState},
        event::Event,
        ids::DeploymentId,
    },
};

/// How often it is looked for new lines where no WebSocket gets through.
const POLL: Duration = Duration::from_secs(1);

/// How often that is done before a WebSocket is tried again.
const POLLS: u32 = 30;

/// A log that is followed, from a line on and to its deployment's end: every line once and in order, also when the
/// connection breaks off meanwhile. Where no WebSocket gets through, the log is asked for again and again instead.
pub struct Follow {
    client: Client,
    id: DeploymentId,
    /// The line that comes next.
    next: u64,
    source: Source,
    ready: VecDeque<Event>,
    end: Option<(DeploymentState, u64)>,
    attempts: Attempts,
}

enum Source {
    /// None yet, or none any more.
    Broken,
    Socket(Box<Socket>),
    /// So often.
    Polling(u32),
}

impl Client {
    /// Follows a deployment's log from a line on; 1 is the first.
    pub fn follow(&self, id: DeploymentId, from: u64) -> Follow {
        Follow {
            client: self.clone(),
            id,
            next: from.max(1),
            source: Source::Broken,
            ready: VecDeque::new(),
            end: None,
            attempts: Attempts::default(),
        }
    }

    /// Waits until a deployment's pipeline has ended, and answers the deployment as it is then.
    ///
    /// # Errors
    /// As [`Follow::next`].
    pub async fn wait(&self, id: DeploymentId) -> Result<Deployment, ClientError> {
        let mut follow = self.follow(id, u64::MAX);
        while follow.next().await?.is_some() {}
        self.deployment(id).await
    }
}

impl Follow {
    /// The next event, once there is one; none when the deployment's pipeline has ended. May be given up while it
    /// waits, and called again after an error: nothing is lost by either.
    ///
    /// # Errors
    /// When the server refuses, or it was tried in vain for
    /// [`reconnect_for`](super::ClientOptions::reconnect_for) to go on.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            if self.end.is_some() {
                return Ok(None);
            }
            if let Err(error) = self.fill().await {
                self.source = Source::Broken;
                self.attempts.failed(error, self.client.options()).await?;
            }
        }
    }

    /// The deployment it is of.
    pub fn deployment(&self) -> DeploymentId {
        self.id
    }

    /// The number of the line that comes next: with it another can go on here.
    pub fn position(&self) -> u64 {
        self.next - self.ready.len() as u64
    }

    /// The state in which the pipeline ended and the number of the last line, once all was told.
    pub fn end(&self) -> Option<(DeploymentState, u64)> {
        self.end.filter(|_| self.ready.is_empty())
    }

    /// The same as a stream, which ends with the deployment's end or the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event, ClientError>> + Send {
        stream::try_unfold(self, |mut follow| async { Ok(follow.next().await?.map(|event| (event, follow))) })
    }

    /// Takes what there is, at least once something came.
    async fn fill(&mut self) -> Result<(), ClientError> {
        match &mut self.source {
            Source::Broken => {
                let call = Call::get(format!("/ws/deployments/{}", segment(self.id.to_string())));
                let socket = self.client.socket(&call.query(&FollowQuery { from: Some(self.next) })).await;
                self.source = match socket {
                    Ok(socket) => Source::Socket(Box::new(socket)),
                    Err(error) if may_be_the_websocket(&error) => {
                        tracing::debug!(%error, "asking for the log instead");
                        return self.poll(POLLS).await;
                    }
                    Err(error) => return Err(error),
                };
                self.attempts.connected();
                Ok(())
            }
            Source::Socket(socket) => {
                let text = socket.text().await?;
                self.attempts.progressed();
                text.lines().try_for_each(|line| self.take(line))
            }
            Source::Polling(0) => {
                self.source = Source::Broken;
                Ok(())
            }
            Source::Polling(left) => {
                let left = *left - 1;
                sleep(POLL).await;
                self.poll(left).await
            }
        }
    }

    async fn poll(&mut self, left: u32) -> Result<(), ClientError> {
        // Asked for first: what the log has afterwards is all that the pipeline told.
        let state = self.client.deployment(self.id).await?.state;
        let query = LogQuery { from: Some(self.next), tail: None, format: LogFormat::Ndjson };
        let text = self.client.log_text(self.id, &query).await?;
        self.attempts.progressed();
        text.lines().try_for_each(|line| self.take(line))?;
        self.source = Source::Polling(left);
        if !state.is_active() {
            self.end = Some((state, self.next - 1));
        }
        Ok(())
    }

    fn take(&mut self, line: &str) -> Result<(), ClientError> {
        let unreadable = |source| ClientError::Unreadable {
            server: self.client.address().to_string(),
            what: format!("the log of deployment {}", self.id),
            source,
        };
        let event = match serde_json::from_str::<Event>(line) {
            Ok(event) => event,
            Err(error) => {
                let StreamEnd::End { state, last } = serde_json::from_str(line).map_err(|_| unreadable(error))?;
                self.end = Some((state, last));
                return Ok(());
            }
        };
        if self.next == u64::MAX || event.seq < self.next {
            return Ok(());
        }
        if event.seq > self.next {
            return Err(ClientError::Gap { expected: self.next, got: event.seq });
        }
        self.next += 1;
        self.ready.push_back(event);
        Ok(())
    }
}

/// Whether plain requests may get through all the same.
fn may_be_the_websocket(error: &ClientError) -> bool {
    use ClientError as E;
    matches!(error, E::NoWebSocket { .. } | E::NotSdp { .. } | E::Broken { .. } | E::TimedOut { .. })
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow").field("deployment", &self.id).field("next", &self.next).finish_non_exhaustive()
    }
}
