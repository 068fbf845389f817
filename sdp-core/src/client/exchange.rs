//! Requests and their answers.

use std::{error::Error, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, combinators::UnsyncBoxBody};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use jiff::Timestamp;
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use super::{Client, ClientError, call::Call, error::BoxError, retry::Pauses};
use crate::problem::{ErrorCode, Problem, retry_after};

/// The most that is read of an answer at once.
pub(super) const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// The most that is read of a refusal.
const MAX_REFUSAL_BYTES: usize = 1024 * 1024;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Keeps connections to be used again.
pub(super) type HttpClient = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body ended early. A type of its own: with a boxed error in its place, the compiler cannot see that futures
/// which read bodies are `Send`.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct BodyError(BoxError);

pub(super) fn http_client(tls: &Arc<ClientConfig>, connect_timeout: Duration) -> HttpClient {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connect_timeout));
    let connector = HttpsConnectorBuilder::new().with_tls_config(ClientConfig::clone(tls));
    let connector = connector.https_or_http().enable_http1().wrap_connector(tcp);
    legacy::Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector)
}

/// The header that proves who asks.
pub(super) fn bearer(token: &SecretString) -> Result<HeaderValue, ClientError> {
    let token = token.expose_secret();
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let header = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| is_token);
    let mut header = header.ok_or(ClientError::InvalidToken)?;
    header.set_sensitive(true);
    Ok(header)
}

/// A successful answer, whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    server: String,
    what: String,
}

impl Answer {
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|source| self.unreadable(source))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A page is not what was asked for: another server's, or the dashboard's.
    fn unreadable(&self, source: serde_json::Error) -> ClientError {
        let (server, what) = (self.server.clone(), self.what.clone());
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.starts_with("application/json") {
            return ClientError::Unreadable { server, what, source };
        }
        ClientError::NotSdp { server, what, status: self.status.as_u16(), location: None }
    }
}

impl Client {
    /// Sends a request and reads the answer, if it is not a refusal. Sends it again where that is safe.
    pub(super) async fn send(&self, call: Call) -> Result<Answer, ClientError> {
        let mut pauses = Pauses::new(self.options());
        let began = Instant::now();
        let mut is_uncertain = false;
        loop {
            let error = match self.attempt(&call).await {
                // It was deleted by an earlier attempt, of which no answer came.
                Err(error)
                    if is_uncertain && call.method == Method::DELETE && error.code() == Some(ErrorCode::NotFound) =>
                {
                    return Ok(self.answer(&call, StatusCode::NO_CONTENT, HeaderMap::new(), Bytes::new()));
                }
                Err(error) => error,
                answer => return answer,
            };
            is_uncertain |= !error.is_harmless();
            if call.key.is_some()
                && let Some(pause) = under_way(&error).map(|pause| pause.max(self.options().first_pause))
                && began.elapsed() + pause < self.options().request_timeout
            {
                sleep(pause).await;
                continue;
            }
            // What was created and refused is kept as failed: asked for again, it would be created again.
            let repeatable = call.repeatable && (call.key.is_none() || error.problem().is_none());
            let Some(pause) = pauses.after(&error, repeatable) else { return Err(error) };
            tracing::debug!(%call, %error, ?pause, "trying again");
            sleep(pause).await;
        }
    }

    /// Sends a request and reads its answer as JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        self.send(call).await?.json()
    }

    /// Sends a request whose answer holds nothing.
    pub(super) async fn nothing(&self, call: Call) -> Result<(), ClientError> {
        self.send(call).await.map(drop)
    }

    /// Sends a request once.
    pub(super) async fn attempt(&self, call: &Call) -> Result<Answer, ClientError> {
        let limit = self.options().request_timeout;
        let exchange = async {
            let (head, body) = self.begin(call).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|source| self.broken(call, source))?.to_bytes();
            Ok(self.answer(call, head.status, head.headers, body))
        };
        timeout(limit, exchange).await.unwrap_or_else(|_| Err(self.timed_out(call, limit)))
    }

    /// Sends a request once, and leaves the body of its answer to be read as it comes.
    pub(super) async fn open(&self, call: &Call) -> Result<Body, ClientError> {
        let limit = self.options().request_timeout;
        let begun = timeout(limit, self.begin(call)).await;
        begun.unwrap_or_else(|_| Err(self.timed_out(call, limit))).map(Response::into_body)
    }

    async fn begin(&self, call: &Call) -> Result<Response<Body>, ClientError> {
        let request = self.request(call)?;
        let response = self.shared.http.request(request).await.map_err(|error| self.failed(call, error))?;
        let response = response.map(|body| body.map_err(|error| BodyError(error.into())).boxed_unsync());
        if response.status().is_success() {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let body = match Limited::new(body, MAX_REFUSAL_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => Bytes::new(),
            Err(source) => return Err(self.broken(call, source)),
        };
        Err(self.refusal(&call.to_string(), head.status, &head.headers, &body))
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, ClientError> {
        let uri = self.address().http(&call.path);
        let request = Request::builder().method(call.method.clone()).uri(uri).body(Full::new(call.body.clone()));
        // Paths are encoded, and the address was parsed.
        let mut request = request.map_err(|source| self.broken(call, source.into()))?;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static(call.accept));
        if let Ok(program) = HeaderValue::from_str(&self.options().user_agent) {
            headers.insert(header::USER_AGENT, program);
        }
        if let Some(kind) = call.content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if let Some(key) = call.key.as_deref().and_then(|key| HeaderValue::from_str(key).ok()) {
            headers.insert(IDEMPOTENCY_KEY, key);
        }
        if let Some(version) = &call.if_match {
            headers.insert(header::IF_MATCH, version.header());
        }
        if let Some(token) = self.token.as_ref().filter(|_| call.signed) {
            headers.insert(header::AUTHORIZATION, bearer(token)?);
        }
        Ok(request)
    }

    fn answer(&self, call: &Call, status: StatusCode, headers: HeaderMap, body: Bytes) -> Answer {
        Answer { status, headers, body, server: self.address().to_string(), what: call.to_string() }
    }

    /// What a refusal says; or that it is none of the server's.
    pub(super) fn refusal(&self, what: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ClientError {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        match serde_json::from_slice::<Problem>(body) {
            Ok(mut problem) => {
                let told = text(header::RETRY_AFTER).and_then(|text| retry_after(text, Timestamp::now()));
                problem.retry_after = problem.retry_after.or(told.map(|wait| wait.as_secs()));
                ClientError::Refused(problem)
            }
            Err(_) => ClientError::NotSdp {
                server: self.address().to_string(),
                what: what.to_owned(),
                status: status.as_u16(),
                location: text(header::LOCATION).map(str::to_owned),
            },
        }
    }

    fn failed(&self, call: &Call, error: legacy::Error) -> ClientError {
        match error.is_connect() {
            true => self.unreachable(error.into()),
            false => self.broken(call, error.into()),
        }
    }

    /// That no connection was made: because of TLS, or at all.
    pub(super) fn unreachable(&self, error: BoxError) -> ClientError {
        let server = self.address().to_string();
        match is_tls(&*error) {
            true => ClientError::Tls { server, source: error },
            false => ClientError::Unreachable { server, source: error },
        }
    }

    fn broken(&self, call: &Call, source: BoxError) -> ClientError {
        ClientError::Broken { server: self.address().to_string(), what: call.to_string(), source }
    }

    fn timed_out(&self, call: &Call, limit: Duration) -> ClientError {
        ClientError::TimedOut { server: self.address().to_string(), what: call.to_string(), limit }
    }
}

/// How long until it can be asked again what became of the same request, which is still being carried out.
fn under_way(error: &ClientError) -> Option<Duration> {
    let problem = error.problem().filter(|problem| problem.code == ErrorCode::Conflict && problem.retryable)?;
    problem.retry_after.map(Duration::from_secs)
}

/// Whether an error came from TLS, however deep it is wrapped.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    if error.is::<rustls::Error>() {
        return true;
    }
    // An I/O error does not show what it wraps as its source.
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    match inner {
        Some(inner) => is_tls(inner),
        None => error.source().is_some_and(is_tls),
    }
}
