//! Frames over plain HTTP requests: one brings what the agent says, another waits for what the server
//! says. The protocol is described in [`sdp_core::protocol`].

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::RootCertStore;
use sdp_core::{
    Problem,
    problem::chain,
    protocol::{Body, MAX_BODY_BYTES, SessionKey, Welcome, WireMessage, unpack},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::{Incoming, TransportError, tls, trusting};

/// The pause before a request that did not get through is repeated.
const PAUSE: Duration = Duration::from_millis(200);

/// Keeps connections to be used again.
pub(super) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

pub(super) fn client(server: &Url) -> Result<HttpClient, TransportError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let tls = match server.scheme() {
        "wss" => tls()?,
        // Never used.
        _ => trusting(RootCertStore::empty())?,
    };
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    let connector = connector.wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector))
}

/// Opens a session. `silence` is how long requests are repeated that do not get through.
pub(super) async fn open(
    client: HttpClient,
    server: &Url,
    silence: Duration,
) -> Result<(Sender, Receiver), TransportError> {
    let mut session = Session { client, base: beside(server, "session"), key: SecretString::default(), silence };
    let (_, answer) = session.exchange(&Method::POST, "", Bytes::new()).await?;
    let opened = serde_json::from_slice::<SessionKey>(&answer);
    session.key = opened.map_err(|_| TransportError::Answered(StatusCode::CREATED.as_u16()))?.key.0;
    let session = Arc::new(session);
    let receiver = Receiver { session: Arc::clone(&session), fetched: 0, messages: VecDeque::new() };
    Ok((Sender { session, body: Body::default(), brought: 0 }, receiver))
}

/// What the server would say to a hello.
pub(super) async fn check(server: &Url, hello: WireMessage) -> Result<Welcome, TransportError> {
    let (base, silence) = (beside(server, "check"), Duration::ZERO);
    let session = Session { client: client(server)?, base, key: SecretString::default(), silence };
    let mut body = Body::default();
    body.add(hello).map_err(|_| TransportError::Closed(": the hello is too large".into()))?;
    let (status, answer) = session.exchange(&Method::POST, "", body.take()).await?;
    serde_json::from_slice(&answer).map_err(|_| TransportError::Answered(status.as_u16()))
}

/// The address of what plain HTTP uses, next to the WebSocket's own: what lets one through lets the
/// other.
fn beside(server: &Url, what: &str) -> String {
    let scheme = if server.scheme() == "wss" { "https" } else { "http" };
    let host = &server[url::Position::BeforeHost..url::Position::AfterPort];
    format!("{scheme}://{host}{}/{what}", server.path().trim_end_matches('/'))
}

struct Session {
    client: HttpClient,
    base: String,
    key: SecretString,
    silence: Duration,
}

impl Session {
    /// Asks until there is an answer, for as long as the server may be silent.
    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), TransportError> {
        let began = Instant::now();
        loop {
            let answer = timeout(self.silence, self.exchange(&method, path, body.clone())).await;
            let error = match answer.unwrap_or_else(|_| Err(TransportError::Slow(self.silence))) {
                Err(error) if error.may_pass() && began.elapsed() + PAUSE < self.silence => error,
                answer => return answer,
            };
            tracing::debug!(error = chain(&error), path, "a request did not get through; repeating it");
            sleep(PAUSE).await;
        }
    }

    /// Asks once, and reads the whole answer.
    async fn exchange(&self, method: &Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), TransportError> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let bearer = format!("Bearer {}", self.key.expose_secret());
        let request = request.header(header::AUTHORIZATION, bearer).body(Full::new(body));
        let request = request.map_err(|error| TransportError::Request(error.into()))?;
        let answer = self.client.request(request).await.map_err(|error| TransportError::Request(error.into()))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(TransportError::Request)?.to_bytes();
        if head.status.is_success() {
            return Ok((head.status, body));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if problem.status < 500 => Err(TransportError::Refused(problem)),
            _ => Err(TransportError::Answered(head.status.as_u16())),
        }
    }
}

pub(crate) struct Sender {
    session: Arc<Session>,
    body: Body,
    /// How many bodies were brought.
    brought: u64,
}

impl Sender {
    pub(super) async fn feed(&mut self, frame: WireMessage) -> Result<(), TransportError> {
        if let Err(frame) = self.body.add(frame) {
            self.flush().await?;
            // Frames fit into an empty body; what does not, the server would not take either.
            return self.body.add(frame).map_err(|_| TransportError::Closed(": a frame is too large".into()));
        }
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> Result<(), TransportError> {
        if self.body.is_empty() {
            return Ok(());
        }
        self.brought += 1;
        let path = format!("/frames?number={}", self.brought);
        self.session.ask(Method::POST, &path, self.body.take()).await.map(drop)
    }

    pub(super) async fn close(&mut self) -> Result<(), TransportError> {
        self.session.ask(Method::POST, "/end", Bytes::new()).await.map(drop)
    }
}

pub(crate) struct Receiver {
    session: Arc<Session>,
    /// How many answers with messages were fetched.
    fetched: u64,
    messages: VecDeque<WireMessage>,
}

impl Receiver {
    pub(super) async fn next(&mut self) -> Result<Incoming, TransportError> {
        if self.messages.is_empty() {
            let path = format!("/frames?after={}", self.fetched);
            let (status, body) = self.session.ask(Method::GET, &path, Bytes::new()).await?;
            let messages = unpack(body).map_err(|error| TransportError::Closed(format!(": {error}")))?;
            self.fetched += u64::from(status == StatusCode::OK);
            self.messages.extend(messages);
        }
        Ok(self.messages.pop_front().map_or(Incoming::SignOfLife, Incoming::Frame))
    }
}
