//! Identifiers that the platform makes itself.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::names::{RepoName, SandboxName};

/// Names one deployment: a UUID version 7 (RFC 9562), so that ids sort by creation time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct DeploymentId(Uuid);

impl DeploymentId {
    /// A new id, later in order than every id made before it by this process.
    #[expect(clippy::new_without_default, reason = "every call gives a different value")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// A text that is not a deployment id.
#[derive(Debug, Clone, thiserror::Error)]
#[error("a deployment id is a UUID such as 0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55")]
pub struct InvalidDeploymentId(#[source] uuid::Error);

impl FromStr for DeploymentId {
    type Err = InvalidDeploymentId;
    fn from_str(text: &str) -> Result<Self, InvalidDeploymentId> {
        Uuid::try_parse(text).map(Self).map_err(InvalidDeploymentId)
    }
}

/// Names one API token: a UUID version 7, so that ids sort by creation time. It is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct TokenId(Uuid);

impl TokenId {
    /// A new id.
    #[expect(clippy::new_without_default, reason = "every call gives a different value")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// A text that is not a token's id.
#[derive(Debug, Clone, thiserror::Error)]
#[error("a token's id is a UUID such as 0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55, as GET /api/tokens lists it")]
pub struct InvalidTokenId(#[source] uuid::Error);

impl FromStr for TokenId {
    type Err = InvalidTokenId;
    fn from_str(text: &str) -> Result<Self, InvalidTokenId> {
        Uuid::try_parse(text).map(Self).map_err(InvalidTokenId)
    }
}

/// What a deployer runs at most one of: a repo, in a sandbox or (quick deploy) outside any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct InstanceKey {
    /// The sandbox; none for a quick deploy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxName>,
    /// The repo.
    pub repo: RepoName,
}

impl InstanceKey {
    /// The key of `repo`'s quick deploy.
    pub fn quick(repo: RepoName) -> Self {
        Self { sandbox: None, repo }
    }

    /// The key of `repo` in `sandbox`.
    pub fn in_sandbox(sandbox: SandboxName, repo: RepoName) -> Self {
        Self { sandbox: Some(sandbox), repo }
    }

    /// The name a container or process of this key bears: `sdp-<repo>` or `sdp-<sandbox>-<repo>`.
    ///
    /// Two keys can share a name (`a` + `b-c`, `a-b` + `c`); deployers tell them apart by their
    /// labels and refuse the second.
    pub fn container_name(&self) -> String {
        match &self.sandbox {
            None => format!("sdp-{}", self.repo),
            Some(sandbox) => format!("sdp-{sandbox}-{}", self.repo),
        }
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sandbox {
            None => write!(f, "{}", self.repo),
            Some(sandbox) => write!(f, "{}/{}", sandbox, self.repo),
        }
    }
}

/// A host port to publish on, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct HostPort(u16);

/// Port 0, which means "any" to the operating system and so names no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a host port is a number from 1 to 65535")]
pub struct InvalidPort;

impl HostPort {
    /// Checks `port`.
    ///
    /// # Errors
    /// [`InvalidPort`] for 0.
    pub fn new(port: u16) -> Result<Self, InvalidPort> {
        if port == 0 { Err(InvalidPort) } else { Ok(Self(port)) }
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u16> for HostPort {
    type Error = InvalidPort;
    fn try_from(port: u16) -> Result<Self, InvalidPort> {
        Self::new(port)
    }
}

impl From<HostPort> for u16 {
    fn from(port: HostPort) -> u16 {
        port.0
    }
}

impl FromStr for HostPort {
    type Err = InvalidPort;
    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        text.parse().map_err(|_| InvalidPort).and_then(Self::new)
    }
}

/// Host ports, written `20000-29999`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange(pub RangeInclusive<u16>);

impl PortRange {
    /// Whether the range has a port.
    pub fn contains(&self, port: HostPort) -> bool {
        self.0.contains(&port.get())
    }
}

impl TryFrom<String> for PortRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts = text.split_once('-').map(|(first, last)| (first.trim(), last.trim()));
        let range = parts.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        match range {
            Some((first, last)) if 0 < first && first <= last => Ok(Self(first..=last)),
            _ => Err(format!("{text:?} is not a range of ports: write it as \"20000-29999\"")),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> String {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_names_are_the_ones_promised() {
        let repo = RepoName::new("eredar").unwrap();
        assert_eq!(InstanceKey::quick(repo.clone()).container_name(), "sdp-eredar");
        let sandbox = SandboxName::new("pay").unwrap();
        assert_eq!(InstanceKey::in_sandbox(sandbox, repo).container_name(), "sdp-pay-eredar");
    }

    #[test]
    fn ids_sort_by_creation() {
        let ids: Vec<_> = (0..100).map(|_| DeploymentId::new()).collect();
        assert!(ids.is_sorted());
        assert_eq!(ids[0].to_string().parse::<DeploymentId>().unwrap(), ids[0]);
        assert!("not-an-id".parse::<DeploymentId>().is_err());
    }

    #[test]
    fn ranges_of_ports_read_back_as_they_are_written() {
        let range = serde_json::from_str::<PortRange>("\"100 - 200\"").unwrap();
        assert_eq!(serde_json::to_string(&range).unwrap(), "\"100-200\"");
        assert!(range.contains(HostPort(100)) && range.contains(HostPort(200)) && !range.contains(HostPort(99)));
        for text in ["\"0-9\"", "\"9-8\"", "\"9\"", "\"\"", "\"a-b\"", "\"1-65536\""] {
            assert!(serde_json::from_str::<PortRange>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ports_out_of_range_are_refused() {
        for text in ["0", "65536", "-1", "x", ""] {
            assert!(text.parse::<HostPort>().is_err(), "{text:?}");
        }
    }
}
