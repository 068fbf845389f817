//! What an instance prints, fetched from its agent piece by piece.

use sdp_core::{
    AgentName, InstanceKey, LogLine, LogOptions,
    protocol::{ReplyBody, RequestBody},
};
use tokio::sync::mpsc;

use super::{Hub, RequestError};

/// What an instance prints, in pieces of some hundred kilobytes at most, or the error that ended it. The next piece is
/// fetched while one is taken.
pub(crate) type Pieces = mpsc::Receiver<Result<Vec<LogLine>, RequestError>>;

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
        let reader: u64 = rand::random();
        let (lines, mut ended) = self.piece(agent, key, reader, Some(options)).await?;
        let (sender, pieces) = mpsc::channel(1);
        let (hub, agent, key) = (self.clone(), agent.clone(), key.clone());
        let fetch = async move {
            let mut piece = Ok(lines);
            loop {
                let is_last = ended || piece.is_err();
                let is_nothing = piece.as_ref().is_ok_and(Vec::is_empty);
                if (!is_nothing && sender.send(piece).await.is_err()) || is_last {
                    return;
                }
                let next = tokio::select! {
                    next = hub.piece(&agent, &key, reader, None) => next,
                    () = sender.closed() => return,
                };
                piece = next.map(|(lines, last)| {
                    ended = last;
                    lines
                });
            }
        };
        self.shared.tasks.spawn(self.shared.stop.clone().run_until_cancelled_owned(fetch));
        Ok(pieces)
    }

    async fn piece(
        &self,
        agent: &AgentName,
        key: &InstanceKey,
        reader: u64,
        begin: Option<LogOptions>,
    ) -> Result<(Vec<LogLine>, bool), RequestError> {
        match self.request(agent, RequestBody::Output { key: key.clone(), reader, begin }).await? {
            ReplyBody::Output { lines, ended } => Ok((lines, ended)),
            _ => Err(RequestError::Unexpected { agent: agent.clone() }),
        }
    }
}
