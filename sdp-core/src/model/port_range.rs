//! A range of host ports to pick from.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::ids::HostPort;

/// Host ports from a first to a last one, both included, written `20000-29999`.
///
/// ```
/// use sdp_core::PortRange;
/// let range: PortRange = "20000-20002".parse()?;
/// assert_eq!(range.ports().map(|port| port.get()).collect::<Vec<_>>(), [20_000, 20_001, 20_002]);
/// # Ok::<(), sdp_core::model::port_range::InvalidPortRange>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: HostPort,
    last: HostPort,
}

/// A text that is not a [`PortRange`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of ports: write it as \"20000-29999\"")]
pub struct InvalidPortRange(String);

impl PortRange {
    /// The ports from `first` to `last`.
    ///
    /// # Errors
    /// [`InvalidPortRange`] when `last` comes before `first`.
    pub fn new(first: HostPort, last: HostPort) -> Result<Self, InvalidPortRange> {
        if first <= last { Ok(Self { first, last }) } else { Err(InvalidPortRange(format!("{first}-{last}"))) }
    }

    /// The first port.
    pub fn first(&self) -> HostPort {
        self.first
    }

    /// The last port.
    pub fn last(&self) -> HostPort {
        self.last
    }

    /// Every port, from the first.
    pub fn ports(&self) -> impl Iterator<Item = HostPort> + use<> {
        (self.first.get()..=self.last.get()).filter_map(|port| HostPort::new(port).ok())
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = InvalidPortRange;
    fn from_str(text: &str) -> Result<Self, InvalidPortRange> {
        let invalid = || InvalidPortRange(text.chars().take(80).collect());
        let (first, last) = text.split_once('-').ok_or_else(invalid)?;
        let port = |text: &str| text.trim().parse().map_err(|_| invalid());
        Self::new(port(first)?, port(last)?)
    }
}

impl TryFrom<String> for PortRange {
    type Error = InvalidPortRange;
    fn try_from(text: String) -> Result<Self, InvalidPortRange> {
        text.parse()
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
    fn a_range_reads_back_as_written_and_an_empty_one_is_refused() {
        let range: PortRange = serde_json::from_str("\"100 - 200\"").unwrap();
        assert_eq!(serde_json::to_string(&range).unwrap(), "\"100-200\"");
        assert_eq!("7-7".parse::<PortRange>().unwrap().ports().count(), 1);
        for text in ["", "1", "0-5", "9-1", "1-65536", "a-b", "1-2-3", "-1-5"] {
            let error = text.parse::<PortRange>().unwrap_err();
            assert!(error.to_string().contains("20000-29999"), "{text}");
        }
    }
}
