//! What was read, with the version that it had then.

use http::{HeaderMap, HeaderValue, header};
use serde::de::DeserializeOwned;

use super::{ClientError, exchange::Answer};

/// The version of something: the `ETag` of its answer. A change that names one is refused with
/// [`Changed`](crate::ErrorCode::Changed) when somebody else made another meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(HeaderValue);

/// Something with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<T> {
    /// What was read.
    pub value: T,
    /// Its version; none where something on the way took it off.
    pub version: Option<Version>,
}

impl Version {
    /// A version as [`as_str`](Self::as_str) gave it; none when it cannot be one.
    pub fn new(text: &str) -> Option<Self> {
        HeaderValue::from_str(text).ok().map(Self)
    }

    /// The version as text, to be kept.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get(header::ETAG).cloned().map(Self)
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl<T: DeserializeOwned> Versioned<T> {
    pub(super) fn read(answer: &Answer) -> Result<Self, ClientError> {
        Ok(Self { value: answer.json()?, version: Version::of(&answer.headers) })
    }
}
