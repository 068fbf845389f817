//! The table of routes, from what the file says now. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use sdp_core::claims::Claims;
use sdp_core::model::names::{BranchName, ServiceName};
use sdp_core::model::route::{OverrideKind, Route, RouteOrigin, RouteTable};

use crate::defaults::{self, Default};
use crate::php::ConfigFile;

/// What the gateway was last seen to use, by service.
pub(crate) type Seen = BTreeMap<ServiceName, String>;

/// What a table is made of.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    /// The configuration as committed.
    pub(crate) committed: &'a ConfigFile,
    /// The configuration as it is.
    pub(crate) file: &'a ConfigFile,
    pub(crate) claims: &'a Claims,
    pub(crate) seen: &'a Seen,
    /// Whether the gateway is to route per request.
    pub(crate) per_request: bool,
    /// Whether the table of routes per request is the one that the claims make.
    pub(crate) table_is_ours: bool,
}

/// The table of the gateway on `branch`.
pub(crate) fn table(branch: BranchName, sources: &Sources<'_>) -> RouteTable {
    let Sources { committed, file, claims, seen, per_request, table_is_ours } = *sources;
    let branch_defaults = defaults::of(committed);
    let values = defaults::of(file);
    let wrapped: BTreeSet<&str> =
        file.entries().filter(|entry| entry.is_wrapped()).map(|entry| entry.service()).collect();
    let mut warnings = doubled(file);
    let routes = values
        .iter()
        .map(|(service, value)| {
            let default = branch_defaults.get(service);
            let target = claims.overrides.get(service);
            // An override that this branch has no place for is kept aside, and the value is the branch's.
            let in_effect = target.filter(|_| committed.entry(service.as_str()).is_ok());
            let from_table = in_effect.filter(|_| table_is_ours && wrapped.contains(service.as_str()));
            let shown = from_table.map(|target| target.url.as_str()).or(value.value.as_deref());
            let origin = match in_effect {
                Some(target) if shown == Some(target.url.as_str()) => match target.kind {
                    OverrideKind::Sandbox => RouteOrigin::Sandbox,
                    OverrideKind::Custom => RouteOrigin::Custom,
                },
                None if default == Some(value) => RouteOrigin::Ocp,
                _ => RouteOrigin::Drifted,
            };
            Route {
                service: service.clone(),
                value: shown.unwrap_or(&value.source).to_owned(),
                expression: shown.is_none(),
                origin,
                default: default.map(Default::shown).unwrap_or_default().to_owned(),
                owner: target.map(|target| target.owner.clone()),
                reason: target.and_then(|target| target.reason.clone()),
                expires_at: target.and_then(|target| target.expires_at),
                effective: seen.get(service).cloned(),
            }
        })
        .collect();
    let gone = branch_defaults.keys().chain(claims.overrides.keys()).filter(|service| !values.contains_key(service));
    for service in gone.collect::<BTreeSet<_>>() {
        let holder =
            claims.overrides.get(service).map(|target| format!(", which sandbox `{}` overrides", target.owner));
        warnings.push(format!("the file has no `{service}_url`{}", holder.unwrap_or_default()));
    }
    let not_routable: BTreeMap<ServiceName, String> = match per_request {
        true => not_routable(committed, branch_defaults.keys()),
        false => BTreeMap::new(),
    };
    let routable = branch_defaults.keys().any(|service| !not_routable.contains_key(service));
    let in_effect = per_request && table_is_ours && (!wrapped.is_empty() || !routable);
    if per_request && !in_effect {
        warnings.push(
            "routing per request is not in effect: the gateway's files are not as SDP wrote them (a fresh checkout, or \
             somebody edited or removed `.sdp/routes.php`); the next change of a route puts it in effect"
                .into(),
        );
    }
    RouteTable {
        branch: Some(branch),
        routes,
        per_request: in_effect,
        requests: claims.requests.clone(),
        not_routable,
        taken: Vec::new(),
        warnings,
    }
}

/// The services that cannot be routed per request, each with the reason.
fn not_routable<'a>(
    committed: &ConfigFile,
    services: impl Iterator<Item = &'a ServiceName>,
) -> BTreeMap<ServiceName, String> {
    services
        .filter_map(|service| Some((service.clone(), committed.routable(service.as_str()).err()?.to_string())))
        .collect()
}

/// A warning for each service that the file sets more than once.
fn doubled(file: &ConfigFile) -> Vec<String> {
    let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for entry in file.entries() {
        lines.entry(entry.service()).or_default().push(entry.line().to_string());
    }
    lines
        .into_iter()
        .filter(|(_, lines)| lines.len() > 1)
        .map(|(service, lines)| {
            format!("`{service}_url` is set on lines {}; keep one, it cannot be switched", lines.join(", "))
        })
        .collect()
}
