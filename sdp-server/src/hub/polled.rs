//! An agent's connection over plain HTTP requests, for where WebSockets do not get through: the same
//! frames, in the bodies of the requests that bring and fetch them.
//!
//! Both directions are numbered, so that a request whose answer was lost is repeated without harm.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use sdp_core::{
    ErrorCode, Problem, Transport,
    problem::chain,
    protocol::{Body, Frame, WireMessage, unpack},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::{Mutex, mpsc},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, PollSendError, PollSender};

use super::{
    Hub,
    session::{self, Incoming, Outgoing},
};
use crate::auth;

/// How many bodies may wait for the session before requests wait.
const BODIES: usize = 2;

/// How many frames may wait for the agent to fetch them before whoever makes them waits.
const FRAMES: usize = 64;

/// The sessions, by the hash of their key.
pub(super) type Sessions = HashMap<[u8; 32], Arc<PolledSession>>;

/// One session.
#[derive(Debug)]
pub(crate) struct PolledSession {
    /// How many bodies came.
    came: Mutex<u64>,
    bodies: mpsc::Sender<Vec<Incoming>>,
    answers: Mutex<Answers>,
    /// The agent has ended it, or knows that it has ended.
    over: CancellationToken,
}

#[derive(Debug)]
struct Answers {
    /// How many with frames were given.
    given: u64,
    /// The last of them, until it is known to have arrived.
    last: Bytes,
    /// A frame that the last one had no room for.
    next: Option<WireMessage>,
    frames: mpsc::Receiver<Outgoing>,
}

impl Hub {
    /// Opens a session and gives its key. What it brings first must be a hello, as on a WebSocket.
    pub(crate) fn open_session(&self) -> SecretString {
        let key = auth::new_token("sdph_");
        let hash = auth::hash(key.expose_secret());
        let (bodies, mut received) = mpsc::channel(BODIES);
        let (sender, frames) = mpsc::channel(FRAMES);
        let answers = Answers { given: 0, last: Bytes::new(), next: None, frames };
        let over = CancellationToken::new();
        let session = PolledSession { came: Mutex::new(0), bodies, answers: Mutex::new(answers), over: over.clone() };
        self.polled().insert(hash, Arc::new(session));

        let received = stream::poll_fn(move |context| received.poll_recv(context)).flat_map(stream::iter);
        let incoming = received.map(Ok::<_, PollSendError<Outgoing>>).take_until(over.clone().cancelled_owned());
        let hub = self.clone();
        self.shared.tasks.spawn(async move {
            // Not longer: to what comes afterwards the answer is that the session has ended.
            {
                let (mut incoming, mut outgoing) = (Box::pin(incoming), PollSender::new(sender));
                session::run(&hub, Transport::Http, &mut incoming, &mut outgoing).await;
            }
            // What was said last, a refusal for example, is still there to be fetched.
            tokio::select! {
                _ = timeout(hub.shared.timing.silence, over.cancelled()) => {}
                () = hub.shared.stop.cancelled() => {}
            }
            hub.polled().remove(&hash);
        });
        key
    }

    /// The session with this key.
    pub(crate) fn session(&self, key: &str) -> Result<Arc<PolledSession>, Problem> {
        self.polled().get(&auth::hash(key)).cloned().ok_or_else(ended)
    }

    fn polled(&self) -> MutexGuard<'_, Sessions> {
        self.shared.polled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PolledSession {
    /// Takes the agent's body number `number`; one that came before changes nothing.
    pub(crate) async fn take(&self, number: u64, body: Bytes) -> Result<(), Problem> {
        let mut came = self.came.lock().await;
        if number > *came + 1 {
            return Err(out_of_order(number, *came));
        }
        if number == *came + 1 {
            let messages = incoming(body)?;
            // Nothing is torn when the request goes away while it waits.
            let room = self.bodies.reserve().await.map_err(|_| ended())?;
            *came = number;
            room.send(messages);
        }
        Ok(())
    }

    /// Gives the frames that wait, or waits for one; none when there is only a ping. With `after` one
    /// less than the number of answers given, the last one again.
    pub(crate) async fn give(&self, after: u64) -> Result<Option<Bytes>, Problem> {
        // Where there is no room, something else is a sign of life.
        let _ = self.bodies.try_send(vec![Incoming::SignOfLife]);
        let mut answers = self.answers.lock().await;
        if after + 1 == answers.given {
            return Ok(Some(answers.last.clone()));
        }
        if after != answers.given {
            return Err(out_of_order(after, answers.given));
        }
        let mut body = Body::default();
        let message = match answers.next.take() {
            Some(message) => Some(message),
            None => answers.wait().await?,
        };
        if let Some(message) = message {
            // An empty body has room for any frame.
            let _ = body.add(message);
        } else {
            return Ok(None);
        }
        while let Ok(more) = answers.frames.try_recv() {
            let Outgoing::Frame(frame) = more else { continue };
            if let Err(message) = body.add(frame.encode()) {
                answers.next = Some(message);
                break;
            }
        }
        answers.given += 1;
        answers.last = body.take();
        Ok(Some(answers.last.clone()))
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        self.over.cancel();
    }
}

impl Answers {
    async fn wait(&mut self) -> Result<Option<WireMessage>, Problem> {
        match self.frames.recv().await {
            Some(Outgoing::Frame(frame)) => Ok(Some(frame.encode())),
            Some(Outgoing::Ping) => Ok(None),
            None => Err(ended()),
        }
    }
}

fn incoming(body: Bytes) -> Result<Vec<Incoming>, Problem> {
    let messages = unpack(body).map_err(|error| Problem::new(ErrorCode::BadRequest, chain(&error)))?;
    Ok(messages.into_iter().map(Incoming::Frame).collect())
}

fn ended() -> Problem {
    Problem::new(ErrorCode::NotFound, "the session has ended, or never was; open a new one")
}

fn out_of_order(number: u64, known: u64) -> Problem {
    Problem::new(ErrorCode::Conflict, format!("number {number} does not follow {known}; open a new session"))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use sdp_core::protocol::{MAX_BODY_BYTES, ServerFrame};

    use super::*;

    #[tokio::test]
    async fn a_frame_that_one_answer_has_no_room_for_is_the_first_of_the_next() {
        let (sender, frames) = mpsc::channel(FRAMES);
        let (bodies, _received) = mpsc::channel(BODIES);
        let answers = Answers { given: 0, last: Bytes::new(), next: None, frames };
        let session =
            PolledSession { came: Mutex::new(0), bodies, answers: Mutex::new(answers), over: CancellationToken::new() };
        let large = |byte: &str| ServerFrame::Unsupported { frame: byte.repeat(MAX_BODY_BYTES * 2 / 3) };
        let told = [large("a"), large("b")];
        for frame in &told {
            sender.send(Outgoing::Frame(Box::new(frame.clone()))).await.unwrap();
        }
        for (after, frame) in (0..).zip(told) {
            let body = session.give(after).now_or_never().expect("it waits for nothing").unwrap().unwrap();
            assert_eq!(unpack(body).unwrap(), [frame.encode()]);
        }
    }
}
