//! One HTTP request over one connection, which can be opened before it is needed.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::ServiceExt;
use url::{Position, Url};

/// Largest body that is read, in bytes.
const MAX_BODY: usize = 1 << 20;

/// A connection for one request. Closed when dropped.
#[derive(Debug)]
pub(crate) struct Connection(SendRequest<Empty<Bytes>>);

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("no connection")]
    Connect(#[source] Source),
    #[error("it cannot be asked for")]
    Request(#[source] Source),
    #[error("the connection broke")]
    Exchange(#[from] hyper::Error),
    #[error("the answer broke off, or is too much")]
    Body(#[source] Source),
}

impl Connection {
    /// Connects to the host of `url`, over plain TCP.
    pub(crate) async fn open(url: &Url) -> Result<Self, HttpError> {
        let (sender, connection) = handshake(dial(url).await?).await?;
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
        *request.uri_mut() = path.parse().map_err(|error| HttpError::Request(Box::new(error)))?;
        let host = HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]);
        request.headers_mut().insert(header::HOST, host.map_err(|error| HttpError::Request(Box::new(error)))?);
        // Some firewalls in front of a gateway refuse who does not say what it takes.
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        let (parts, body) = self.0.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(HttpError::Body)?;
        Ok((parts.status, body.to_bytes()))
    }
}

/// A TCP connection to the host of `url`; to the first of its addresses that takes one soon.
pub(crate) async fn dial(url: &Url) -> Result<TokioIo<TcpStream>, HttpError> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let uri =
        url.as_str().parse().map_err(|error| HttpError::Request(Box::<hyper::http::uri::InvalidUri>::new(error)))?;
    connector.oneshot(uri).await.map_err(|error| HttpError::Connect(error.into()))
}
