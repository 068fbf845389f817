//! Requests to other systems. Plain http and https; no proxy, and redirects are not followed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use jiff::Timestamp;
use rustls::{ClientConfig, RootCertStore};
use sdp_core::problem::{chain, retry_after};
use url::Url;

use crate::queue::Failure;

/// The most that is read of an answer.
const MAX_ANSWER: usize = 1024 * 1024;

/// How much of a refusal's body is told.
const TOLD: usize = 300;

/// A client that keeps connections to be used again.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

/// What was answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    retry_after: Option<Duration>,
}

impl Outgoing {
    /// A client that trusts the machine's CA certificates and waits for an answer at most `timeout`.
    pub(crate) fn new(timeout: Duration) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self::trusting(roots, timeout)
    }

    /// Whether anybody can be reached over https at all.
    pub(crate) fn has_roots() -> bool {
        !rustls_native_certs::load_native_certs().certs.is_empty()
    }

    pub(crate) fn trusting(roots: RootCertStore, timeout: Duration) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let connector = connector.wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { client, timeout })
    }

    /// Sends a request and reads the answer, whatever its status.
    ///
    /// # Errors
    /// When there is no answer, or it does not come in time.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method.clone();
        *request.uri_mut() = match url.as_str().parse() {
            Ok(uri) => uri,
            Err(_) => return Err(Failure::never(format!("{} cannot be asked", place(url)))),
        };
        let version = concat!("sdp-server/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(version));
        request.headers_mut().extend(headers.iter().cloned());
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| chain(&error))?;
            let (parts, body) = response.into_parts();
            let body = match Limited::new(body, MAX_ANSWER).collect().await {
                Ok(body) => without_secrets(body.to_bytes(), headers),
                // What was done was done; the rest of the answer is of no interest.
                Err(error) if error.is::<LengthLimitError>() => Bytes::new(),
                Err(error) => return Err(chain(&*error)),
            };
            let told = parts.headers.get(header::RETRY_AFTER).and_then(|told| told.to_str().ok());
            let retry_after = told.and_then(|told| retry_after(told, Timestamp::now()));
            Ok(Answer { status: parts.status, body, retry_after })
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => Err(Failure::again(format!("{method} {} failed: {why}", place(url)))),
            Err(_) => Err(Failure::again(format!("{method} {} was not answered in time", place(url)))),
        }
    }
}

impl Answer {
    /// The answer to what was asked for, or why it is a refusal.
    ///
    /// # Errors
    /// For every status but success: to be tried again if it says so, or somebody may grant it meanwhile.
    pub(crate) fn success(self, what: &str) -> Result<Self, Failure> {
        if self.status.is_success() {
            return Ok(self);
        }
        let body = String::from_utf8_lossy(&self.body);
        let body: String = body.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(TOLD).collect();
        let why = format!("{what} was answered with {}: {body}", self.status.as_u16());
        match self.status.as_u16() {
            401 | 403 | 408 | 409 | 425 | 429 | 500.. => Err(Failure::Again { why, after: self.retry_after }),
            _ => Err(Failure::Never(why)),
        }
    }
}

/// A body without what we proved with who we are: some echo it, and refusals are kept and shown.
fn without_secrets(body: Bytes, headers: &[(HeaderName, HeaderValue)]) -> Bytes {
    let sent = headers.iter().filter(|(name, _)| *name == header::AUTHORIZATION);
    let secrets = sent.filter_map(|(_, value)| value.to_str().ok()?.rsplit(' ').next().filter(|it| !it.is_empty()));
    secrets.fold(body, |body, secret| match memchr::memmem::find(&body, secret.as_bytes()) {
        Some(_) => String::from_utf8_lossy(&body).replace(secret, "***").into(),
        None => body,
    })
}

/// A URL without what may be secret in it: chat systems have their keys in paths.
fn place(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_whether_trying_again_helps() {
        let answer = |status: u16| Answer {
            status: StatusCode::from_u16(status).unwrap(),
            body: Bytes::from_static(b"<h1>\n no\xff </h1>"),
            retry_after: None,
        };
        assert!(answer(204).success("it").is_ok());
        for status in [401, 403, 408, 409, 425, 429, 500, 502, 503, 599] {
            assert!(matches!(answer(status).success("it"), Err(Failure::Again { .. })), "{status}");
        }
        for status in [301, 302, 400, 404, 405, 410, 413, 422] {
            let Err(Failure::Never(why)) = answer(status).success("it") else { panic!("{status}") };
            assert_eq!(why, format!("it was answered with {status}: <h1> no\u{fffd} </h1>"));
        }
    }

    #[test]
    fn a_token_that_is_echoed_is_not_kept() {
        let headers = [(header::AUTHORIZATION, HeaderValue::from_static("Bearer s3cret"))];
        let body = |text: &'static str| without_secrets(Bytes::from_static(text.as_bytes()), &headers);
        assert_eq!(body("no token s3cret here"), "no token *** here");
        assert_eq!(body("no token here"), "no token here");
        assert_eq!(without_secrets(Bytes::from_static(b"s3cret"), &[]), "s3cret");
    }

    #[test]
    fn what_is_told_of_an_address_has_no_key_in_it() {
        let url = Url::parse("https://chat.example:8443/hooks/s3cret?key=s3cret").unwrap();
        assert_eq!(place(&url), "https://chat.example:8443");
    }
}
