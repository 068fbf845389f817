//! The table of routes, from what the file says now. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use sdp_core::model::names::{BranchName, ServiceName};
use sdp_core::model::route::{OverrideKind, Route, RouteOrigin, RouteTable};

use crate::defaults::{self, Default};
use crate::overrides::Overrides;
use crate::php::ConfigFile;

/// What the gateway was last seen to use, by service.
pub(crate) type Seen = BTreeMap<ServiceName, String>;

/// The table of `file` on `branch`, whose commit has `committed`.
pub(crate) fn table(
    branch: BranchName,
    committed: &ConfigFile,
    file: &ConfigFile,
    overrides: &Overrides,
    seen: &Seen,
) -> RouteTable {
    let branch_defaults = defaults::of(committed);
    let values = defaults::of(file);
    let mut warnings = doubled(file);
    let routes = values
        .iter()
        .map(|(service, value)| {
            let default = branch_defaults.get(service);
            let target = overrides.get(service);
            // An override that this branch has no place for is kept aside, and the value is the branch's.
            let in_effect = target.filter(|_| committed.entry(service.as_str()).is_ok());
            let origin = match in_effect {
                Some(target) if value.value.as_deref() == Some(target.url.as_str()) => match target.kind {
                    OverrideKind::Sandbox => RouteOrigin::Sandbox,
                    OverrideKind::Custom => RouteOrigin::Custom,
                },
                None if default == Some(value) => RouteOrigin::Ocp,
                _ => RouteOrigin::Drifted,
            };
            Route {
                service: service.clone(),
                value: value.shown().to_owned(),
                expression: value.value.is_none(),
                origin,
                default: default.map(Default::shown).unwrap_or_default().to_owned(),
                owner: target.map(|target| target.owner.clone()),
                effective: seen.get(service).cloned(),
            }
        })
        .collect();
    let gone = branch_defaults.keys().chain(overrides.keys()).filter(|service| !values.contains_key(service));
    for service in gone.collect::<BTreeSet<_>>() {
        let holder = overrides.get(service).map(|target| format!(", which sandbox `{}` overrides", target.owner));
        warnings.push(format!("the file has no `{service}_url`{}", holder.unwrap_or_default()));
    }
    RouteTable { branch: Some(branch), routes, warnings }
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
