//! The branches' own defaults, in `.sdp/ocp-defaults.json`, for people and for a later look at what a branch said.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use sdp_core::model::names::{BranchName, CommitId, ServiceName};
use sdp_core::{RouteDefaults, RouteError};
use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::io_error;
use crate::php::ConfigFile;

/// One service's default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Default {
    /// The PHP source of the value. Bytes that were not UTF-8 are U+FFFD.
    pub(crate) source: String,
    /// The value, when it is a plain string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
}

impl Default {
    /// What people are shown.
    pub(crate) fn shown(&self) -> &str {
        self.value.as_deref().unwrap_or(&self.source)
    }
}

/// The values in `file`, by service. Of one set several times, the last: that is what PHP would use of plain
/// assignments.
pub(crate) fn of(file: &ConfigFile) -> BTreeMap<ServiceName, Default> {
    file.entries()
        .filter_map(|entry| {
            let source = String::from_utf8_lossy(file.source(entry)).into_owned();
            let value = entry.literal().map(str::to_owned);
            Some((ServiceName::new(entry.service()).ok()?, Default { source, value }))
        })
        .collect()
}

#[derive(Debug, std::default::Default, Serialize, Deserialize)]
struct Snapshots {
    branches: BTreeMap<BranchName, Snapshot>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    commit: CommitId,
    at: Timestamp,
    services: BTreeMap<ServiceName, Default>,
}

/// Records the defaults that `file`, committed at `commit`, has on `branch`; other branches' are kept.
pub(crate) fn snapshot(
    path: &Path,
    branch: &BranchName,
    commit: &CommitId,
    file: &ConfigFile,
) -> Result<RouteDefaults, RouteError> {
    let services = of(file);
    let previous = atomic::read(path).map_err(|error| io_error("read", path, error))?;
    // It is a copy of what the commits say: an unreadable one is made again.
    let mut snapshots: Snapshots = previous.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let answer = services.iter().map(|(service, default)| (service.clone(), default.shown().to_owned())).collect();
    let snapshot = Snapshot { commit: commit.clone(), at: Timestamp::now(), services };
    snapshots.branches.insert(branch.clone(), snapshot);
    let mut bytes =
        serde_json::to_vec_pretty(&snapshots).map_err(|error| io_error("write", path, io::Error::other(error)))?;
    bytes.push(b'\n');
    atomic::write(path, &bytes).map_err(|error| io_error("write", path, error))?;
    Ok(RouteDefaults { services: answer })
}
