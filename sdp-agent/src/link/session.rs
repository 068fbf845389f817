//! One connection, from its hello to its end.

use std::collections::BTreeMap;

use sdp_core::{
    DeploymentId, ErrorCode, Inventory, Problem,
    problem::chain,
    protocol::{
        AgentFrame, CodecError, Frame, Hello, OLDEST_VERSION, Outcome, Reply, Request, RequestBody, ServerFrame,
        TokenFrame, VERSION, Welcome, WireMessage,
    },
};
use serde::Deserialize;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    LinkParts, LinkState, pump,
    transport::{Connection, FrameReceiver, FrameSender, Incoming, TransportError},
};

/// How many frames may wait for the connection before whoever makes them waits too.
const OUTGOING: usize = 16;

/// Why a session ended.
pub(super) enum End {
    /// The agent stops.
    Stopped,
    /// The server does not want this agent.
    Refused(Problem),
    /// The connection is gone.
    Lost(String),
    /// Another one takes its place.
    Better(Box<Connection>),
}

impl From<TransportError> for End {
    fn from(error: TransportError) -> Self {
        Self::Lost(chain(&error))
    }
}

pub(super) struct Session<'a> {
    pub(super) parts: &'a LinkParts,
    pub(super) state: &'a watch::Sender<LinkState>,
    pub(super) stop: &'a CancellationToken,
    /// The requests being carried out. They outlive the connection: what has begun is not torn.
    pub(super) tasks: &'a TaskTracker,
}

impl Session<'_> {
    /// Serves the connection to its end.
    pub(super) async fn run(&self, connection: Connection) -> End {
        tokio::select! {
            end = self.serve(connection) => end.err().unwrap_or_else(|| End::Lost("it came to an end".into())),
            // The writer ends it in good order, if the server still reads.
            () = async {
                self.stop.cancelled().await;
                tokio::time::sleep(self.parts.timing.farewell).await;
            } => End::Stopped,
        }
    }

    async fn serve(&self, connection: Connection) -> Result<(), End> {
        let Connection { transport, mut sender, mut receiver } = connection;
        let mut gateway_changes = self.parts.work.gateway_changes();
        let inventory = self.parts.inventories.now().await;
        let limit = self.parts.timing.connect;
        let welcome = tokio::select! {
            welcome = timeout(limit, self.greet(&mut sender, &mut receiver, inventory.clone())) => welcome,
            () = self.stop.cancelled() => return Err(End::Stopped),
        };
        let welcome =
            welcome.map_err(|_| End::Lost(format!("the server did not answer the hello within {limit:?}")))??;
        let acked = self.resume(&welcome);
        tracing::info!(server = %self.parts.server, version = welcome.server, %transport, "connected");
        self.state.send_replace(LinkState::Connected { server: welcome.server, transport });

        let (frames, outgoing) = mpsc::channel(OUTGOING);
        tokio::select! {
            end = self.read(receiver, frames.clone()) => end,
            end = self.write(sender, outgoing) => end,
            () = pump::pump(&self.parts.outbox, acked, &frames) => Ok(()),
            () = self.tell_inventory(inventory, &mut gateway_changes, &frames) => Ok(()),
        }
    }

    async fn greet(
        &self,
        sender: &mut FrameSender,
        receiver: &mut FrameReceiver,
        inventory: Inventory,
    ) -> Result<Welcome, End> {
        let hello = Hello {
            protocol: VERSION,
            oldest_protocol: OLDEST_VERSION,
            agent: self.parts.name.clone(),
            token: TokenFrame(self.parts.token.clone()),
            inventory,
            held: self.parts.outbox.unacked(),
        };
        sender.feed(AgentFrame::Hello(Box::new(hello)).encode()).await?;
        sender.flush().await?;
        loop {
            let Incoming::Frame(message) = receiver.next().await? else { continue };
            return match ServerFrame::decode(&message) {
                Ok(ServerFrame::Welcome(welcome)) if (OLDEST_VERSION..=VERSION).contains(&welcome.protocol) => {
                    Ok(welcome)
                }
                Ok(ServerFrame::Welcome(welcome)) => {
                    let sentence = format!(
                        "the server wants protocol {} and this agent speaks {VERSION}: update the older",
                        welcome.protocol
                    );
                    Err(End::Refused(Problem::new(ErrorCode::Unsupported, sentence)))
                }
                Ok(ServerFrame::Refused(problem)) => Err(End::Refused(problem)),
                Ok(_) | Err(_) => Err(End::Lost("the server answered the hello with something else".into())),
            };
        }
    }

    /// Takes over how far the server is.
    fn resume(&self, welcome: &Welcome) -> BTreeMap<DeploymentId, u64> {
        let parsed = |(deployment, seq): (&String, &u64)| Some((deployment.parse::<DeploymentId>().ok()?, *seq));
        let acked: BTreeMap<_, _> = welcome.acked.iter().filter_map(parsed).collect();
        for (deployment, seq) in &acked {
            self.parts.outbox.ack(*deployment, *seq);
        }
        acked
    }

    async fn read(&self, mut receiver: FrameReceiver, frames: mpsc::Sender<AgentFrame>) -> Result<(), End> {
        let silence = self.parts.timing.silence;
        loop {
            let incoming = timeout(silence, receiver.next()).await;
            match incoming.map_err(|_| End::Lost(format!("no sign of life from the server for {silence:?}")))?? {
                Incoming::SignOfLife => {}
                Incoming::Frame(message) => self.take(&message, &frames).await?,
            }
        }
    }

    async fn take(&self, message: &WireMessage, frames: &mpsc::Sender<AgentFrame>) -> Result<(), End> {
        let answer = match ServerFrame::decode(message) {
            Ok(ServerFrame::Request(request)) => {
                self.carry_out(request, frames.clone());
                return Ok(());
            }
            Ok(ServerFrame::Ack { deployment, seq }) => {
                self.parts.outbox.ack(deployment, seq);
                return Ok(());
            }
            Ok(ServerFrame::Refused(problem)) => return Err(End::Refused(problem)),
            Ok(ServerFrame::Unsupported { frame }) => {
                tracing::warn!(frame, "the server does not know a frame of this agent's; one of the two is too old");
                return Ok(());
            }
            Ok(ServerFrame::Welcome(_)) => {
                tracing::warn!("the server sent a second welcome");
                return Ok(());
            }
            Ok(_) => {
                let frame = ServerFrame::unknown_type(message);
                tracing::warn!(frame, "a frame that this agent does not know; one of the two is too old");
                AgentFrame::Unsupported { frame }
            }
            Err(error) => {
                let error = fault(message, &error);
                tracing::warn!(error, "a frame of the server's cannot be read");
                unreadable(message, &error)
            }
        };
        // The reader never waits for the writer: a full queue would stop the acknowledgements.
        if frames.try_send(answer).is_err() {
            tracing::warn!("an answer to a frame that makes no sense was dropped");
        }
        Ok(())
    }

    fn carry_out(&self, request: Request, frames: mpsc::Sender<AgentFrame>) {
        let requests = self.parts.requests.clone();
        let waits = matches!(request.body, RequestBody::Output { .. });
        let work = async move {
            let id = request.id;
            let reply = requests.answer(request).await;
            if frames.send(AgentFrame::Reply(reply)).await.is_err() {
                tracing::debug!(id, "the connection was gone before a request was answered");
            }
        };
        // Who follows a program that prints nothing holds up neither a better connection nor the end.
        if waits {
            drop(tokio::spawn(work));
        } else {
            self.tasks.spawn(work);
        }
    }

    async fn write(&self, mut sender: FrameSender, mut outgoing: mpsc::Receiver<AgentFrame>) -> Result<(), End> {
        let mut pings = interval(self.parts.timing.ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                frame = outgoing.recv() => {
                    let Some(frame) = frame else { return Ok(()) };
                    sender.feed(frame.encode()).await?;
                    while let Ok(frame) = outgoing.try_recv() {
                        sender.feed(frame.encode()).await?;
                    }
                    sender.flush().await?;
                }
                _ = pings.tick() => sender.ping().await?,
                () = self.stop.cancelled() => {
                    sender.close().await.ok();
                    return Err(End::Stopped);
                }
            }
        }
    }

    async fn tell_inventory(
        &self,
        mut told: Inventory,
        changes: &mut watch::Receiver<()>,
        frames: &mpsc::Sender<AgentFrame>,
    ) {
        while changes.changed().await.is_ok() {
            let now = self.parts.inventories.now().await;
            if now != told {
                told = now.clone();
                if frames.send(AgentFrame::Inventory(Box::new(now))).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What is wrong with a message, without quoting one that carries credentials.
fn fault(message: &WireMessage, error: &CodecError) -> String {
    match message {
        WireMessage::Text(text) if text.contains("password") => "its content is not valid, and not shown".into(),
        _ => chain(error),
    }
}

/// The answer to a message that is no frame: where it was meant as a request, a reply.
fn unreadable(message: &WireMessage, error: &str) -> AgentFrame {
    #[derive(Deserialize)]
    struct Numbered {
        id: u64,
    }
    let kind = ServerFrame::unknown_type(message);
    match message {
        WireMessage::Text(text) if kind == "request" => match serde_json::from_str::<Numbered>(text) {
            Ok(Numbered { id }) => {
                let problem =
                    Problem::new(ErrorCode::BadRequest, format!("the agent could not read the request: {error}"));
                AgentFrame::Reply(Reply { id, outcome: Outcome::Problem(problem) })
            }
            Err(_) => AgentFrame::Unsupported { frame: kind },
        },
        _ => AgentFrame::Unsupported { frame: if kind.is_empty() { "unreadable".into() } else { kind } },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_frame_quotes_no_password() {
        let text = r#"{"type":"request","id":1,"deadline_ms":1,
            "body":{"op":"verify","credentials":{"username":"ada","password":12345678}}}"#;
        let message = WireMessage::Text(text.into());
        let error = ServerFrame::decode(&message).unwrap_err();
        assert!(!fault(&message, &error).contains("12345678"));
    }
}
