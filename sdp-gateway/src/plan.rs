//! What a change comes to: the new claims and the new files. No I/O.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;
use sdp_core::RouteError;
use sdp_core::claims::Claims;
use sdp_core::model::names::ServiceName;
use sdp_core::model::route::{RouteChanges, TakenRoute};

use crate::error::php_error;
use crate::files::{Files, Mode, Rendered, rendered};
use crate::php::{ConfigFile, PhpError};

/// A change, worked out and not yet written.
#[derive(Debug)]
pub(crate) struct Plan {
    /// All claims afterwards, also those that this branch has no place for.
    pub(crate) claims: Claims,
    /// What other sandboxes lose by it.
    pub(crate) taken: Vec<TakenRoute>,
    /// The services whose override the change is about.
    pub(crate) services: BTreeSet<ServiceName>,
    /// The gateway's files afterwards.
    pub(crate) files: Files,
    /// The version of the table of routes per request afterwards, if there is one.
    pub(crate) version: Option<String>,
    /// What is kept aside, each with the reason.
    pub(crate) warnings: Vec<String>,
}

/// Works out `changes` to `before` at the time `now`. `path` is the gateway's file, for errors.
pub(crate) fn plan(
    path: &Path,
    committed: &ConfigFile,
    before: &Claims,
    changes: &RouteChanges,
    mode: Mode<'_>,
    now: Timestamp,
) -> Result<Plan, RouteError> {
    let php = |error| php_error(path, Some(committed), error);
    for (service, change) in &changes.services {
        // An override that this branch has no place for can still be cleared.
        if change.is_some() || !before.overrides.contains_key(service) {
            committed.entry(service.as_str()).map_err(php)?;
        }
    }
    for routes in changes.requests.values().flatten() {
        if mode == Mode::Plain {
            return Err(RouteError::PerRequestOff);
        }
        for service in routes.services.keys() {
            match committed.routable(service.as_str()) {
                Err(reason @ PhpError::ConstantExpression { .. }) => {
                    let reason = reason.to_string();
                    return Err(RouteError::NotRoutable { service: service.clone(), reason });
                }
                result => drop(result.map_err(php)?),
            }
        }
    }
    let changed = before.changed(changes, now)?;
    let Rendered { files, version, aside: warnings, .. } = rendered(committed, &changed.claims, mode).map_err(php)?;
    Ok(Plan { claims: changed.claims, taken: changed.taken, services: changed.services, files, version, warnings })
}
