//! One agent's connection, without its socket: frames in, frames out.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use jiff::Timestamp;
use sdp_core::{
    AgentName, ErrorCode, Inventory, Problem, Transport,
    api::live::AgentHappened,
    problem::chain,
    protocol::{
        AgentFrame, CodecError, Frame, Hello, MAX_FRAME_BYTES, OLDEST_VERSION, ServerFrame, VERSION, Welcome,
        WireMessage, unpack,
    },
};
use secrecy::ExposeSecret;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Frames, Hub, Link, ingest::IngestError, intake::Intake};
use crate::auth;

/// How many frames may wait for the connection before whoever makes them waits too.
const OUTGOING: usize = 64;

/// The longest that a write may be stuck.
pub(super) const WRITE: Duration = Duration::from_secs(15);

/// Every this many pings the database learns that the agent lives, and the token is checked again.
const PINGS_PER_CHECK: u32 = 2;

/// What comes in.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A message that should be a frame.
    Frame(WireMessage),
    /// A ping or pong.
    SignOfLife,
}

/// What goes out.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A frame, boxed as in its channel: each wait for a write has room for it.
    Frame(Box<ServerFrame>),
    /// A ping.
    Ping,
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// The other side, the network, or a newer connection.
    Gone(String),
    /// The agent is told why, and that it should not simply go on.
    Refused(Box<Problem>),
}

impl End {
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Gone(reason) => reason,
            Self::Refused(problem) => &problem.detail,
        }
    }
}

pub(super) fn refused(code: ErrorCode, sentence: impl Into<String>) -> End {
    End::Refused(Box::new(Problem::new(code, sentence)))
}

fn unreadable(error: &CodecError) -> End {
    let code = if matches!(error, CodecError::TooLarge(_)) { ErrorCode::TooLarge } else { ErrorCode::BadRequest };
    refused(code, chain(error))
}

/// Runs one connection from its hello to its end.
pub(super) async fn run<I, O, E>(hub: &Hub, transport: Transport, incoming: &mut I, outgoing: &mut O)
where
    I: Stream<Item = Result<Incoming, E>> + Unpin,
    O: Sink<Outgoing, Error = E> + Unpin,
    E: std::error::Error + 'static,
{
    let end = match welcomed(hub, incoming).await {
        Some(Ok(hello)) => talk(hub, transport, hello, incoming, outgoing).await,
        Some(Err(end)) => end,
        None => return,
    };
    match end {
        End::Gone(reason) => tracing::info!(reason, "an agent's connection ended"),
        End::Refused(problem) => {
            tracing::warn!(reason = problem.detail, "an agent's connection was refused");
            let frame = outgoing.send(Outgoing::Frame(Box::new(ServerFrame::Refused(*problem))));
            // It may be gone already.
            let _ = timeout(WRITE, frame).await;
        }
    }
    let _ = timeout(WRITE, outgoing.close()).await;
}

/// The hello of an agent that may connect, in time; none when the server stops.
async fn welcomed<I, E>(hub: &Hub, incoming: &mut I) -> Option<Result<Box<Hello>, End>>
where
    I: Stream<Item = Result<Incoming, E>> + Unpin,
    E: std::error::Error + 'static,
{
    // Boxed, as all that happens once or seldom: a connection takes memory for it only meanwhile.
    let greeted = timeout(hub.shared.timing.hello, Box::pin(greet(hub, incoming)));
    let greeted = hub.shared.stop.run_until_cancelled(greeted).await?;
    Some(greeted.unwrap_or_else(|_| Err(refused(ErrorCode::Timeout, "no hello came in time"))))
}

async fn greet<I, E>(hub: &Hub, incoming: &mut I) -> Result<Box<Hello>, End>
where
    I: Stream<Item = Result<Incoming, E>> + Unpin,
    E: std::error::Error + 'static,
{
    let message = loop {
        if let Incoming::Frame(message) = next(incoming).await? {
            break message;
        }
    };
    examine(hub, &message).await
}

/// The hello of an agent that may connect.
async fn examine(hub: &Hub, message: &WireMessage) -> Result<Box<Hello>, End> {
    let hello = match AgentFrame::decode(message) {
        Ok(AgentFrame::Hello(hello)) => hello,
        Ok(_) => return Err(refused(ErrorCode::BadRequest, "the first frame must be a hello")),
        Err(error) => return Err(unreadable(&error)),
    };
    if hello.protocol < OLDEST_VERSION || hello.oldest_protocol > VERSION || hello.oldest_protocol > hello.protocol {
        let (who, other) = if hello.protocol < OLDEST_VERSION { ("agent", "server") } else { ("server", "agent") };
        let sentence = format!(
            "the agent speaks protocol {} to {}, the server {OLDEST_VERSION} to {VERSION}: update the {who}, which is older than the {other}",
            hello.oldest_protocol, hello.protocol
        );
        return Err(refused(ErrorCode::Unsupported, sentence));
    }
    admit(hub, &hello).await?;
    Ok(hello)
}

impl Hub {
    /// What an agent with this hello would be told, without connecting it.
    pub(crate) async fn check_hello(&self, body: Bytes) -> Result<Welcome, Problem> {
        let messages = unpack(body).map_err(|error| Problem::new(ErrorCode::BadRequest, chain(&error)))?;
        let sentence = "the body must hold a hello";
        let message = messages.first().ok_or_else(|| Problem::new(ErrorCode::BadRequest, sentence))?;
        match examine(self, message).await {
            Ok(hello) => Ok(welcome(hello.protocol, BTreeMap::new())),
            Err(End::Refused(problem)) => Err(*problem),
            Err(End::Gone(reason)) => Err(Problem::new(ErrorCode::Internal, reason)),
        }
    }
}

fn welcome(newest: u16, acked: BTreeMap<String, u64>) -> Welcome {
    Welcome { protocol: newest.min(VERSION), server: env!("CARGO_PKG_VERSION").into(), acked }
}

async fn admit(hub: &Hub, hello: &Hello) -> Result<[u8; 32], End> {
    let given = auth::hash(hello.token.0.expose_secret());
    let kept = hub
        .shared
        .store
        .agent_token_hash(&hello.agent)
        .await
        .map_err(|error| End::Refused(Box::new((&error).into())))?;
    match kept {
        Some(kept) if auth::same(&kept, &given) => Ok(kept),
        // One sentence for both, so that names cannot be guessed.
        _ => {
            let sentence = format!(
                "no agent {0} has that token, or it was revoked: enrol it with `sdp-server agent add {0}`",
                hello.agent
            );
            Err(refused(ErrorCode::NotAllowed, sentence))
        }
    }
}

async fn next<I, E>(incoming: &mut I) -> Result<Incoming, End>
where
    I: Stream<Item = Result<Incoming, E>> + Unpin,
    E: std::error::Error + 'static,
{
    match incoming.next().await {
        Some(Ok(incoming)) => Ok(incoming),
        Some(Err(error)) => {
            let sentence =
                format!("a message could not be read (a frame may have {MAX_FRAME_BYTES} bytes): {}", chain(&error));
            Err(refused(ErrorCode::BadRequest, sentence))
        }
        None => Err(End::Gone("closed by the agent".into())),
    }
}

async fn talk<I, O, E>(hub: &Hub, transport: Transport, hello: Box<Hello>, incoming: &mut I, outgoing: &mut O) -> End
where
    I: Stream<Item = Result<Incoming, E>> + Unpin,
    O: Sink<Outgoing, Error = E> + Unpin,
    E: std::error::Error + 'static,
{
    let welcome = match Box::pin(meet(hub, &hello)).await {
        Ok(welcome) => Box::new(ServerFrame::Welcome(welcome)),
        Err(error) => return refused(ErrorCode::EventsUnavailable, chain(&error)),
    };
    if let Err(_) | Ok(Err(_)) = timeout(WRITE, outgoing.send(Outgoing::Frame(welcome))).await {
        return End::Gone("it did not take its welcome".into());
    }
    let token_hash = auth::hash(hello.token.0.expose_secret());
    let (frames, queue) = mpsc::channel(OUTGOING);
    let Hello { agent, inventory, .. } = *hello;
    let link = hub.register(&agent, transport, inventory, frames.clone());
    tracing::info!(%agent, %transport, "agent connected");
    hub.tell_of(&agent, AgentHappened::Connected);
    let mut intake = Intake::new(hub, &agent, &frames);
    let end = tokio::select! {
        end = read(hub, &agent, &link, incoming, &mut intake, &frames) => end,
        end = write(hub, &agent, token_hash, outgoing, queue) => end,
        () = link.close.cancelled() => End::Gone("replaced by a newer connection, or the server stops".into()),
    };
    if hub.unregister(&agent, &link) {
        hub.tell_of(&agent, AgentHappened::Disconnected);
    }
    // What has come is kept to the last, and told: given up between the database and who listens, a change would be
    // known to the one for ever and never to the other.
    Box::pin(intake.finish()).await;
    if let Err(error) = Box::pin(hub.shared.store.agent_seen(&agent, link.heard(), None)).await {
        tracing::warn!(%agent, error = chain(&error), "when the agent was last seen could not be kept");
    }
    tracing::info!(%agent, "agent disconnected");
    end
}

/// Finds out how far the server has what an agent holds, and keeps what the agent is.
async fn meet(hub: &Hub, hello: &Hello) -> Result<Welcome, IngestError> {
    let store = &hub.shared.store;
    let active = store.active_deployments(Some(&hello.agent)).await?;
    let acked = hub.reconcile(&hello.agent, &hello.held, &active).await?;
    store.agent_seen(&hello.agent, Timestamp::now(), Some(&hello.inventory)).await?;
    Ok(welcome(hello.protocol, acked))
}

async fn read<I, E>(
    hub: &Hub,
    agent: &AgentName,
    link: &Link,
    incoming: &mut I,
    intake: &mut Intake<'_>,
    frames: &Frames,
) -> End
where
    I: Stream<Item = Result<Incoming, E>> + Unpin,
    E: std::error::Error + 'static,
{
    loop {
        let came = match next(incoming).now_or_never() {
            Some(came) => came,
            None => wait(hub, agent, incoming, intake).await,
        };
        let taken = came.and_then(|came| take(agent, link, intake, came));
        let done = match taken {
            Ok(Taken::Nothing) => Ok(()),
            Ok(Taken::Group) => intake.flush().await,
            Ok(Taken::Rare(rare)) => Box::pin(serve(hub, agent, link, *rare, frames)).await,
            Err(end) => Err(end),
        };
        if let Err(end) = done {
            return end;
        }
    }
}

/// Hands over what has come, as no more is at hand, and waits for more.
async fn wait<I, E>(hub: &Hub, agent: &AgentName, incoming: &mut I, intake: &mut Intake<'_>) -> Result<Incoming, End>
where
    I: Stream<Item = Result<Incoming, E>> + Unpin,
    E: std::error::Error + 'static,
{
    intake.flush().await?;
    let silence = hub.shared.timing.silence;
    tokio::select! {
        came = timeout(silence, next(incoming)) => {
            came.unwrap_or_else(|_| Err(End::Gone(format!("agent {agent} was silent for {silence:?}"))))
        }
        end = intake.failed() => Err(end),
    }
}

/// What is left to do with what came.
enum Taken {
    Nothing,
    /// Hand over the events that have come.
    Group,
    /// Something that takes its time.
    Rare(Box<Rare>),
}

enum Rare {
    Answer(ServerFrame),
    Inventory(Box<Inventory>),
}

fn take(agent: &AgentName, link: &Link, intake: &mut Intake<'_>, came: Incoming) -> Result<Taken, End> {
    link.hear();
    let Incoming::Frame(message) = came else { return Ok(Taken::Nothing) };
    match AgentFrame::decode(&message).map_err(|error| unreadable(&error))? {
        AgentFrame::Reply(reply) => {
            let id = reply.id;
            if !link.pending.answer(reply) {
                tracing::debug!(%agent, id, "a reply that nobody waits for any more");
            }
            Ok(Taken::Nothing)
        }
        AgentFrame::Events(batch) => {
            // Here, so that it is done while what came before is being made durable.
            let batch = batch.checked().map_err(|error| unreadable(&error))?;
            Ok(if intake.push(batch) { Taken::Group } else { Taken::Nothing })
        }
        AgentFrame::Inventory(inventory) => Ok(Taken::Rare(Box::new(Rare::Inventory(inventory)))),
        AgentFrame::Unsupported { frame } => {
            tracing::warn!(%agent, frame, "the agent does not know a frame of this server's; one of the two is too old");
            Ok(Taken::Nothing)
        }
        AgentFrame::Hello(_) => Err(refused(ErrorCode::BadRequest, "a second hello on the same connection")),
        _ => {
            let frame = AgentFrame::unknown_type(&message);
            Ok(Taken::Rare(Box::new(Rare::Answer(ServerFrame::Unsupported { frame }))))
        }
    }
}

async fn serve(hub: &Hub, agent: &AgentName, link: &Link, rare: Rare, frames: &Frames) -> Result<(), End> {
    match rare {
        Rare::Answer(answer) => match timeout(WRITE, frames.send(Box::new(answer))).await {
            Ok(_) => Ok(()),
            Err(_) => Err(End::Gone(format!("agent {agent} does not read"))),
        },
        Rare::Inventory(inventory) => {
            if let Err(error) = hub.shared.store.agent_seen(agent, Timestamp::now(), Some(&inventory)).await {
                tracing::warn!(%agent, error = chain(&error), "the agent's inventory could not be kept");
            }
            hub.set_inventory(agent, link.epoch, *inventory);
            Ok(())
        }
    }
}

async fn write<O, E>(
    hub: &Hub,
    agent: &AgentName,
    token_hash: [u8; 32],
    outgoing: &mut O,
    mut queue: mpsc::Receiver<Box<ServerFrame>>,
) -> End
where
    O: Sink<Outgoing, Error = E> + Unpin,
    E: std::error::Error + 'static,
{
    let mut pings = interval(hub.shared.timing.ping);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0u32;
    loop {
        let written = tokio::select! {
            frame = queue.recv() => {
                let Some(frame) = frame else { return End::Gone("nobody has anything to say".into()) };
                timeout(WRITE, cork(outgoing, frame, &mut queue)).await
            }
            _ = pings.tick() => {
                count = count.wrapping_add(1);
                if count.is_multiple_of(PINGS_PER_CHECK) && !Box::pin(still_enrolled(hub, agent, token_hash)).await {
                    return refused(ErrorCode::NotAllowed, "the agent's token was revoked");
                }
                timeout(WRITE, outgoing.send(Outgoing::Ping)).await
            }
        };
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return End::Gone(chain(&error)),
            Err(_) => return End::Gone(format!("agent {agent} does not read")),
        }
    }
}

/// Writes a frame and what else waits, then flushes once.
async fn cork<O>(
    outgoing: &mut O,
    first: Box<ServerFrame>,
    queue: &mut mpsc::Receiver<Box<ServerFrame>>,
) -> Result<(), O::Error>
where
    O: Sink<Outgoing> + Unpin,
{
    outgoing.feed(Outgoing::Frame(first)).await?;
    while let Ok(frame) = queue.try_recv() {
        outgoing.feed(Outgoing::Frame(frame)).await?;
    }
    outgoing.flush().await
}

async fn still_enrolled(hub: &Hub, agent: &AgentName, token_hash: [u8; 32]) -> bool {
    let heard = hub.links().get(agent).map(Link::heard);
    let kept = async {
        if let Some(heard) = heard {
            hub.shared.store.agent_seen(agent, heard, None).await?;
        }
        hub.shared.store.agent_token_hash(agent).await
    };
    match kept.await {
        Ok(kept) => kept.is_some_and(|kept| auth::same(&kept, &token_hash)),
        Err(error) => {
            tracing::warn!(%agent, error = chain(&error), "whether the agent is still enrolled cannot be told");
            true
        }
    }
}
