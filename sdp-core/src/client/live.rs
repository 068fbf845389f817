//! What changes on the platform, as it does.

use std::{collections::VecDeque, fmt};

use futures_util::{Stream, stream};
use serde::Deserialize;

use super::{
    Client, ClientError,
    call::Call,
    socket::{Attempts, Socket},
};
use crate::api::live::{LiveEvent, LiveNotice, LiveQuery};

/// What comes along [`LiveFollow`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// Something changed.
    Event(LiveEvent),
    /// The stream begins with this event, which may be still to come. Told once, before everything else.
    Begins(u64),
    /// Changes from `from` up to `oldest` are kept no more: look at everything anew.
    Gap {
        /// The first that is missing.
        from: u64,
        /// The first that comes.
        oldest: u64,
    },
}

/// The changes, each once and in order, also when the connection breaks off meanwhile. Kinds of changes that this
/// version does not know are passed over.
pub struct LiveFollow {
    client: Client,
    /// The event that comes next; none until the server said so.
    next: Option<u64>,
    /// Whether it was told where the stream begins.
    has_begun: bool,
    socket: Option<Box<Socket>>,
    ready: VecDeque<Live>,
    attempts: Attempts,
}

impl Client {
    /// Follows what changes: from an event on, or from now on.
    pub fn events(&self, from: Option<u64>) -> LiveFollow {
        LiveFollow {
            client: self.clone(),
            next: from,
            has_begun: false,
            socket: None,
            ready: VecDeque::new(),
            attempts: Attempts::default(),
        }
    }
}

/// What every line tells.
#[derive(Deserialize)]
struct Line {
    seq: Option<u64>,
}

impl LiveFollow {
    /// What comes next, once there is something. May be given up while it waits, and called again after an error:
    /// nothing is lost by either.
    ///
    /// # Errors
    /// When the server refuses, no WebSocket gets through, or it was tried in vain for
    /// [`reconnect_for`](super::ClientOptions::reconnect_for) to go on.
    pub async fn next(&mut self) -> Result<Live, ClientError> {
        loop {
            if let Some(live) = self.ready.pop_front() {
                return Ok(live);
            }
            if let Err(error) = self.fill().await {
                self.socket = None;
                self.attempts.failed(error, self.client.options()).await?;
            }
        }
    }

    /// The number of the event that comes next: with it another can go on here. None before the first was told.
    pub fn position(&self) -> Option<u64> {
        let ready = self.ready.iter().find_map(|live| match live {
            Live::Event(event) => Some(event.seq),
            Live::Begins(_) | Live::Gap { .. } => None,
        });
        ready.or(self.next)
    }

    /// The same as a stream, which ends with the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Live, ClientError>> + Send {
        stream::try_unfold(self, |mut follow| async { Ok(Some((follow.next().await?, follow))) })
    }

    async fn fill(&mut self) -> Result<(), ClientError> {
        let Some(socket) = &mut self.socket else {
            let call = Call::get("/ws/events").query(&LiveQuery { from: self.next });
            self.socket = Some(Box::new(self.client.socket(&call).await?));
            self.attempts.connected();
            return Ok(());
        };
        let text = socket.text().await?;
        self.attempts.progressed();
        text.lines().try_for_each(|line| self.take(line))
    }

    fn take(&mut self, line: &str) -> Result<(), ClientError> {
        let unreadable = |source| ClientError::Unreadable {
            server: self.client.address().to_string(),
            what: "GET /ws/events".into(),
            source,
        };
        if let Some(seq) = serde_json::from_str::<Line>(line).map_err(unreadable)?.seq {
            if self.next.is_some_and(|next| seq < next) {
                return Ok(());
            }
            self.next = Some(seq + 1);
            match serde_json::from_str(line) {
                Ok(event) => self.ready.push_back(Live::Event(event)),
                Err(error) => tracing::debug!(%error, seq, "a change of a kind that is not known is passed over"),
            }
            return Ok(());
        }
        match serde_json::from_str(line).map_err(unreadable)? {
            LiveNotice::Position { next } => {
                self.next = Some(next);
                if !std::mem::replace(&mut self.has_begun, true) {
                    self.ready.push_back(Live::Begins(next));
                }
            }
            LiveNotice::Gap { from, oldest } => {
                self.next = Some(oldest);
                self.ready.push_back(Live::Gap { from, oldest });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for LiveFollow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveFollow").field("next", &self.next).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientOptions;

    fn follow(from: Option<u64>) -> LiveFollow {
        Client::new("127.0.0.1:1".parse().unwrap(), ClientOptions::default()).unwrap().events(from)
    }

    fn started(seq: u64) -> String {
        format!(r#"{{"seq":{seq},"at":"2026-01-02T03:04:05Z","type":"started","version":"1"}}"#)
    }

    fn seqs(follow: &mut LiveFollow) -> Vec<u64> {
        let told = follow.ready.drain(..);
        let seq = |live| match live {
            Live::Event(event) => event.seq,
            Live::Begins(next) => 1000 + next,
            Live::Gap { oldest, .. } => 2000 + oldest,
        };
        told.map(seq).collect()
    }

    #[tokio::test]
    async fn what_was_told_is_not_told_again_and_the_beginning_once() {
        let mut follow = follow(None);
        for line in [r#"{"type":"position","next":5}"#, &started(5), &started(6), r#"{"type":"position","next":7}"#] {
            follow.take(line).unwrap();
        }
        follow.take(&started(6)).unwrap();
        follow.take(&started(9)).unwrap();
        assert_eq!(follow.position(), Some(5), "of what was not taken yet");
        assert_eq!(seqs(&mut follow), [1005, 5, 6, 9]);
        assert_eq!(follow.position(), Some(10));
        follow.take(r#"{"type":"gap","from":10,"oldest":40}"#).unwrap();
        assert_eq!((seqs(&mut follow), follow.position()), (vec![2040], Some(40)));
    }

    #[tokio::test]
    async fn a_change_of_a_newer_version_is_passed_over() {
        let mut follow = follow(Some(3));
        follow.take(r#"{"seq":3,"at":"2026-01-02T03:04:05Z","type":"weather","sky":"blue"}"#).unwrap();
        follow.take(&started(4)).unwrap();
        assert_eq!(seqs(&mut follow), [4]);
        assert!(matches!(follow.take("nonsense"), Err(ClientError::Unreadable { .. })));
    }
}
