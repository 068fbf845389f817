//! The connection to the control plane: dialled from here, kept up, and dialled again.
//!
//! Deployments go on without it. Their events wait in the [`Outbox`], and after a
//! reconnect go on after the last one that the server says it has.

mod pump;
mod session;
mod transport;

use std::{sync::Arc, time::Duration};

use sdp_core::{AgentName, Problem, Transport, problem::chain};
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

pub use self::transport::TransportChoice;
pub(crate) use self::transport::{TransportError, check, tls};
use self::{
    session::{End, Session},
    transport::Dialler,
};
use crate::{inventory::Inventories, outbox::Outbox, requests::Requests, work::Work};

/// How often, how long, how patiently.
#[derive(Debug, Clone)]
pub struct Timing {
    /// How often this side pings. Default 5 s.
    pub ping: Duration,
    /// After how long without a sign of life the connection counts as dead. Default 15 s.
    pub silence: Duration,
    /// How long dialling and the hello may take. Default 10 s.
    pub connect: Duration,
    /// The first pause before dialling again; it doubles, with jitter. Default 500 ms.
    pub first_pause: Duration,
    /// The longest pause, and the one after a refusal. Default 30 s.
    pub longest_pause: Duration,
    /// How often a WebSocket is tried again while plain HTTP stands in for it. Default 60 s.
    pub websocket_again: Duration,
    /// How long a stopping agent waits for its last events to be acknowledged. Default 3 s.
    pub farewell: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(5),
            silence: Duration::from_secs(15),
            connect: Duration::from_secs(10),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            websocket_again: Duration::from_secs(60),
            farewell: Duration::from_secs(3),
        }
    }
}

/// How the connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// Dialling.
    Connecting,
    /// The server accepted the hello.
    Connected {
        /// The server's version.
        server: String,
        /// What carries the frames.
        transport: Transport,
    },
    /// The server refused the hello. It is asked again, slowly.
    Refused(Problem),
    /// There is no connection; it is dialled again.
    Away {
        /// Why.
        reason: String,
    },
}

/// What the link connects.
#[derive(Debug)]
pub(crate) struct LinkParts {
    pub(crate) name: AgentName,
    pub(crate) server: Url,
    pub(crate) transport: TransportChoice,
    pub(crate) token: SecretString,
    pub(crate) timing: Timing,
    pub(crate) inventories: Inventories,
    pub(crate) outbox: Outbox,
    pub(crate) work: Work,
    pub(crate) requests: Requests,
}

/// The link, until `stop`.
pub(crate) async fn run(parts: Arc<LinkParts>, state: watch::Sender<LinkState>, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    let mut dialler = Dialler::new(parts.server.clone(), parts.transport, parts.timing.clone());
    let mut backoff = Backoff::new(&parts.timing);
    let mut better = None;
    loop {
        state.send_replace(LinkState::Connecting);
        let dialled = match better.take() {
            Some(connection) => Ok(connection),
            None => tokio::select! {
                dialled = dialler.dial() => dialled,
                () = stop.cancelled() => break,
            },
        };
        let session = Session { parts: &parts, state: &state, stop: &stop, tasks: &tasks };
        let end = match dialled {
            Ok(connection) => {
                let wants_better = dialler.wants_better_than(connection.transport);
                tokio::select! {
                    end = session.run(connection) => end,
                    found = dialler.better(&tasks), if wants_better => End::Better(Box::new(found)),
                }
            }
            Err(error) => End::Lost(chain(&error)),
        };
        let was_connected = matches!(*state.borrow(), LinkState::Connected { .. });
        if was_connected {
            backoff.reset();
        }
        let pause = match end {
            End::Better(connection) => {
                better = Some(*connection);
                continue;
            }
            End::Stopped => break,
            End::Refused(problem) => {
                tracing::error!(server = %parts.server, reason = %problem, "the server refuses this agent; asking again, slowly");
                state.send_replace(LinkState::Refused(problem));
                parts.timing.longest_pause
            }
            End::Lost(reason) => {
                let pause = backoff.next(rand::random());
                tracing::warn!(server = %parts.server, reason, ?pause, "no connection to the server; dialling again");
                state.send_replace(LinkState::Away { reason });
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => break,
        }
    }
    tasks.close();
    if tokio::time::timeout(parts.timing.farewell, tasks.wait()).await.is_err() {
        tracing::warn!(requests = tasks.len(), "stopped before every request was done");
    }
    state.send_replace(LinkState::Away { reason: "the agent has stopped".into() });
}

/// Growing pauses with jitter, so that a server that comes back is not met by every agent at once.
#[derive(Debug)]
struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    fn new(timing: &Timing) -> Self {
        Self { first: timing.first_pause, longest: timing.longest_pause, next: timing.first_pause }
    }

    fn reset(&mut self) {
        self.next = self.first;
    }

    /// The next pause, between half of its step and the whole; `random` is in 0..1.
    fn next(&mut self, random: f64) -> Duration {
        let step = self.next.min(self.longest);
        self.next = (step * 2).min(self.longest);
        step.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_start_over_after_a_connection() {
        let mut backoff = Backoff::new(&Timing::default());
        let pauses: Vec<_> = (0..9).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_millis(250));
    }
}
