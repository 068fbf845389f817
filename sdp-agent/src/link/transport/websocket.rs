//! Frames over a WebSocket.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use sdp_core::protocol::{MAX_FRAME_BYTES, WireMessage};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};
use url::Url;

use super::{Incoming, TransportError, tls};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a WebSocket, and sees a ping answered: some proxies let the upgrade pass and then nothing
/// more.
pub(super) async fn open(server: &Url) -> Result<(Sender, Receiver), TransportError> {
    let connector = match server.scheme() {
        "wss" => Connector::Rustls(Arc::new(tls()?)),
        _ => Connector::Plain,
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_FRAME_BYTES))
        .max_frame_size(Some(MAX_FRAME_BYTES))
        .read_buffer_size(16 * 1024);
    let (socket, _) = connect_async_tls_with_config(server.as_str(), Some(config), true, Some(connector)).await?;
    let (sink, stream) = socket.split();
    let (mut sender, mut receiver) = (Sender(sink), Receiver(stream));
    sender.ping().await?;
    // Before the hello the server has nothing else to say.
    while !matches!(receiver.next().await?, Incoming::SignOfLife) {}
    Ok((sender, receiver))
}

pub(crate) struct Sender(SplitSink<Socket, Message>);

impl Sender {
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
        Ok(self.0.send(Message::Ping(Bytes::new())).await?)
    }

    pub(super) async fn close(&mut self) -> Result<(), TransportError> {
        Ok(self.0.close().await?)
    }
}

pub(crate) struct Receiver(SplitStream<Socket>);

impl Receiver {
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

impl From<tungstenite::Error> for TransportError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(response) => Self::Rejected(response.status().as_u16()),
            tungstenite::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                Self::Nobody(error)
            }
            error => Self::Socket(Box::new(error)),
        }
    }
}
