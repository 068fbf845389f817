//! Connections: accepted, limited, encrypted where that is configured, and ended in order.
//!
//! A client that is slow to say what it wants holds a connection and nothing else, and that not for long. Who is slow
//! to take an answer holds what the kernel keeps of it.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::tls::Tls;

/// How long a client has for the head of a request, from the end of the one before.
pub(crate) const HEAD: Duration = Duration::from_secs(20);
/// How long a client has to agree on encryption.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take nothing of what it is sent, or be gone without a word: the kernel ends the connection then.
/// A person may leave a log in a pager; a program that follows one connects again.
pub(crate) const STALLED: Duration = Duration::from_secs(15 * 60);
/// The pause after a connection could not be accepted: no file descriptor is left, for example.
const PAUSE: Duration = Duration::from_millis(100);

/// What connections are served with.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    pub(crate) app: Router,
    pub(crate) tls: Option<Tls>,
    /// How many there are at most; more wait in the kernel.
    pub(crate) connections: usize,
    /// How long a client has for the head of a request.
    pub(crate) head: Duration,
    /// How long a client may take nothing of what it is sent.
    pub(crate) stalled: Duration,
    pub(crate) stop: CancellationToken,
}

impl Serving {
    /// Accepts and serves until it is told to stop, and then until requests in flight are answered.
    pub(crate) async fn run(self, listener: TcpListener) {
        let (room, open) = (Arc::new(Semaphore::new(self.connections)), TaskTracker::new());
        // Never closed.
        while let Some(Ok(place)) = self.stop.run_until_cancelled(Arc::clone(&room).acquire_owned()).await {
            match self.stop.run_until_cancelled(listener.accept()).await {
                Some(Ok((stream, address))) => {
                    let serving = self.clone();
                    open.spawn(async move { serving.connection(stream, address, place).await });
                }
                Some(Err(error)) if is_of_one(&error) => {}
                Some(Err(error)) => {
                    tracing::error!(%error, "no connection can be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
                None => break,
            }
        }
        drop(listener);
        open.close();
        open.wait().await;
    }

    async fn connection(self, stream: TcpStream, address: SocketAddr, place: OwnedSemaphorePermit) {
        // An answer is one write, or the next comes soon.
        let _ = stream.set_nodelay(true);
        let stalled = u32::try_from(self.stalled.as_millis()).unwrap_or(u32::MAX);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, stalled);
        let Some(tls) = &self.tls else { return self.speak(Placed { stream, _place: place }, address).await };
        match timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.speak(Placed { stream, _place: place }, address).await,
            Ok(Err(error)) => tracing::debug!(%address, %error, "a connection was not encrypted"),
            Err(_) => tracing::debug!(%address, "a connection took too long to be encrypted"),
        }
    }

    async fn speak(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, address: SocketAddr) {
        let app = self.app;
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(address));
            app.clone().oneshot(request)
        });
        let mut protocol = hyper::server::conn::http1::Builder::new();
        protocol.timer(TokioTimer::new()).header_read_timeout(self.head);
        let connection = protocol.serve_connection(TokioIo::new(stream), service).with_upgrades();
        tokio::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%address, %error, "a connection ended in the middle");
        }
    }
}

/// A connection with its place among those there may be, which it keeps when it becomes a WebSocket.
#[derive(Debug)]
struct Placed<S> {
    stream: S,
    _place: OwnedSemaphorePermit,
}

impl<S: AsyncRead + Unpin> AsyncRead for Placed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Placed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Whether only the connection that was about to be accepted is at fault.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::Notify,
    };

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    /// Serves an app on any port, and stops when that is said.
    async fn serving(app: Router, connections: usize, head: Duration) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let stalled = Duration::from_millis(200);
        let serving = Serving { app, tls: None, connections, head, stalled, stop: stop.clone() };
        tokio::spawn(serving.run(listener));
        (address, stop)
    }

    async fn to_end(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        let read = timeout(Duration::from_secs(30), stream.read_to_string(&mut text));
        let _ = read.await.expect("the connection ends");
        text
    }

    #[tokio::test]
    async fn who_does_not_say_what_it_wants_is_cut_off() {
        let app = Router::new().route("/", get(async || "hello"));
        let (address, stop) = serving(app, 10, Duration::from_millis(50)).await;
        for sent in [&b""[..], b"GET / HT", b"GET / HTTP/1.1\r\nx: y\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(sent).await.unwrap();
            assert!(!to_end(&mut stream).await.contains("200"));
        }
        stop.cancel();
    }

    #[tokio::test]
    async fn a_connection_too_many_waits_until_another_has_ended() {
        let app = Router::new().route("/", get(async || "hello"));
        let (address, stop) = serving(app, 1, Duration::from_secs(60)).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(REQUEST).await.unwrap();
        let mut answer = [0; 12];
        first.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(REQUEST).await.unwrap();
        let waits = timeout(Duration::from_millis(100), second.read_exact(&mut answer)).await;
        assert!(waits.is_err(), "the first is still open");
        drop(first);
        timeout(Duration::from_secs(30), second.read_exact(&mut answer)).await.unwrap().unwrap();
        stop.cancel();
    }

    #[tokio::test]
    async fn who_takes_nothing_of_an_answer_is_cut_off() {
        let large = bytes::Bytes::from(vec![0; 64 << 20]);
        let app = Router::new().route("/", get(async move || large.clone()));
        let (address, stop) = serving(app, 1, Duration::from_secs(60)).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(REQUEST).await.unwrap();
        let mut answer = [0; 12];
        first.read_exact(&mut answer).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(REQUEST).await.unwrap();
        timeout(Duration::from_secs(30), second.read_exact(&mut answer)).await.unwrap().unwrap();
        stop.cancel();
        drop((first, second));
    }

    #[tokio::test]
    async fn a_request_in_flight_is_answered_when_the_server_stops() {
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (tell, wait) = (Arc::clone(&begun), Arc::clone(&go));
        let app = Router::new().route(
            "/",
            get(async move || {
                tell.notify_one();
                wait.notified().await;
                "hello"
            }),
        );
        let (address, stop) = serving(app, 10, Duration::from_secs(60)).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        begun.notified().await;
        stop.cancel();
        go.notify_one();
        assert!(to_end(&mut stream).await.ends_with("hello"));
        assert!(TcpStream::connect(address).await.is_err(), "nobody else is let in");
    }
}
