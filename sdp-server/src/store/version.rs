//! Versions of what is kept, against lost updates: who changes something can say which version they have seen, and it is
//! changed only if it still is that. A version is a hash of all that can be changed, so that it needs no counter.

use std::fmt::Write;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{StoreError, values::to_json};

/// The version of something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(String);

impl Version {
    /// That of `value`.
    pub fn of<T: Serialize>(value: &T) -> Self {
        Self::of_json(&to_json(value))
    }

    /// That of what is this in JSON.
    pub(crate) fn of_json(json: &str) -> Self {
        let hash = Sha256::digest(json.as_bytes());
        let mut text = String::with_capacity(32);
        for byte in &hash[..16] {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// As a client has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Version {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// The versions of which something must have one to be changed; whatever it has when none are given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected(Option<Vec<Version>>);

impl Expected {
    /// Whatever it is.
    pub const ANY: Self = Self(None);

    /// One of these.
    pub fn one_of(versions: Vec<Version>) -> Self {
        Self(Some(versions))
    }

    /// Refuses what has another version.
    pub(super) fn check<T: Serialize>(&self, what: &'static str, name: &str, value: &T) -> Result<(), StoreError> {
        match &self.0 {
            Some(versions) if !versions.contains(&Version::of(value)) => {
                Err(StoreError::Changed { what, name: name.into() })
            }
            _ => Ok(()),
        }
    }
}
