//! Frames that make no sense: to a server in the middle of a deployment, and to an agent.

use std::{fmt, fs, ops::ControlFlow, path::Path, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rand::{Rng, RngExt as _, SeedableRng, rngs::StdRng};
use sdp_core::{
    Deployment, DeploymentId, DeploymentState, Event, EventKind, Inventory, Stage,
    api::CreateSandbox,
    protocol::{
        AgentFrame, EventBatch, Frame, Hello, MAX_FRAME_BYTES, OLDEST_VERSION, Outcome, Reply, ReplyBody, Request,
        RequestBody, ServerFrame, TokenFrame, VERSION, Welcome, WireMessage,
    },
};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, accept_async, connect_async,
    tungstenite::{Error, Message},
};

use super::{Report, rig::ABSENT, rig::Rig};
use crate::{Failed, daemon::Daemon, judge::judge, wait::eventually};

/// How long either side has to answer.
const LIMIT: Duration = Duration::from_secs(30);
/// One frame of this many is too large: they cost 4 MiB each.
const OVERSIZED: u32 = 400;

/// What became of the frames.
#[derive(Debug, Default)]
pub(super) struct Count {
    to_server: usize,
    server_ended: usize,
    to_agent: usize,
    agent_ended: usize,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to_server, server_ended, to_agent, agent_ended } = self;
        write!(
            f,
            "{to_server} that make no sense to the server, which ended the connection over {server_ended} of them, and \
             {to_agent} to an agent, which did over {agent_ended}"
        )
    }
}

/// Sends them, as many to each, while a deployment is under way.
pub(super) async fn pelt(rig: &Rig, program: &Path, times: usize, report: &mut Report) -> Result<(), Failed> {
    let seed = rand::random();
    let mut complaints = Vec::new();
    let api = rig.sign_in().await?;
    let create = CreateSandbox::new("pelted".parse()?);
    api.post::<_, serde_json::Value>("/api/sandboxes", &create).await?;
    let asked: Deployment = rig.ask(&api, "pelted").await?;
    report.frames.to_server = times;
    report.frames.server_ended = to_server(rig, StdRng::seed_from_u64(seed), times).await?;
    let deployment = rig.ended(&api, asked.id).await?;
    let events = rig.events(asked.id)?;
    judge(&deployment, &events, &mut |what| complaints.push(what));
    if deployment.state != DeploymentState::Running {
        complaints.push(format!("the deployment beside them ended {}", deployment.state));
    }
    report.running += 1;
    report.events += events.len();
    rig.delete("pelted").await?;

    report.frames.to_agent = times;
    let (ended, panics) = to_agent(program, StdRng::seed_from_u64(seed), times).await?;
    report.frames.agent_ended = ended;
    complaints.extend(panics);
    report.violations.extend(complaints.into_iter().map(|what| format!("frames of seed {seed}: {what}")));
    Ok(())
}

/// Valid text frames of both sides, from which others are made.
fn samples() -> Vec<String> {
    let id = DeploymentId::new();
    let text = |message| match message {
        WireMessage::Text(text) => text,
        WireMessage::Binary(_) => String::new(),
    };
    let request = |body| ServerFrame::Request(Request { id: 7, deadline_ms: 5000, body }).encode();
    [
        AgentFrame::Hello(Box::new(hello("a-token-of-nobody"))).encode(),
        AgentFrame::Reply(Reply { id: 7, outcome: Outcome::Ok(ReplyBody::Done) }).encode(),
        AgentFrame::Inventory(Box::new(inventory())).encode(),
        AgentFrame::Unsupported { frame: "x".into() }.encode(),
        ServerFrame::Ack { deployment: id, seq: 9 }.encode(),
        ServerFrame::Unsupported { frame: "x".into() }.encode(),
        request(RequestBody::Instances),
        request(RequestBody::Cancel { deployment: id }),
    ]
    .map(text)
    .to_vec()
}

/// A frame that makes no sense, or not now.
fn nonsense(random: &mut StdRng, samples: &[String]) -> WireMessage {
    let mut noise = |most: usize| {
        let mut bytes = vec![0; random.random_range(0..most)];
        random.fill_bytes(&mut bytes);
        bytes
    };
    let sample = noise(samples.len() + 1).len() % samples.len();
    let sample = &samples[sample];
    let at = noise(sample.len()).len();
    match noise(OVERSIZED as usize).len() {
        0 => WireMessage::Text("x".repeat(MAX_FRAME_BYTES + 1)),
        n if n % 6 == 1 => WireMessage::Binary(noise(300).into()),
        n if n % 6 == 2 => WireMessage::Text(String::from_utf8_lossy(&noise(300)).into_owned()),
        n if n % 6 == 3 => WireMessage::Text(sample[..at].to_owned()),
        n if n % 6 == 4 => {
            let mut bytes = sample.clone().into_bytes();
            bytes[at] = noise(256).len() as u8;
            WireMessage::Text(String::from_utf8_lossy(&bytes).into_owned())
        }
        // Events that leave out those before them.
        n if n % 6 == 5 => out_of_order(2 + n as u64),
        _ => WireMessage::Text(sample.clone()),
    }
}

fn out_of_order(first: u64) -> WireMessage {
    let at = jiff::Timestamp::UNIX_EPOCH;
    let event = Event { seq: first, at, kind: EventKind::note(Stage::Build, "out of order") };
    let line = serde_json::to_vec(&event).unwrap_or_default();
    let lines = Bytes::from([&line[..], b"\n"].concat());
    match EventBatch::new(DeploymentId::new(), first, lines) {
        Ok(batch) => AgentFrame::Events(batch).encode(),
        Err(_) => WireMessage::Binary(Bytes::new()),
    }
}

fn inventory() -> Inventory {
    let (version, advertise, deployer) = ("0".into(), "127.0.0.1".into(), "process".into());
    Inventory {
        version,
        advertise,
        deployer,
        repos: Vec::new(),
        port_range: None,
        gateway: None,
        exact_commits: false,
        serves_beside: false,
        exec: None,
    }
}

fn hello(token: &str) -> Hello {
    Hello {
        protocol: VERSION,
        oldest_protocol: OLDEST_VERSION,
        agent: ABSENT.parse().expect("a valid name"),
        token: TokenFrame(token.to_owned().into()),
        inventory: inventory(),
        held: Vec::new(),
    }
}

fn message(frame: WireMessage) -> Message {
    match frame {
        WireMessage::Text(text) => Message::text(text),
        WireMessage::Binary(bytes) => Message::binary(bytes),
    }
}

/// As an agent that is enrolled and has lost its mind. Answers how often the server hung up.
async fn to_server(rig: &Rig, mut random: StdRng, times: usize) -> Result<usize, Failed> {
    let (samples, mut ended) = (samples(), 0);
    let mut socket = None;
    for _ in 0..times {
        let open = match socket.take() {
            Some(open) => open,
            None => greeted(rig, random.random_bool(0.9)).await?,
        };
        match pelted(open, message(nonsense(&mut random, &samples))).await? {
            ControlFlow::Continue(open) => socket = Some(open),
            ControlFlow::Break(()) => ended += 1,
        }
    }
    Ok(ended)
}

/// A connection, with or without its hello said.
async fn greeted(rig: &Rig, says_hello: bool) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, Failed> {
    let url = format!("ws://{}/ws/agent", rig.address);
    let (mut socket, _) = connect_async(url).await?;
    if says_hello {
        socket.send(message(AgentFrame::Hello(Box::new(hello(&rig.token))).encode())).await?;
        match tokio::time::timeout(LIMIT, socket.next()).await {
            Ok(Some(Ok(Message::Text(text)))) if text.contains("welcome") => {}
            answer => return Err(Failed(format!("a good hello was answered with {answer:?}"))),
        }
    }
    Ok(socket)
}

/// Sends a frame and then a ping, and sees whether the other side is still there.
async fn pelted<S>(
    mut socket: WebSocketStream<S>,
    frame: Message,
) -> Result<ControlFlow<(), WebSocketStream<S>>, Failed>
where
    WebSocketStream<S>: SinkExt<Message, Error = Error> + StreamExt<Item = Result<Message, Error>> + Unpin,
{
    if socket.send(frame).await.is_err() || socket.send(Message::Ping(Bytes::from_static(b"there?"))).await.is_err() {
        return Ok(ControlFlow::Break(()));
    }
    loop {
        match tokio::time::timeout(LIMIT, socket.next()).await {
            Ok(Some(Ok(Message::Pong(told)))) if &told[..] == b"there?" => return Ok(ControlFlow::Continue(socket)),
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return Ok(ControlFlow::Break(())),
            Ok(Some(Ok(_))) => {}
            Err(_) => return Err(Failed(format!("no answer within {LIMIT:?}"))),
        }
    }
}

/// As a server that has lost its mind, to an agent of its own. Answers how often the agent hung up, and
/// what the agent did that it must not.
async fn to_agent(program: &Path, mut random: StdRng, times: usize) -> Result<(usize, Vec<String>), Failed> {
    let dir = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (config, token) = (dir.path().join("agent.toml"), dir.path().join("token"));
    fs::write(&token, "a-token")?;
    let text = format!(
        "name = \"{ABSENT}\"\nserver = \"ws://{}/ws/agent\"\ntransport = \"websocket\"\ntoken_file = {token:?}\n\
         data_dir = {:?}\nadvertise = \"127.0.0.1\"\n[deployer]\nkind = \"process\"\n",
        listener.local_addr()?,
        dir.path().join("agent"),
    );
    fs::write(&config, text)?;
    let agent = Daemon::start(program, "agent", &config, None)?;
    let (samples, mut ended, mut socket) = (samples(), 0, None);
    for _ in 0..times {
        let open = match socket.take() {
            Some(open) => open,
            None => welcomed(&listener).await?,
        };
        match pelted(open, message(nonsense(&mut random, &samples))).await? {
            ControlFlow::Continue(open) => socket = Some(open),
            ControlFlow::Break(()) => ended += 1,
        }
    }
    let mut open = match socket {
        Some(open) => open,
        None => welcomed(&listener).await?,
    };
    // It still does what makes sense.
    let request = ServerFrame::Request(Request { id: u64::MAX, deadline_ms: 5000, body: RequestBody::Instances });
    open.send(message(request.encode())).await?;
    let wanted = format!("{{\"type\":\"reply\",\"id\":{},\"ok\"", u64::MAX);
    let open = tokio::sync::Mutex::new(open);
    let answered = async || match open.lock().await.next().await {
        Some(Ok(Message::Text(text))) if text.starts_with(&wanted) => Some(()),
        _ => None,
    };
    eventually("an answer to a request that makes sense", answered).await?;
    let log = agent.log()?;
    let panics = log.lines().filter(|line| line.contains("panicked"));
    Ok((ended, panics.map(|line| format!("the agent panicked: {line}")).collect()))
}

async fn welcomed(listener: &TcpListener) -> Result<WebSocketStream<TcpStream>, Failed> {
    let welcoming = async {
        let (stream, _) = listener.accept().await?;
        let mut socket = accept_async(stream).await?;
        while !matches!(socket.next().await.transpose()?, Some(Message::Text(_)) | None) {}
        let welcome = Welcome { protocol: VERSION, server: "0".into(), acked: Default::default() };
        socket.send(message(ServerFrame::Welcome(welcome).encode())).await?;
        Ok(socket)
    };
    let welcomed = tokio::time::timeout(LIMIT, welcoming).await;
    welcomed.unwrap_or_else(|_| Err(Failed(format!("the agent did not come back within {LIMIT:?}"))))
}
