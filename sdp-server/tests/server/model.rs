//! The server against a model of itself, in random sequences of what an agent and a network can do:
//! every log holds exactly what the model says, and what was acknowledged stays.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use proptest::prelude::*;
use sdp_core::DeploymentId;
use sdp_core::protocol::{AgentFrame, EventBatch, ServerFrame};
use secrecy::SecretString;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::plain_http::Session;
use crate::support::{Agent, Plane, batch, held, hello, patiently};

/// Deployments of one agent, whose events alternate.
const DEPLOYMENTS: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    /// A new connection; an older one, if any, is left to its own.
    Connect { http: bool },
    /// The next events, after some that the server has already; the acknowledgement is waited for.
    Send { which: usize, again: u64, new: u64 },
    /// The next events, and the connection is gone before an acknowledgement can come.
    SendAndVanish { which: usize, new: u64 },
    /// Events that leave some out.
    Skip { which: usize, left_out: u64 },
    /// The connection is gone.
    Vanish,
    /// The server is stopped and started.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = 0..DEPLOYMENTS;
    let step = prop_oneof![
        3 => any::<bool>().prop_map(|http| Step::Connect { http }),
        6 => (which.clone(), 0u64..5, 0u64..5).prop_map(|(which, again, new)| Step::Send { which, again, new }),
        2 => (which.clone(), 1u64..5).prop_map(|(which, new)| Step::SendAndVanish { which, new }),
        1 => (which, 1u64..5).prop_map(|(which, left_out)| Step::Skip { which, left_out }),
        1 => Just(Step::Vanish),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What one log must hold: at least what was acknowledged, at most what was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Known {
    least: u64,
    most: u64,
}

enum Connection {
    WebSocket(Box<Agent>),
    Http { session: Session, brought: u64, fetched: u64 },
}

impl Connection {
    /// Sends events.
    async fn send(&mut self, batch: EventBatch) {
        match self {
            Self::WebSocket(agent) => agent.send(AgentFrame::Events(batch)).await,
            Self::Http { session, brought, .. } => {
                *brought += 1;
                assert_eq!(session.bring(*brought, &[AgentFrame::Events(batch)]).await, 204);
            }
        }
    }

    /// The next frame; none when the server has ended the connection.
    async fn frame(&mut self) -> Option<ServerFrame> {
        match self {
            Self::WebSocket(agent) => {
                patiently(async {
                    loop {
                        match agent.0.next().await {
                            Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(text.as_str()).unwrap()),
                            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                            Some(Ok(_)) => {}
                        }
                    }
                })
                .await
            }
            Self::Http { session, fetched, .. } => {
                let frames = session.fetch(*fetched).await.ok()?;
                *fetched += 1;
                assert_eq!(frames.len(), 1, "one batch, one answer: {frames:?}");
                frames.into_iter().next()
            }
        }
    }
}

struct World {
    plane: Plane,
    token: SecretString,
    ids: [DeploymentId; DEPLOYMENTS],
    known: [Known; DEPLOYMENTS],
    connection: Option<Connection>,
}

fn events(id: DeploymentId, first: u64, count: u64) -> EventBatch {
    // Each line tells its number, so that none can stand for another.
    let line = |seq: u64| json!({"type": "log", "stage": "build", "stream": "stdout", "line": format!("line {seq}")});
    batch(id, first, &(first..first + count).map(line).collect::<Vec<_>>())
}

impl World {
    async fn new() -> Self {
        let plane = Plane::new().await;
        let token = plane.enrol("micro").await;
        let ids = std::array::from_fn(|_| DeploymentId::new());
        Self { plane, token, ids, known: Default::default(), connection: None }
    }

    async fn step(mut self, step: Step) -> Self {
        match step {
            Step::Connect { http } => self.connect(http).await,
            Step::Send { which, again, new } => {
                self.ensure().await;
                let (id, has) = (self.ids[which], self.known[which].least);
                let first = has + 1 - again.min(has);
                if has + new >= first {
                    let connection = self.connection.as_mut().unwrap();
                    connection.send(events(id, first, has + new + 1 - first)).await;
                    let answer = connection.frame().await;
                    let Some(ServerFrame::Ack { deployment, seq }) = answer else { panic!("no ack: {answer:?}") };
                    // More than was sent just now when an earlier connection's events came in late.
                    let most = self.known[which].most.max(has + new);
                    assert!(deployment == id && (has + new..=most).contains(&seq), "{seq} of at most {most}");
                    self.known[which] = Known { least: seq, most };
                }
            }
            Step::SendAndVanish { which, new } => {
                self.ensure().await;
                let has = self.known[which].least;
                let mut connection = self.connection.take().unwrap();
                connection.send(events(self.ids[which], has + 1, new)).await;
                self.known[which].most = has + new;
            }
            Step::Skip { which, left_out } => {
                self.ensure().await;
                let mut connection = self.connection.take().unwrap();
                // After all that an earlier connection may still bring.
                let first = self.known[which].most + 1 + left_out;
                connection.send(events(self.ids[which], first, 1)).await;
                let answer = connection.frame().await;
                assert!(!matches!(answer, Some(ServerFrame::Ack { .. })), "a gap was acknowledged: {answer:?}");
            }
            Step::Vanish => self.connection = None,
            Step::Restart => {
                self.connection = None;
                self.plane = self.plane.restarted().await;
            }
        }
        self
    }

    /// A connection over which all is known for certain.
    async fn ensure(&mut self) {
        if self.connection.is_none() {
            self.connect(false).await;
        }
    }

    async fn connect(&mut self, http: bool) {
        let mut hello = hello("micro", &self.token);
        let sent = self.ids.iter().zip(&self.known).filter(|(_, known)| known.most > 0);
        hello.held = sent.map(|(id, known)| held(*id, known.most)).collect();
        let acked;
        (self.connection, acked) = if http {
            let (session, acked) = Session::welcomed(&self.plane, hello).await;
            (Some(Connection::Http { session, brought: 1, fetched: 1 }), acked)
        } else {
            let (agent, acked) = Agent::welcomed(self.plane.address(), hello).await;
            (Some(Connection::WebSocket(Box::new(agent))), acked)
        };
        self.narrow(&acked);
    }

    /// Takes over what the server says it has, if that can be.
    fn narrow(&mut self, acked: &BTreeMap<String, u64>) {
        for (id, known) in self.ids.iter().zip(&mut self.known).filter(|(_, known)| known.most > 0) {
            let has = acked[&id.to_string()];
            assert!((known.least..=known.most).contains(&has), "{has} is not in {known:?}");
            // What an older connection still writes may come on top.
            known.least = has;
        }
    }

    /// The logs themselves.
    async fn end(mut self) {
        self.connection = None;
        let dir = self.plane.dir.path().join("logs");
        self.plane.server.shutdown().await;
        for (id, known) in self.ids.iter().zip(&self.known) {
            let text = std::fs::read_to_string(dir.join(format!("{id}.log"))).unwrap_or_default();
            let count = text.lines().count() as u64;
            assert!((known.least..=known.most).contains(&count), "{count} is not in {known:?}");
            let whole = if count == 0 { Default::default() } else { events(*id, 1, count).lines().clone() };
            assert_eq!(text.as_bytes(), &whole[..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_agent_and_network_do_the_logs_hold_what_the_model_says(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world = world.step(step).await;
            }
            world.end().await;
        });
    }
}
