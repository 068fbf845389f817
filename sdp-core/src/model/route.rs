//! Routes: where the gateway sends each service.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;

use super::names::{BranchName, ClaimReason, SandboxKey, SandboxName, ServiceName};

/// An http(s) URL that a gateway can call: no credentials, no fragment, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceUrl(String);

/// Why a text is not a [`ServiceUrl`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a service URL: {reason}")]
pub struct InvalidUrl {
    /// The text as given, cut to 200 characters.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ServiceUrl {
    /// Checks `text` and keeps it as written: a trailing slash is part of the meaning.
    ///
    /// # Errors
    /// [`InvalidUrl`] says what is wrong.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidUrl> {
        let text = text.into();
        match check_url(&text) {
            Ok(()) => Ok(Self(text)),
            Err(reason) => Err(InvalidUrl { text: text.chars().take(200).collect(), reason }),
        }
    }

    /// The URL as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_url(text: &str) -> Result<(), &'static str> {
    if text.len() > 2048 {
        return Err("it is longer than 2048 bytes");
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("spaces and control characters are not allowed");
    }
    let url = Url::parse(text).map_err(|_| "write it as http://host:port/path")?;
    if !matches!(url.scheme(), "http" | "https") {
        Err("only http and https are allowed")
    } else if !url.has_host() {
        Err("it names no host")
    } else if !url.username().is_empty() || url.password().is_some() {
        Err("credentials in a URL are not allowed")
    } else if url.fragment().is_some() {
        Err("a fragment (`#…`) has no meaning to a gateway")
    } else {
        Ok(())
    }
}

impl std::fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for ServiceUrl {
    type Err = InvalidUrl;
    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        Self::new(text)
    }
}

impl TryFrom<String> for ServiceUrl {
    type Error = InvalidUrl;
    fn try_from(text: String) -> Result<Self, InvalidUrl> {
        Self::new(text)
    }
}

impl From<ServiceUrl> for String {
    fn from(url: ServiceUrl) -> String {
        url.0
    }
}

/// What a person asks a route to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RouteTarget {
    /// The default of the gateway's branch.
    Ocp,
    /// The sandbox's own deployment of the service.
    Sandbox,
    /// This URL.
    Url(ServiceUrl),
}

/// As people write it: `ocp`, `sandbox` or a URL.
impl std::str::FromStr for RouteTarget {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        match text {
            "ocp" => Ok(Self::Ocp),
            "sandbox" => Ok(Self::Sandbox),
            url => ServiceUrl::new(url).map(Self::Url).map_err(InvalidTarget),
        }
    }
}

impl std::fmt::Display for RouteTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ocp => "ocp",
            Self::Sandbox => "sandbox",
            Self::Url(url) => url.as_str(),
        })
    }
}

/// A text that is not a [`RouteTarget`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a route leads to `ocp`, to `sandbox` or to a URL")]
pub struct InvalidTarget(#[source] pub InvalidUrl);

/// Where a route's present value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RouteOrigin {
    /// The branch's own default.
    Ocp,
    /// A sandbox's deployment.
    Sandbox,
    /// A custom URL.
    Custom,
    /// Someone edited the file by hand.
    Drifted,
}

/// One override: the value SDP writes in place of a branch's default. It is its owner's claim on the service: others
/// are refused until it is given back, expires or is taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Override {
    /// The URL written.
    pub url: ServiceUrl,
    /// Whether the URL is a sandbox's deployment or a custom one.
    pub kind: OverrideKind,
    /// The sandbox that owns it.
    pub owner: SandboxName,
    /// Why it holds the service, for those who would like it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ClaimReason>,
    /// Since when it holds the service. The epoch stands for the time at which the store applies it; a change of the
    /// URL by the same owner keeps what there was.
    #[serde(default, skip_serializing_if = "is_epoch")]
    #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
    pub since: Timestamp,
    /// From when on it keeps nobody off any more. It stays in effect until it is cleared or replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Time>"))]
    pub expires_at: Option<Timestamp>,
}

impl Override {
    /// An override by `owner` without a reason or an end, held from when it is applied.
    pub fn new(url: ServiceUrl, kind: OverrideKind, owner: SandboxName) -> Self {
        Self { url, kind, owner, reason: None, since: Timestamp::UNIX_EPOCH, expires_at: None }
    }

    /// Whether the claim is over at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

fn is_epoch(time: &Timestamp) -> bool {
    *time == Timestamp::UNIX_EPOCH
}

/// What an override points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OverrideKind {
    /// The owner's deployment of the service.
    Sandbox,
    /// A URL that a person gave.
    Custom,
}

/// What requests that carry a sandbox's key see instead of what all others see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RequestRoutes {
    /// What such a request carries.
    pub key: SandboxKey,
    /// Where it is sent, by service; services not named are as for every request.
    pub services: BTreeMap<ServiceName, ServiceUrl>,
}

/// Changes to a gateway's overrides, applied together or not at all. Services and sandboxes not named keep what they
/// have. Where several parts name the same, the later one counts, in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChanges {
    /// Clear every override whose claim has expired.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clear_expired: bool,
    /// Clear everything of these sandboxes: their overrides and their routes per request.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub clear: BTreeSet<SandboxName>,
    /// The override to set for each service, or none to give it back its default.
    pub services: BTreeMap<ServiceName, Option<Override>>,
    /// The routes to set for each sandbox's own requests, or none to clear them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<SandboxName, Option<RequestRoutes>>,
    /// Who asks; what another sandbox owns is refused, also when clearing, unless its claim has expired or `takeover`
    /// is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<SandboxName>,
    /// Take services over from the sandboxes that own them.
    #[serde(default)]
    pub takeover: bool,
}

/// An override that a change took from its owner, for the audit and for the owner to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct TakenRoute {
    /// The service.
    pub service: ServiceName,
    /// The override as it was, with its owner.
    pub was: Override,
    /// Whether its claim had expired.
    pub expired: bool,
}

/// One line of a gateway's route table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Route {
    /// The service.
    pub service: ServiceName,
    /// The value in the file now: the URL where it is a plain string, the PHP source otherwise.
    pub value: String,
    /// Whether `value` is PHP source rather than a URL.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expression: bool,
    /// Where the value comes from.
    pub origin: RouteOrigin,
    /// The branch's default: the URL, or the PHP source of an expression.
    pub default: String,
    /// The sandbox that owns the override, if one is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<SandboxName>,
    /// Why that sandbox holds the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ClaimReason>,
    /// From when on that sandbox keeps nobody off any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Time>"))]
    pub expires_at: Option<Timestamp>,
    /// What the gateway was last seen to use, when it could be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<String>,
}

/// A gateway's routes, read from its file now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RouteTable {
    /// The gateway's branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    /// One line per service, by name.
    pub routes: Vec<Route>,
    /// Whether requests that carry a sandbox's key see that sandbox's services.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub per_request: bool,
    /// What each sandbox's own requests see, where that differs from the lines above.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<SandboxName, RequestRoutes>,
    /// The services that cannot be routed per request, each with the reason and the cure. Overrides for every request
    /// work for them all the same.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_routable: BTreeMap<ServiceName, String>,
    /// What the change that this table answers took from other sandboxes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<TakenRoute>,
    /// What a person should know: drift that was overwritten, overrides of services that the
    /// branch lacks, a gateway that could not be asked what it uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl RouteTable {
    /// The line of `service`.
    pub fn get(&self, service: &ServiceName) -> Option<&Route> {
        self.routes.iter().find(|route| route.service == *service)
    }
}

/// A branch's own defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteDefaults {
    /// Each service's default: the URL, or the PHP source of an expression.
    pub services: BTreeMap<ServiceName, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_the_promised_written_form() {
        let json = |target: &RouteTarget| serde_json::to_string(target).unwrap();
        assert_eq!(json(&RouteTarget::Ocp), r#""ocp""#);
        assert_eq!(json(&RouteTarget::Sandbox), r#""sandbox""#);
        let url = RouteTarget::Url(ServiceUrl::new("http://127.0.0.1:9001").unwrap());
        assert_eq!(json(&url), r#"{"url":"http://127.0.0.1:9001"}"#);
        for target in [RouteTarget::Ocp, RouteTarget::Sandbox, url] {
            assert_eq!(target.to_string().parse(), Ok(target));
        }
        assert!("stable".parse::<RouteTarget>().is_err());
    }

    #[test]
    fn urls_a_gateway_should_not_be_given_are_refused() {
        for text in [
            "",
            "x",
            "ftp://h/",
            "http://",
            "http://u:p@h/",
            "http://h/#x",
            "http://h/ x",
            "http://h/\n",
            "javascript:1",
            "http://h/\0",
            "//h/x",
        ] {
            assert!(ServiceUrl::new(text).is_err(), "{text:?} was accepted");
        }
        assert_eq!(ServiceUrl::new("http://h:1/a/?b=c'").unwrap().as_str(), "http://h:1/a/?b=c'");
    }
}
