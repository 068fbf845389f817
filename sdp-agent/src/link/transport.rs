//! Frames over a WebSocket.

use std::{sync::Arc, time::Duration};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use rustls::{ClientConfig, RootCertStore};
use sdp_core::protocol::{MAX_FRAME_BYTES, WireMessage};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};
use url::Url;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    /// No connection could be made in time.
    #[error("the server did not answer within {0:?}")]
    Slow(Duration),
    /// The server answered, but not with a WebSocket.
    #[error("the server answered {0} instead of opening a WebSocket; check the address, and proxies on the way")]
    Rejected(u16),
    /// The machine's CA certificates cannot be used, and `wss://` needs them.
    #[error("no CA certificate was found on this machine; install ca-certificates or set SSL_CERT_FILE")]
    NoRoots,
    /// TLS cannot be set up.
    #[error("TLS could not be set up")]
    Tls(#[source] rustls::Error),
    /// The connection failed.
    #[error("the connection failed")]
    Socket(#[source] Box<tungstenite::Error>),
    /// The server closed it.
    #[error("the server closed the connection{0}")]
    Closed(String),
}

impl From<tungstenite::Error> for TransportError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(response) => Self::Rejected(response.status().as_u16()),
            error => Self::Socket(Box::new(error)),
        }
    }
}

/// Opens connections to one server.
pub(super) struct Dialler {
    server: Url,
    timeout: Duration,
}

impl Dialler {
    pub(super) fn new(server: Url, timeout: Duration) -> Self {
        Self { server, timeout }
    }

    pub(super) async fn dial(&self) -> Result<(FrameSender, FrameReceiver), TransportError> {
        let connector = match self.server.scheme() {
            "wss" => Connector::Rustls(Arc::new(tls()?)),
            _ => Connector::Plain,
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME_BYTES))
            .max_frame_size(Some(MAX_FRAME_BYTES))
            .read_buffer_size(16 * 1024);
        let dial = connect_async_tls_with_config(self.server.as_str(), Some(config), true, Some(connector));
        let dialled = tokio::time::timeout(self.timeout, dial).await;
        let (socket, _) = dialled.map_err(|_| TransportError::Slow(self.timeout))??;
        let (sink, stream) = socket.split();
        Ok((FrameSender(sink), FrameReceiver(stream)))
    }
}

/// The machine's own CA certificates, read anew for every connection: they may have been renewed.
pub(crate) fn tls() -> Result<ClientConfig, TransportError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TransportError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(TransportError::Tls)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

pub(super) struct FrameSender(SplitSink<Socket, Message>);

impl FrameSender {
    /// Takes a frame into the buffer.
    pub(super) async fn feed(&mut self, frame: WireMessage) -> Result<(), TransportError> {
        let message = match frame {
            WireMessage::Text(text) => Message::text(text),
            WireMessage::Binary(bytes) => Message::binary(bytes),
        };
        Ok(self.0.feed(message).await?)
    }

    pub(super) async fn flush(&mut self) -> Result<(), TransportError> {
        Ok(self.0.flush().await?)
    }

    pub(super) async fn ping(&mut self) -> Result<(), TransportError> {
        Ok(self.0.send(Message::Ping(bytes::Bytes::new())).await?)
    }

    pub(super) async fn close(&mut self) -> Result<(), TransportError> {
        Ok(self.0.close().await?)
    }
}

pub(super) enum Incoming {
    Frame(WireMessage),
    /// A ping or a pong.
    SignOfLife,
}

pub(super) struct FrameReceiver(SplitStream<Socket>);

impl FrameReceiver {
    pub(super) async fn next(&mut self) -> Result<Incoming, TransportError> {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => Ok(Incoming::Frame(WireMessage::Text(text.as_str().to_owned()))),
            Some(Ok(Message::Binary(bytes))) => Ok(Incoming::Frame(WireMessage::Binary(bytes))),
            Some(Ok(Message::Close(close))) => {
                let reason = close.map(|close| format!(": {} {}", close.code, close.reason)).unwrap_or_default();
                Err(TransportError::Closed(reason))
            }
            Some(Ok(_)) => Ok(Incoming::SignOfLife),
            Some(Err(error)) => Err(error.into()),
            None => Err(TransportError::Closed(String::new())),
        }
    }
}
