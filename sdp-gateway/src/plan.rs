//! What a change comes to: the new overrides and the new bytes. No I/O.

use std::collections::BTreeMap;
use std::path::Path;

use sdp_core::RouteError;
use sdp_core::model::names::ServiceName;
use sdp_core::model::route::RouteChanges;

use crate::error::php_error;
use crate::overrides::{Overrides, Record};
use crate::php::{ConfigFile, PhpError};

/// A change, worked out and not yet written.
#[derive(Debug)]
pub(crate) struct Plan {
    /// All overrides afterwards, also those that this branch has no place for.
    pub(crate) overrides: Overrides,
    /// The gateway's file afterwards.
    pub(crate) bytes: Vec<u8>,
    /// Whether the file afterwards differs from the committed one.
    pub(crate) overriding: bool,
    /// Overrides kept aside, each with the reason.
    pub(crate) warnings: Vec<String>,
}

/// The overrides in force, by the rule of [`crate::overrides`].
pub(crate) fn in_force(record: Record, committed: &ConfigFile, file: Option<&[u8]>) -> Overrides {
    match record.pending {
        Some(pending) if rendered(committed, &pending).ok().is_some_and(|rendered| file == Some(&rendered.bytes)) => {
            pending
        }
        _ => record.overrides,
    }
}

/// The committed file with overrides in it.
pub(crate) struct Rendered {
    pub(crate) bytes: Vec<u8>,
    /// The overrides that the file has no place for, each with the reason.
    pub(crate) aside: Vec<(ServiceName, PhpError)>,
}

/// Puts every override that `committed` has a place for into it.
pub(crate) fn rendered(committed: &ConfigFile, overrides: &Overrides) -> Result<Rendered, PhpError> {
    let mut urls = BTreeMap::new();
    let mut aside = Vec::new();
    for (service, target) in overrides {
        match committed.entry(service.as_str()) {
            Ok(_) => drop(urls.insert(service.as_str().to_owned(), target.url.as_str().to_owned())),
            Err(reason) => aside.push((service.clone(), reason)),
        }
    }
    Ok(Rendered { bytes: committed.patched(&urls)?, aside })
}

/// Works out `changes` to the overrides `base`. `path` is the gateway's file, for errors.
pub(crate) fn plan(
    path: &Path,
    committed: &ConfigFile,
    base: &Overrides,
    changes: &RouteChanges,
) -> Result<Plan, RouteError> {
    let mut overrides = base.clone();
    for (service, change) in &changes.services {
        let held = base.get(service);
        // An override that this branch has no place for can still be cleared.
        if change.is_some() || held.is_none() {
            committed.entry(service.as_str()).map_err(|error| php_error(path, Some(committed), error))?;
        }
        if let Some(held) = held
            && !changes.takeover
            && changes.by.as_ref() != Some(&held.owner)
        {
            return Err(RouteError::Claimed { service: service.clone(), holder: held.owner.clone() });
        }
        match change {
            Some(target) => overrides.insert(service.clone(), target.clone()),
            None => overrides.remove(service),
        };
    }
    let Rendered { bytes, aside } =
        rendered(committed, &overrides).map_err(|error| php_error(path, Some(committed), error))?;
    let overriding = bytes != committed.bytes();
    let warnings = aside
        .into_iter()
        .map(|(service, reason)| format!("the override of `{service}` is kept but not in effect: {reason}"))
        .collect();
    Ok(Plan { overrides, bytes, overriding, warnings })
}
