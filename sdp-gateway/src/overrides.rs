//! What SDP wrote in place of the branch's defaults, in `.sdp/overrides.json`.
//!
//! The record and the gateway's file are two files, and a crash can come between them. So a change is announced first:
//!
//! 1. the record gets the new overrides as `pending`, beside those in force;
//! 2. the gateway's file is replaced, the gateway reloaded and asked;
//! 3. the record gets the new overrides as those in force.
//!
//! Whoever finds a `pending` looks at the gateway's file: if it is exactly what the pending overrides make of the
//! committed one, step 2 happened and they are in force; otherwise it did not, and the earlier ones are.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use sdp_core::RouteError;
use sdp_core::model::names::ServiceName;
use sdp_core::model::route::Override;
use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::io_error;

/// The overrides of each service.
pub(crate) type Overrides = BTreeMap<ServiceName, Override>;

/// The record as it is on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Those in force, unless `pending` is.
    pub(crate) overrides: Overrides,
    /// Those announced and not yet confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending: Option<Overrides>,
}

impl Record {
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
        let mut bytes =
            serde_json::to_vec_pretty(self).map_err(|error| io_error("write", path, io::Error::other(error)))?;
        bytes.push(b'\n');
        atomic::write(path, &bytes).map_err(|error| io_error("write", path, error))
    }
}
