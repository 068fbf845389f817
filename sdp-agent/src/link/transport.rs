//! Frames to and from the server: over a WebSocket, or over plain HTTP where something in between
//! breaks WebSockets.

mod http;
mod websocket;

use std::{io, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore};
use sdp_core::{
    Problem, Transport,
    problem::chain,
    protocol::{AgentFrame, Frame, Hello, Welcome, WireMessage},
};
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite;
use tokio_util::task::TaskTracker;
use url::Url;

use super::Timing;

/// How often it is looked whether requests in work are done.
const LOOK: Duration = Duration::from_millis(100);

/// Which transport an agent uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportChoice {
    /// A WebSocket where one gets through, plain HTTP meanwhile.
    #[default]
    Auto,
    /// Only a WebSocket.
    WebSocket,
    /// Only plain HTTP.
    Http,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    /// No connection could be made in time.
    #[error("the server did not answer within {0:?}")]
    Slow(Duration),
    /// Nobody listens there.
    #[error("the connection was refused; is sdp-server running there?")]
    Nobody(#[source] io::Error),
    /// The server refuses what was asked, and says why.
    #[error("the server refuses: {0}")]
    Refused(Problem),
    /// The server answered, but not with a WebSocket.
    #[error("the server answered {0} instead of opening a WebSocket; check the address, and proxies on the way")]
    Rejected(u16),
    /// Something answered that is not the server.
    #[error("a request was answered with {0}, and not by SDP's server; check the address, and proxies on the way")]
    Answered(u16),
    /// The machine's CA certificates cannot be used, and `wss://` needs them.
    #[error("no CA certificate was found on this machine; install ca-certificates or set SSL_CERT_FILE")]
    NoRoots,
    /// TLS cannot be set up.
    #[error("TLS could not be set up")]
    Tls(#[source] rustls::Error),
    /// The connection failed.
    #[error("the connection failed")]
    Socket(#[source] Box<tungstenite::Error>),
    /// A request failed.
    #[error("a request failed")]
    Request(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server closed it.
    #[error("the server closed the connection{0}")]
    Closed(String),
    /// Neither way gets through.
    #[error("neither a WebSocket gets through ({websocket}) nor plain HTTP ({http})")]
    Neither {
        /// Why no WebSocket.
        websocket: String,
        /// Why no plain HTTP.
        http: String,
    },
}

impl TransportError {
    /// Whether the same request may get through a moment later.
    fn may_pass(&self) -> bool {
        match self {
            Self::Request(_) | Self::Slow(_) => true,
            Self::Answered(status) => *status >= 500,
            _ => false,
        }
    }
}

/// An open connection.
pub(super) struct Connection {
    pub(super) transport: Transport,
    pub(super) sender: FrameSender,
    pub(super) receiver: FrameReceiver,
}

/// Opens connections to one server.
pub(super) struct Dialler {
    server: Url,
    choice: TransportChoice,
    timing: Timing,
    client: Option<http::HttpClient>,
}

impl Dialler {
    pub(super) fn new(server: Url, choice: TransportChoice, timing: Timing) -> Self {
        Self { server, choice, timing, client: None }
    }

    pub(super) async fn dial(&mut self) -> Result<Connection, TransportError> {
        if self.choice == TransportChoice::Http {
            return self.http().await;
        }
        let error = match self.websocket().await {
            Err(error) if self.choice == TransportChoice::Auto && !matches!(error, TransportError::Nobody(_)) => error,
            dialled => return dialled,
        };
        match self.http().await {
            Ok(connection) => {
                let reason = chain(&error);
                tracing::warn!(server = %self.server, reason, "no WebSocket gets through: using plain HTTP, and trying again later");
                Ok(connection)
            }
            Err(http) => Err(TransportError::Neither { websocket: chain(&error), http: chain(&http) }),
        }
    }

    /// Whether a WebSocket is to be tried again while plain HTTP is used.
    pub(super) fn wants_better_than(&self, transport: Transport) -> bool {
        self.choice == TransportChoice::Auto && transport == Transport::Http
    }

    /// Waits until a WebSocket gets through and no request in work would be torn by changing over.
    pub(super) async fn better(&self, requests: &TaskTracker) -> Connection {
        loop {
            // With jitter, so that agents behind the same middlebox do not try all at once.
            sleep(self.timing.websocket_again.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
            while !requests.is_empty() {
                sleep(LOOK).await;
            }
            match self.websocket().await {
                Ok(connection) => {
                    tracing::info!(server = %self.server, "a WebSocket gets through again");
                    return connection;
                }
                Err(error) => tracing::debug!(error = chain(&error), "still no WebSocket"),
            }
        }
    }

    async fn websocket(&self) -> Result<Connection, TransportError> {
        let limit = self.timing.connect;
        let opened = timeout(limit, websocket::open(&self.server)).await;
        let (sender, receiver) = opened.map_err(|_| TransportError::Slow(limit))??;
        let (sender, receiver) = (FrameSender::WebSocket(sender), FrameReceiver::WebSocket(receiver));
        Ok(Connection { transport: Transport::WebSocket, sender, receiver })
    }

    async fn http(&mut self) -> Result<Connection, TransportError> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(http::client(&self.server)?).clone(),
        };
        let limit = self.timing.connect;
        let opened = timeout(limit, http::open(client, &self.server, self.timing.silence)).await;
        let (sender, receiver) = opened.map_err(|_| TransportError::Slow(limit))??;
        let (sender, receiver) = (FrameSender::Http(sender), FrameReceiver::Http(receiver));
        Ok(Connection { transport: Transport::Http, sender, receiver })
    }
}

/// What the server would say to a hello, without connecting.
pub(crate) async fn check(server: &Url, hello: Hello) -> Result<Welcome, TransportError> {
    let limit = Timing::default().connect;
    let hello = AgentFrame::Hello(Box::new(hello)).encode();
    timeout(limit, http::check(server, hello)).await.unwrap_or(Err(TransportError::Slow(limit)))
}

/// The machine's own CA certificates, read anew for every connection: they may have been renewed.
pub(crate) fn tls() -> Result<ClientConfig, TransportError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TransportError::NoRoots);
    }
    trusting(roots)
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(TransportError::Tls)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

pub(super) enum FrameSender {
    WebSocket(websocket::Sender),
    Http(http::Sender),
}

impl FrameSender {
    /// Takes a frame into the buffer.
    pub(super) async fn feed(&mut self, frame: WireMessage) -> Result<(), TransportError> {
        match self {
            Self::WebSocket(sender) => sender.feed(frame).await,
            Self::Http(sender) => sender.feed(frame).await,
        }
    }

    /// Sends what is in the buffer.
    pub(super) async fn flush(&mut self) -> Result<(), TransportError> {
        match self {
            Self::WebSocket(sender) => sender.flush().await,
            Self::Http(sender) => sender.flush().await,
        }
    }

    /// Shows the server that this side lives. Plain HTTP asks it for frames all the time anyway.
    pub(super) async fn ping(&mut self) -> Result<(), TransportError> {
        match self {
            Self::WebSocket(sender) => sender.ping().await,
            Self::Http(_) => Ok(()),
        }
    }

    /// Ends the connection in good order.
    pub(super) async fn close(&mut self) -> Result<(), TransportError> {
        match self {
            Self::WebSocket(sender) => sender.close().await,
            Self::Http(sender) => sender.close().await,
        }
    }
}

pub(super) enum Incoming {
    Frame(WireMessage),
    /// A ping, a pong, or an answer without frames.
    SignOfLife,
}

pub(super) enum FrameReceiver {
    WebSocket(websocket::Receiver),
    Http(http::Receiver),
}

impl FrameReceiver {
    pub(super) async fn next(&mut self) -> Result<Incoming, TransportError> {
        match self {
            Self::WebSocket(receiver) => receiver.next().await,
            Self::Http(receiver) => receiver.next().await,
        }
    }
}
