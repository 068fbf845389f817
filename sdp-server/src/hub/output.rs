//! What an instance or a command prints, fetched from its agent piece by piece.

use jiff::Timestamp;
use sdp_core::{
    AgentName, InstanceKey, LogLine,
    protocol::{OutputStep, ReplyBody, RequestBody},
};
use tokio::sync::{mpsc, oneshot};

use super::{Hub, RequestError};

/// What is printed, in pieces of some hundred kilobytes at most, then its end, or the error that ended it. Without
/// either, the server stops. The next piece is fetched while one is taken.
pub(crate) type Pieces = mpsc::Receiver<Result<Piece, RequestError>>;

/// The next of what is printed.
#[derive(Debug)]
pub(crate) enum Piece {
    Lines(Vec<LogLine>),
    /// There is no more. A command has exited with this code.
    End(Option<i64>),
}

/// Somebody who reads what is printed.
struct Reader {
    hub: Hub,
    agent: AgentName,
    key: InstanceKey,
    id: u64,
}

struct Answer {
    lines: Vec<LogLine>,
    ended: bool,
    exit_code: Option<i64>,
}

impl Hub {
    /// Reads what an instance prints, or a command that begins to run with this step. To let the pieces go ends it, and so
    /// does giving this up.
    ///
    /// # Errors
    /// [`RequestError`] when it cannot be begun.
    pub(crate) async fn output(
        &self,
        agent: &AgentName,
        key: &InstanceKey,
        step: OutputStep,
    ) -> Result<Pieces, RequestError> {
        let reader = Reader { hub: self.clone(), agent: agent.clone(), key: key.clone(), id: rand::random() };
        let (begun, has_begun) = oneshot::channel();
        let (sender, pieces) = mpsc::channel(1);
        let read = async move { reader.read(step, begun, &sender).await };
        self.shared.tasks.spawn(self.shared.stop.clone().run_until_cancelled_owned(read));
        let stopping = |_| Err(RequestError::Lost { agent: agent.clone(), last_seen: Timestamp::now() });
        has_begun.await.unwrap_or_else(stopping).map(|()| pieces)
    }
}

impl Reader {
    async fn read(
        &self,
        step: OutputStep,
        begun: oneshot::Sender<Result<(), RequestError>>,
        taken: &mpsc::Sender<Result<Piece, RequestError>>,
    ) {
        let told = match self.ask(step).await {
            Ok(first) => {
                // Who does not wait for it any more has let the pieces go as well.
                let _ = begun.send(Ok(()));
                self.fetch(first, taken).await
            }
            Err(error) => {
                let is_over = is_over(&error);
                let _ = begun.send(Err(error));
                is_over
            }
        };
        // An agent that cannot be told forgets the reader by itself.
        if !told && let Err(error) = self.ask(OutputStep::End).await {
            tracing::debug!(agent = %self.agent, %error, "an agent was not told that nobody reads any more");
        }
    }

    /// Fetches until it is over: then true, or until nobody takes any more.
    async fn fetch(&self, mut answer: Answer, taken: &mpsc::Sender<Result<Piece, RequestError>>) -> bool {
        loop {
            let Answer { lines, ended, exit_code } = answer;
            if !lines.is_empty() && taken.send(Ok(Piece::Lines(lines))).await.is_err() {
                return ended;
            }
            if ended {
                let _ = taken.send(Ok(Piece::End(exit_code))).await;
                return true;
            }
            let next = tokio::select! {
                next = self.ask(OutputStep::Next) => next,
                () = taken.closed() => return false,
            };
            answer = match next {
                Ok(next) => next,
                Err(error) => {
                    let is_over = is_over(&error);
                    let _ = taken.send(Err(error)).await;
                    return is_over;
                }
            };
        }
    }

    async fn ask(&self, step: OutputStep) -> Result<Answer, RequestError> {
        let body = RequestBody::Output { key: self.key.clone(), reader: self.id, step };
        match self.hub.request(&self.agent, body).await? {
            ReplyBody::Output { lines, ended, exit_code } => Ok(Answer { lines, ended, exit_code }),
            _ => Err(RequestError::Unexpected { agent: self.agent.clone() }),
        }
    }
}

/// Whether the agent has no reader any more, or cannot be told. Where no answer came, it may have one still.
fn is_over(error: &RequestError) -> bool {
    matches!(error, RequestError::Refused(_) | RequestError::Away { .. })
}
