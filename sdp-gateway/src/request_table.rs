//! The table by which a gateway chooses a request's routes: `.sdp/routes.php`, read by `.sdp/request.php`. No I/O.
//!
//! The table is nothing but constant data, which PHP's OPcache shares between requests without copying; the program
//! that reads it never changes. All that switches when a route is toggled is this one file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use sdp_core::model::names::{SandboxName, ServiceName};
use sdp_core::model::route::{RequestRoutes, ServiceUrl};
use sha2::{Digest, Sha256};

use crate::php::single_quoted;

/// The program that chooses; the same for every gateway.
pub(crate) const PROGRAM: &str = include_str!("request.php");

/// The most that one list of services takes of the `X-SDP-Route` header, in bytes. With two lists, the longest
/// sandbox's name and all else the header stays below 1,000.
const MAX_LIST: usize = 400;

/// A generated table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestTable {
    /// The file's text.
    pub(crate) text: String,
    /// Names this text; in it, for the gateway to say which it has read.
    pub(crate) version: String,
}

impl RequestTable {
    /// The table for a gateway with `services`: `every` for all requests, and each sandbox's for its own. `fixed` are
    /// those overridden in the configuration itself.
    pub(crate) fn new(
        services: &BTreeSet<ServiceName>,
        every: &BTreeMap<&ServiceName, &ServiceUrl>,
        fixed: &BTreeSet<&ServiceName>,
        requests: &BTreeMap<SandboxName, RequestRoutes>,
    ) -> Self {
        let overridden: BTreeSet<&ServiceName> = every.keys().chain(fixed).copied().collect();
        let mut body = format!("    'every' => {},\n", map(every.iter().map(|(service, url)| (*service, *url)), 1));
        let _ = writeln!(body, "    'line' => {},", single_quoted(&line(services, &BTreeSet::new(), &overridden)));
        body.push_str("    'sandboxes' => [\n");
        for (sandbox, routes) in requests {
            let own: BTreeSet<&ServiceName> = routes.services.keys().collect();
            let _ = write!(
                body,
                "        {} => [\n            'name' => {},\n            'services' => {},\n            'line' => {},\n        ],\n",
                single_quoted(routes.key.as_str()),
                single_quoted(sandbox.as_str()),
                map(routes.services.iter(), 3),
                single_quoted(&line(services, &own, &overridden)),
            );
        }
        body.push_str("    ],\n");
        let version = Sha256::digest(body.as_bytes()).iter().take(16).fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let head = "<?php\n// Made by SDP from overrides.json, which replaces it: what is edited here is lost.\n";
        let text = format!("{head}return [\n    'version' => '{version}',\n{body}];\n");
        Self { text, version }
    }
}

fn map<'a>(urls: impl Iterator<Item = (&'a ServiceName, &'a ServiceUrl)>, depth: usize) -> String {
    let indent = "    ".repeat(depth);
    let mut text = String::from("[\n");
    for (service, url) in urls {
        let _ = writeln!(text, "{indent}    '{service}' => {},", single_quoted(url.as_str()));
    }
    text + &indent + "]"
}

/// What the `X-SDP-Route` header says of the services: a dictionary as RFC 9651 writes it.
fn line(services: &BTreeSet<ServiceName>, own: &BTreeSet<&ServiceName>, overridden: &BTreeSet<&ServiceName>) -> String {
    let others: BTreeSet<&ServiceName> = overridden.difference(own).copied().collect();
    let mut line = String::new();
    for (name, list) in [("sandbox", own), ("override", &others)] {
        if !list.is_empty() {
            let _ = write!(line, "{name}={}, ", inner_list(list));
        }
    }
    let rest = services.iter().filter(|service| !own.contains(service) && !overridden.contains(service)).count();
    let _ = write!(line, "default={rest}");
    line
}

fn inner_list(services: &BTreeSet<&ServiceName>) -> String {
    let mut list = String::from("(");
    let mut shown = 0;
    for service in services {
        if list.len() + service.as_str().len() > MAX_LIST {
            break;
        }
        if shown > 0 {
            list.push(' ');
        }
        list.push_str(service.as_str());
        shown += 1;
    }
    list.push(')');
    match services.len() - shown {
        0 => list,
        more => format!("{list};more={more}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize, length: usize) -> BTreeSet<ServiceName> {
        (0..count).map(|at| ServiceName::new(format!("s{at:0width$}", width = length - 1)).unwrap()).collect()
    }

    #[test]
    fn the_header_names_what_differs_and_counts_the_rest() {
        let services = names(20, 3);
        let at = |at| services.iter().nth(at).unwrap();
        let said = line(&services, &[at(0), at(1)].into(), &[at(1), at(2)].into());
        assert_eq!(said, "sandbox=(s00 s01), override=(s02), default=17");
        assert_eq!(line(&services, &BTreeSet::new(), &BTreeSet::new()), "default=20");
    }

    #[test]
    fn the_header_stays_short_however_many_services_there_are() {
        let services = names(1_000, 64);
        let (own, others): (BTreeSet<_>, BTreeSet<_>) = services.iter().partition(|name| name.as_str().ends_with('1'));
        let said = line(&services, &own, &others);
        assert!(said.len() < 850, "{}", said.len());
        assert!(said.contains(";more=94, override=") && said.ends_with("default=0"), "{said}");
    }

    #[test]
    fn equal_tables_have_equal_texts_and_others_another_version() {
        let services = names(2, 3);
        let url: ServiceUrl = "http://127.0.0.1:1/it's".parse().unwrap();
        let of = |every: &BTreeMap<&ServiceName, &ServiceUrl>| {
            RequestTable::new(&services, every, &BTreeSet::new(), &BTreeMap::new())
        };
        let (none, one) = (BTreeMap::new(), BTreeMap::from([(services.first().unwrap(), &url)]));
        assert_eq!(of(&one), of(&one));
        assert_ne!(of(&none).version, of(&one).version);
        assert!(of(&one).text.contains(r"'s00' => 'http://127.0.0.1:1/it\'s',"), "{}", of(&one).text);
    }
}
