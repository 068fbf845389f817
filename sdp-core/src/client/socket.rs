//! WebSockets of what is followed, and how long it is tried to have them back.

use std::{collections::VecDeque, io::ErrorKind, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{
        self, Message, Utf8Bytes,
        client::IntoClientRequest,
        handshake::client::Request,
        http::{HeaderValue, header},
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{Client, ClientError, ClientOptions, call::Call, exchange::bearer, retry::jittered};
use crate::problem::{ErrorCode, Problem};

/// The largest message: the server sends the lines of a log in chunks of less.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// The longest pause between attempts to go on.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// So many messages prove that a connection passes them on: one or two may come with the answer to the upgrade.
const ANSWERS: usize = 16;

/// An open connection that tells lines.
pub(super) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// What came before anybody asked for it.
    early: VecDeque<Message>,
    silence: Duration,
    server: String,
    what: String,
}

impl Socket {
    /// The next message with lines. May be given up while it waits, and loses nothing then.
    pub(super) async fn text(&mut self) -> Result<Utf8Bytes, ClientError> {
        loop {
            match self.message(self.silence).await? {
                Message::Text(text) => return Ok(text),
                Message::Close(frame) => return Err(self.closed(frame)),
                _ => {}
            }
        }
    }

    /// Sees that something comes back: some proxies let the upgrade pass and then nothing more.
    async fn prove(mut self, limit: Duration) -> Result<Self, ClientError> {
        if let Err(error) = self.stream.send(Message::Ping(Bytes::new())).await {
            return Err(self.broken(error));
        }
        let mut early = VecDeque::new();
        // A pong may stand behind all of a long log, of which so much is an answer as well.
        while early.len() < ANSWERS && !matches!(early.back(), Some(Message::Pong(_) | Message::Close(_))) {
            early.push_back(self.message(limit).await?);
        }
        self.early = early;
        Ok(self)
    }

    async fn message(&mut self, limit: Duration) -> Result<Message, ClientError> {
        if let Some(early) = self.early.pop_front() {
            return Ok(early);
        }
        match timeout(limit, self.stream.next()).await {
            Ok(Some(Ok(message))) => Ok(message),
            Ok(Some(Err(error))) => Err(self.broken(error)),
            Ok(None) => Err(self.broken("it was closed")),
            Err(_) => Err(self.broken(format!("nothing came for {limit:?}"))),
        }
    }

    fn closed(&self, frame: Option<CloseFrame>) -> ClientError {
        match frame {
            Some(CloseFrame { code: CloseCode::Policy, reason }) => {
                ClientError::Refused(Problem::new(ErrorCode::NotSignedIn, reason.as_str()))
            }
            Some(CloseFrame { reason, .. }) if !reason.is_empty() => self.broken(reason.as_str()),
            _ => self.broken("the server closed it"),
        }
    }

    /// A message that says what it should not.
    pub(super) fn unreadable(&self, source: serde_json::Error) -> ClientError {
        ClientError::Unreadable { server: self.server.clone(), what: self.what.clone(), source }
    }

    fn broken(&self, source: impl Into<super::error::BoxError>) -> ClientError {
        ClientError::Broken { server: self.server.clone(), what: self.what.clone(), source: source.into() }
    }
}

impl Client {
    /// Opens a WebSocket.
    pub(super) async fn socket(&self, call: &Call) -> Result<Socket, ClientError> {
        let (server, what) = (self.address().to_string(), call.to_string());
        let limit = self.options().connect_timeout;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES))
            .read_buffer_size(16 * 1024);
        let connector = match self.address().is_tls() {
            true => Connector::Rustls(Arc::clone(&self.shared.tls)),
            false => Connector::Plain,
        };
        let request = self.upgrade(call)?;
        let dialled = connect_async_tls_with_config(request, Some(config), true, Some(connector));
        let Ok(dialled) = timeout(limit, dialled).await else {
            return Err(ClientError::TimedOut { server, what, limit });
        };
        match dialled {
            Ok((stream, _)) => {
                let silence = self.options().silence;
                Socket { stream, early: VecDeque::new(), silence, server, what }.prove(limit).await
            }
            Err(tungstenite::Error::Http(response)) => Err(self.not_upgraded(call, &response).await),
            // Whoever ends a connection was reached.
            Err(tungstenite::Error::Io(error))
                if !matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
                ) =>
            {
                Err(self.unreachable(error.into()))
            }
            Err(error @ tungstenite::Error::Tls(_)) => Err(ClientError::Tls { server, source: error.into() }),
            Err(source) => Err(ClientError::Broken { server, what, source: source.into() }),
        }
    }

    fn upgrade(&self, call: &Call) -> Result<Request, ClientError> {
        let url = self.address().websocket(&call.path);
        let broken = |source: tungstenite::Error| ClientError::Broken {
            server: self.address().to_string(),
            what: call.to_string(),
            source: source.into(),
        };
        let mut request = url.into_client_request().map_err(broken)?;
        if let Ok(program) = HeaderValue::from_str(&self.options().user_agent) {
            request.headers_mut().insert(header::USER_AGENT, program);
        }
        if let Some(token) = self.token() {
            request.headers_mut().insert(header::AUTHORIZATION, bearer(token)?);
        }
        Ok(request)
    }

    /// Why an upgrade was answered otherwise: as the server says, or, where that did not come along, as it says to the
    /// same request without an upgrade.
    async fn not_upgraded(&self, call: &Call, response: &tungstenite::handshake::client::Response) -> ClientError {
        let status = response.status();
        let body = response.body().as_deref().unwrap_or_default();
        let told = self.refusal(&call.to_string(), status, response.headers(), body);
        if told.problem().is_some() {
            return told;
        }
        match self.attempt(call).await {
            Err(error) if error.problem().is_some_and(|problem| problem.code != ErrorCode::BadRequest) => error,
            // The server is there and would have let it in.
            Err(ClientError::Refused(_)) => {
                ClientError::NoWebSocket { server: self.address().to_string(), status: status.as_u16() }
            }
            _ => told,
        }
    }
}

/// How long it has been tried to go on.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// Whether it ever got through.
    got_through: bool,
    /// When it last got through.
    connected_at: Option<Instant>,
    /// When it first failed since something came.
    failing_since: Option<Instant>,
    failures: u32,
}

impl Attempts {
    /// It got through. That alone is no progress: it may be closed at once, every time.
    pub(super) fn connected(&mut self) {
        self.got_through = true;
        self.connected_at = Some(Instant::now());
    }

    /// Something came.
    pub(super) fn progressed(&mut self) {
        *self = Self { got_through: true, ..Self::default() };
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The same error, when there is to be no other attempt.
    pub(super) async fn failed(&mut self, error: ClientError, options: &ClientOptions) -> Result<(), ClientError> {
        // A connection that held, though nothing was told, had nothing wrong with it.
        if self.connected_at.take().is_some_and(|at| at.elapsed() > LONGEST_PAUSE) {
            self.progressed();
        }
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        let is_over = match self.got_through {
            true => since.elapsed() >= options.reconnect_for,
            false => self.failures >= options.retries,
        };
        if is_over || !error.is_transient() {
            *self = Self { got_through: self.got_through, ..Self::default() };
            return Err(error);
        }
        let pause = options.first_pause.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures += 1;
        tracing::debug!(%error, ?pause, "what is followed broke off; going on");
        sleep(jittered(pause)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> ClientError {
        ClientError::Broken { server: "s".into(), what: "w".into(), source: "reset".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_began_is_given_up_soon_and_what_broke_off_late() {
        let options = ClientOptions::default();
        let mut attempts = Attempts::default();
        let mut tries = 0;
        while attempts.failed(broken(), &options).await.is_ok() {
            tries += 1;
        }
        assert_eq!(tries, options.retries);

        attempts.progressed();
        let began = Instant::now();
        while attempts.failed(broken(), &options).await.is_ok() {}
        assert!(began.elapsed() >= options.reconnect_for && began.elapsed() < options.reconnect_for * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_closed_again_at_once_is_given_up_and_what_held_is_not() {
        let options = ClientOptions::default();
        let (mut short, mut long) = (Attempts::default(), Attempts::default());
        let began = Instant::now();
        loop {
            short.connected();
            if short.failed(broken(), &options).await.is_err() {
                break;
            }
            assert!(began.elapsed() < options.reconnect_for * 2, "it is never given up");
        }
        for _ in 0..100 {
            long.connected();
            sleep(options.reconnect_for).await;
            assert!(long.failed(broken(), &options).await.is_ok());
        }
    }

    #[tokio::test]
    async fn what_cannot_change_is_given_up_at_once() {
        let mut attempts = Attempts::default();
        attempts.progressed();
        let refused = ClientError::Refused(Problem::new(ErrorCode::NotSignedIn, "no"));
        assert!(attempts.failed(refused, &ClientOptions::default()).await.is_err());
    }
}
