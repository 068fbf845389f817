//! Asking the gateway itself what it uses.
//!
//! The file may say one thing and the gateway do another: OPcache serves what it compiled, a second file sets the key
//! again, a reload did not happen. So a small PHP file with a random name is laid into the checkout's `.sdp/`, fetched
//! over HTTP through the gateway, and removed. The gateway's own PHP includes the configuration and tells the URLs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use sdp_core::model::names::ServiceName;
use sdp_core::{RouteError, TargetAnswer};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use crate::atomic;
use crate::config::ConfigError;
use crate::error::io_error;
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

/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

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

/// Asks one gateway.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    client: Client,
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

impl Probe {
    pub(crate) fn new() -> Result<Self, ConfigError> {
        let client = Client::builder()
            .timeout(ANSWER)
            .redirect(Policy::none())
            // It is this machine's gateway; a proxy could not reach it.
            .no_proxy()
            // A worker that a reload retires closes its idle connections.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(ConfigError::Client)?;
        Ok(Self { client })
    }

    /// Asks until the gateway is as expected, at most for `settle`.
    pub(crate) async fn verify(&self, question: &Question<'_>, settle: Duration) -> Result<Verdict, RouteError> {
        let Question { site, config, expected, table, named, services, .. } = *question;
        let file = ProbeFile::lay(site, config)?;
        let mut url = question.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend([".sdp", &file.name]);
        }
        let start = Instant::now();
        loop {
            match self.ask(&url).await {
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
    pub(crate) async fn target(&self, url: &Url) -> TargetAnswer {
        let silent = |error: &dyn std::error::Error| {
            let mut deepest = error;
            while let Some(source) = deepest.source() {
                deepest = source;
            }
            TargetAnswer::Silent(deepest.to_string())
        };
        if url.scheme() == "http" {
            return match self.client.head(url.clone()).timeout(TARGET_ANSWER).send().await {
                Ok(response) => TargetAnswer::Status(response.status().as_u16()),
                Err(error) if error.is_timeout() => TargetAnswer::Silent(format!("no answer within {TARGET_ANSWER:?}")),
                Err(error) => silent(&error),
            };
        }
        // Whether the gateway trusts its certificate is the gateway's to know.
        let address = url.host_str().zip(url.port_or_known_default());
        let Some((host, port)) = address else { return TargetAnswer::Silent("it names no host".into()) };
        let host = host.trim_matches(['[', ']']);
        match timeout(TARGET_ANSWER, TcpStream::connect((host, port))).await {
            Ok(Ok(_)) => TargetAnswer::Connected,
            Ok(Err(error)) => silent(&error),
            Err(_) => TargetAnswer::Silent(format!("no connection within {TARGET_ANSWER:?}")),
        }
    }

    async fn ask(&self, url: &Url) -> Result<Answer, String> {
        let mut response = self.client.get(url.clone()).send().await.map_err(|error| {
            let cause = if error.is_timeout() { "does not answer" } else { "cannot be reached" };
            format!("{url} {cause}")
        })?;
        if response.status() != StatusCode::OK {
            return Err(format!("{url} answered {}", response.status()));
        }
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_ANSWER => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Ok(Some(_)) => return Err(format!("{url} answered too much")),
                Err(_) => return Err(format!("{url} broke off its answer")),
            }
        }
        serde_json::from_slice(&body)
            .map_err(|_| format!("{url} was not run as PHP, or the configuration ended the program"))
    }
}

/// The file the gateway is asked through. Removed when dropped.
struct ProbeFile {
    name: String,
    path: PathBuf,
}

impl ProbeFile {
    fn lay(site: &Site, config: &Path) -> Result<Self, RouteError> {
        let name = format!("{PROBE}{:032x}.php", rand::random::<u128>());
        let config = php::single_quoted(&config.to_string_lossy());
        let file = Self { path: site.own.join(&name), name };
        let text = include_str!("probe.php").replace("SDP_CONFIG", &config);
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
