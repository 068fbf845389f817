//! What an instance prints, fetched from its agent piece by piece.

use sdp_core::{
    AgentName, InstanceKey, LogLine, LogOptions,
    protocol::{OutputStep, ReplyBody, RequestBody},
};
use tokio::sync::mpsc;

use super::{Hub, RequestError};

/// What an instance prints, in pieces of some hundred kilobytes at most, then none, or the error that ended it. Without
/// either, the server stops. The next piece is fetched while one is taken.
pub(crate) type Pieces = mpsc::Receiver<Result<Option<Vec<LogLine>>, RequestError>>;

/// Somebody who reads what an instance prints.
struct Reader {
    hub: Hub,
    agent: AgentName,
    key: InstanceKey,
    id: u64,
}

impl Hub {
    /// Reads what an instance prints. To let the pieces go ends it.
    ///
    /// # Errors
    /// [`RequestError`] when it cannot be begun.
    pub(crate) async fn output(
        &self,
        agent: &AgentName,
        key: &InstanceKey,
        options: LogOptions,
    ) -> Result<Pieces, RequestError> {
        let reader = Reader { hub: self.clone(), agent: agent.clone(), key: key.clone(), id: rand::random() };
        let first = reader.ask(OutputStep::Begin(options)).await?;
        let (sender, pieces) = mpsc::channel(1);
        let fetch = async move { reader.fetch(first, &sender).await };
        self.shared.tasks.spawn(self.shared.stop.clone().run_until_cancelled_owned(fetch));
        Ok(pieces)
    }
}

impl Reader {
    async fn fetch(
        &self,
        mut piece: (Vec<LogLine>, bool),
        taken: &mpsc::Sender<Result<Option<Vec<LogLine>>, RequestError>>,
    ) {
        loop {
            let (lines, ended) = piece;
            if !lines.is_empty() && taken.send(Ok(Some(lines))).await.is_err() {
                break;
            }
            if ended {
                let _ = taken.send(Ok(None)).await;
                return;
            }
            let next = tokio::select! {
                next = self.ask(OutputStep::Next) => next,
                () = taken.closed() => break,
            };
            piece = match next {
                Ok(next) => next,
                Err(error) => {
                    let _ = taken.send(Err(error)).await;
                    return;
                }
            };
        }
        // An agent that cannot be told forgets the reader by itself.
        if let Err(error) = self.ask(OutputStep::End).await {
            tracing::debug!(agent = %self.agent, %error, "an agent was not told that nobody reads any more");
        }
    }

    async fn ask(&self, step: OutputStep) -> Result<(Vec<LogLine>, bool), RequestError> {
        let body = RequestBody::Output { key: self.key.clone(), reader: self.id, step };
        match self.hub.request(&self.agent, body).await? {
            ReplyBody::Output { lines, ended } => Ok((lines, ended)),
            _ => Err(RequestError::Unexpected { agent: self.agent.clone() }),
        }
    }
}
