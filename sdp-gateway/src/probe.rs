//! Asking the gateway itself what it uses.
//!
//! The file may say one thing and the gateway do another: OPcache serves what it compiled, a second file sets the key
//! again, a reload did not happen. So a small PHP file with a random name is laid into the checkout's `.sdp/`, fetched
//! over HTTP through the gateway, and removed. The gateway's own PHP includes the configuration and tells the URLs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::{Method, StatusCode};
use sdp_core::model::names::ServiceName;
use sdp_core::problem::chain;
use sdp_core::{RouteError, TargetAnswer};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use crate::atomic;
use crate::error::io_error;
use crate::http::{Connection, HttpError, dial};
use crate::php;
use crate::site::{PROBE, Site};
use crate::table::Seen;

/// The longest one answer may take.
const ANSWER: Duration = Duration::from_secs(3);

/// The longest a target may take when it is asked whether it is there.
const TARGET_ANSWER: Duration = Duration::from_secs(2);

/// How long a gateway that gives no proper answer is asked again.
const PATIENCE: Duration = Duration::from_millis(500);

/// Pause between questions.
const PAUSE: Duration = Duration::from_millis(20);

/// What a service's URL must be, or must no longer be, for the gateway to have taken a change over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    Url(String),
    AnythingBut(String),
}

/// What the gateway said.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It uses what was written.
    Taken(Seen),
    /// It could not be asked, for this reason.
    Unknown(String),
    /// It uses something else for these services.
    Differs { uses: BTreeMap<ServiceName, String>, seen: Seen },
    /// It chooses routes per request by another table than the one that was written.
    OtherTable,
}

/// One question: of which gateway, about which file.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    /// Where the gateway serves the checkout's root.
    pub(crate) base: &'a Url,
    pub(crate) site: &'a Site,
    /// The gateway's configuration, relative to the checkout.
    pub(crate) config: &'a Path,
    /// What should be so.
    pub(crate) expected: &'a BTreeMap<ServiceName, Expected>,
    /// Whether nothing was written but the table of routes per request.
    pub(crate) is_of_requests: bool,
    /// The version of the table of routes per request, if there should be one.
    pub(crate) table: Option<&'a str>,
    /// The services that the change is about, and which are worth the whole wait.
    pub(crate) named: &'a BTreeSet<ServiceName>,
    /// The services to tell about.
    pub(crate) services: &'a [ServiceName],
}

#[derive(Debug, Deserialize)]
struct Answer {
    keys: BTreeMap<String, Vec<String>>,
    constants: BTreeMap<String, Vec<String>>,
    /// The version of the table of routes per request.
    table: Option<String>,
}

impl Answer {
    /// Every value the gateway has for `service`; the exact key hides a constant in upper case.
    fn values(&self, service: &ServiceName) -> Vec<&str> {
        let key = service.config_key();
        let upper = key.to_ascii_uppercase();
        [(&self.keys, &key), (&self.constants, &key), (&self.constants, &upper)]
            .into_iter()
            .find_map(|(map, key)| map.get(key).filter(|values| !values.is_empty()))
            .map(|values| values.iter().map(String::as_str).collect())
            .unwrap_or_default()
    }

    /// The services that are not as expected, each with what the gateway uses.
    fn differences(&self, expected: &BTreeMap<ServiceName, Expected>) -> BTreeMap<ServiceName, String> {
        let as_expected = |values: &[&str], expected: &Expected| match expected {
            Expected::Url(url) => values.is_empty() || values.contains(&url.as_str()),
            Expected::AnythingBut(url) => !values.contains(&url.as_str()),
        };
        let with_values = expected.iter().map(|(service, expected)| (service, self.values(service), expected));
        with_values
            .filter(|(_, values, expected)| !as_expected(values, expected))
            .map(|(service, values, _)| (service.clone(), values.join(", ")))
            .collect()
    }

    fn seen(&self, expected: &BTreeMap<ServiceName, Expected>, services: &[ServiceName]) -> Seen {
        let value = |service: &ServiceName| match expected.get(service) {
            Some(Expected::Url(url)) if self.values(service).contains(&url.as_str()) => Some(url.clone()),
            _ => self.values(service).last().map(|value| (*value).to_owned()),
        };
        services.iter().filter_map(|service| Some((service.clone(), value(service)?))).collect()
    }
}

/// Asks until the gateway is as expected, at most for `settle`; first over the connection that is open to it, if one is.
pub(crate) async fn verify(
    question: &Question<'_>,
    settle: Duration,
    mut open: Option<Connection>,
) -> Result<Verdict, RouteError> {
    let Question { site, config, expected, is_of_requests, table, named, services, .. } = *question;
    let file = ProbeFile::lay(site, config, is_of_requests)?;
    let mut url = question.base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend([".sdp", &file.name]);
    }
    let start = Instant::now();
    loop {
        match ask(&url, open.take()).await {
            Ok(answer) => {
                let uses = answer.differences(expected);
                let seen = || answer.seen(expected, services);
                if table.is_some() && answer.table.as_deref() != table {
                    if start.elapsed() >= settle {
                        return Ok(Verdict::OtherTable);
                    }
                    sleep(PAUSE).await;
                    continue;
                }
                if uses.is_empty() {
                    return Ok(Verdict::Taken(seen()));
                }
                let wait =
                    if uses.keys().any(|service| named.contains(service)) { settle } else { settle.min(PATIENCE) };
                if start.elapsed() >= wait {
                    return Ok(Verdict::Differs { uses, seen: seen() });
                }
            }
            Err(reason) if start.elapsed() >= settle.min(PATIENCE) => return Ok(Verdict::Unknown(reason)),
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
}

/// Whether the service at `url` answers, asked once and without redirects.
pub(crate) async fn target(url: &Url) -> TargetAnswer {
    let asked = timeout(TARGET_ANSWER, async {
        if url.scheme() == "http" {
            let (status, _) = Connection::open(url).await?.send(Method::HEAD, url).await?;
            return Ok(TargetAnswer::Status(status.as_u16()));
        }
        // Whether the gateway trusts its certificate is the gateway's to know.
        dial(url).await?;
        Ok::<_, HttpError>(TargetAnswer::Connected)
    });
    match asked.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            let mut deepest: &dyn std::error::Error = &error;
            while let Some(source) = deepest.source() {
                deepest = source;
            }
            TargetAnswer::Silent(deepest.to_string())
        }
        Err(_) => TargetAnswer::Silent(format!("no answer within {TARGET_ANSWER:?}")),
    }
}

async fn ask(url: &Url, open: Option<Connection>) -> Result<Answer, String> {
    let exchange = async {
        // The gateway may have closed it meanwhile.
        if let Some(open) = open
            && let Ok(answered) = open.send(Method::GET, url).await
        {
            return Ok(answered);
        }
        Connection::open(url).await?.send(Method::GET, url).await
    };
    let (status, body) = match timeout(ANSWER, exchange).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(HttpError::Connect(_))) => return Err(format!("{url} cannot be reached")),
        Ok(Err(error)) => return Err(format!("{url} did not answer properly: {}", chain(&error))),
        Err(_) => return Err(format!("{url} does not answer")),
    };
    if status != StatusCode::OK {
        return Err(format!("{url} answered {status}"));
    }
    serde_json::from_slice(&body)
        .map_err(|_| format!("{url} was not run as PHP, or the configuration ended the program"))
}

/// The file the gateway is asked through. Removed when dropped.
struct ProbeFile {
    name: String,
    path: PathBuf,
}

impl ProbeFile {
    fn lay(site: &Site, config: &Path, is_of_requests: bool) -> Result<Self, RouteError> {
        let name = format!("{PROBE}{:032x}.php", rand::random::<u128>());
        let config = php::single_quoted(&config.to_string_lossy());
        let file = Self { path: site.own.join(&name), name };
        let written = match is_of_requests {
            true => "array($sdp_table)",
            false => "array($sdp_config, $sdp_table, __DIR__ . '/request.php')",
        };
        let text = include_str!("probe.php").replace("SDP_CONFIG", &config).replace("SDP_WRITTEN", written);
        atomic::write_passing(&file.path, text.as_bytes()).map_err(|error| io_error("write", &file.path, error))?;
        Ok(file)
    }
}

impl Drop for ProbeFile {
    fn drop(&mut self) {
        if let Err(error) = atomic::remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "failed to remove a probe file; the next change will");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_was_closed_meanwhile_is_opened_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/ask.php", listener.local_addr().unwrap()).parse().unwrap();
        let open = Connection::open(&url).await.unwrap();
        drop(listener.accept().await.unwrap());
        let asking = tokio::spawn(async move { ask(&url, Some(open)).await });
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0);
        }
        assert!(request.starts_with(b"GET /ask.php HTTP/1.1\r\nhost: 127.0.0.1:"), "{request:?}");
        let body = r#"{"keys": {}, "constants": {}, "table": "v1"}"#;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        assert_eq!(asking.await.unwrap().unwrap().table.as_deref(), Some("v1"));
    }

    #[tokio::test]
    async fn a_target_that_nobody_serves_is_told_with_the_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        for scheme in ["http", "https"] {
            let url: Url = format!("{scheme}://{address}/").parse().unwrap();
            let answer = target(&url).await;
            assert!(matches!(&answer, TargetAnswer::Silent(reason) if reason.contains("refused")), "{answer:?}");
        }
    }
}
