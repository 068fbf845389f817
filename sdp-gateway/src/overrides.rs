//! What SDP adds to the branch's defaults, in `.sdp/overrides.json`.
//!
//! The record and the gateway's files are several files, and a crash can come between them. So a change is announced
//! first:
//!
//! 1. the record gets the new overrides as `pending`, beside those in force;
//! 2. the gateway's files are replaced;
//! 3. the record gets the new overrides as those in force, while the gateway is reloaded and asked. If it does not take
//!    them over, all of it goes back, again with an announcement first.
//!
//! Where nothing changes but the table of routes per request, all three steps follow each other at once: the files are on
//! the disk before the first of them gets its name.
//!
//! Whoever finds a `pending` looks at the gateway's files: if they are exactly what the pending overrides make of the
//! committed one, step 2 happened and they are in force; otherwise it did not, and the earlier ones are.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use sdp_core::RouteError;
use sdp_core::claims::Claims;
use sdp_core::model::names::{SandboxName, ServiceName};
use sdp_core::model::route::{Override, RequestRoutes};
use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::io_error;

/// The overrides of each service.
pub(crate) type Overrides = BTreeMap<ServiceName, Override>;

/// The record as it is on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Those in force, unless `pending` is.
    overrides: Overrides,
    /// The routes per request in force, unless `pending` is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    requests: BTreeMap<SandboxName, RequestRoutes>,
    /// Those announced and not yet confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending: Option<Overrides>,
    /// The routes per request announced with `pending`; absent, they do not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending_requests: Option<BTreeMap<SandboxName, RequestRoutes>>,
}

impl Record {
    /// `claims` are in force.
    pub(crate) fn of(claims: &Claims) -> Self {
        let Claims { overrides, requests } = claims.clone();
        Self { overrides, requests, ..Self::default() }
    }

    /// `before` are in force, and about to be replaced by `after`.
    pub(crate) fn announcing(before: &Claims, after: &Claims) -> Self {
        let Claims { overrides, requests } = after.clone();
        Self { pending: Some(overrides), pending_requests: Some(requests), ..Self::of(before) }
    }

    /// Those in force before the announced change.
    pub(crate) fn settled(&self) -> Claims {
        Claims { overrides: self.overrides.clone(), requests: self.requests.clone() }
    }

    /// Those after the announced change.
    pub(crate) fn pending(&self) -> Option<Claims> {
        let requests = self.pending_requests.as_ref().unwrap_or(&self.requests).clone();
        Some(Claims { overrides: self.pending.clone()?, requests })
    }

    /// The record in `bytes`, which were read from `path`; empty when there were none.
    pub(crate) fn from_bytes(path: &Path, bytes: Option<&[u8]>) -> Result<Self, RouteError> {
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        serde_json::from_slice(bytes).map_err(|error| RouteError::Io {
            action: "understand (correct it, or remove it and set the routes again)".into(),
            path: path.to_owned(),
            source: error.into(),
        })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), RouteError> {
        let written = self.bytes().and_then(|bytes| atomic::write(path, &bytes));
        written.map_err(|error| io_error("write", path, error))
    }

    /// As it is on disk.
    pub(crate) fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_before_routes_per_request_are_understood() {
        let old = br#"{"overrides": {"shop": {"url": "http://h", "kind": "sandbox", "owner": "pay"}}, "pending": {}}"#;
        let record = Record::from_bytes(Path::new("overrides.json"), Some(old)).unwrap();
        assert_eq!(record.settled().overrides.len(), 1);
        assert_eq!(record.pending(), Some(Claims::default()));
    }
}
