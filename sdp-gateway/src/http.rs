//! One HTTP request over one connection, which can be opened before it is needed.

use std::io;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::{Position, Url};

/// Largest body that is read, in bytes.
const MAX_BODY: usize = 1 << 20;

/// A connection for one request. Closed when dropped.
#[derive(Debug)]
pub(crate) struct Connection(SendRequest<Empty<Bytes>>);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("no connection")]
    Connect(#[from] io::Error),
    #[error("the connection broke")]
    Exchange(#[from] hyper::Error),
    #[error("the answer broke off, or is too much")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Connection {
    /// Connects to the host of `url`, over plain TCP.
    pub(crate) async fn open(url: &Url) -> Result<Self, HttpError> {
        let (sender, connection) = handshake(TokioIo::new(dial(url).await?)).await?;
        // It ends with the sender; what breaks it is told there.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Asks for `url`, whose host this is a connection to: the answer's status and body. Redirects are answers.
    pub(crate) async fn send(mut self, method: Method, url: &Url) -> Result<(StatusCode, Bytes), HttpError> {
        let path = &url[Position::BeforePath..Position::AfterQuery];
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        // A URL's text is one of a URI, and its authority one of a header.
        *request.uri_mut() = path.parse().map_err(io::Error::other)?;
        let host = url[Position::BeforeHost..Position::AfterPort].parse().map_err(io::Error::other)?;
        request.headers_mut().insert(header::HOST, host);
        let (parts, body) = self.0.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(HttpError::Body)?;
        Ok((parts.status, body.to_bytes()))
    }
}

/// A TCP connection to the host of `url`.
pub(crate) async fn dial(url: &Url) -> io::Result<TcpStream> {
    let address = url.host_str().zip(url.port_or_known_default());
    let (host, port) = address.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no host"))?;
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
