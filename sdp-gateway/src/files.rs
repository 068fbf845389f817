//! The files that make a gateway's routes, as they are on disk and as they should be. Rendering does no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sdp_core::RouteError;
use sdp_core::claims::Claims;
use sdp_core::model::names::{SandboxName, ServiceName};
use sdp_core::model::route::{RequestRoutes, ServiceUrl};

use crate::atomic;
use crate::defaults;
use crate::error::io_error;
use crate::overrides::Record;
use crate::php::{ConfigFile, PhpError};
use crate::request_table::{PROGRAM, RequestTable};
use crate::site::Site;

/// How a gateway's routes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode<'a> {
    /// Overrides are values in the configuration.
    Plain,
    /// Values are chosen per request, by the program at this path relative to the configuration's directory.
    PerRequest(&'a str),
}

/// What a gateway runs by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// The gateway's configuration.
    pub(crate) config: Option<Vec<u8>>,
    /// The table of routes per request.
    pub(crate) table: Option<Vec<u8>>,
    /// The program that chooses from it.
    pub(crate) program: Option<Vec<u8>>,
}

/// The files that claims make of the committed configuration.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) files: Files,
    /// The version of the table, if there is one.
    pub(crate) version: Option<String>,
    /// The overrides that the branch has no place for, in sentences.
    pub(crate) aside: Vec<String>,
    /// The routes per request that are not in effect, in sentences.
    pub(crate) requests_aside: Vec<String>,
}

impl Files {
    /// Reads them all.
    pub(crate) fn read(site: &Site) -> Result<Self, RouteError> {
        Ok(Self {
            config: read(&site.config)?,
            table: read(&site.request_table())?,
            program: read(&site.request_program())?,
        })
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, RouteError> {
    atomic::read(path).map_err(|error| io_error("read", path, error))
}

/// The record and the files, under the lock.
pub(crate) fn read_all(site: &Site) -> Result<(Record, Files), RouteError> {
    let record = read(&site.overrides())?;
    Ok((Record::from_bytes(&site.overrides(), record.as_deref())?, Files::read(site)?))
}

/// The record and the files as they were together at one moment, without the lock: the record changes before and after
/// every change of the files, so while it stays the same, so do they.
pub(crate) fn read_consistent(site: &Site) -> Result<(Record, Files), RouteError> {
    loop {
        let before = read(&site.overrides())?;
        let files = Files::read(site)?;
        if before == read(&site.overrides())? {
            return Ok((Record::from_bytes(&site.overrides(), before.as_deref())?, files));
        }
    }
}

/// The claims in force, by the rule of [`crate::overrides`]. The files may have been written in another mode than
/// today's.
pub(crate) fn in_force(record: &Record, committed: &ConfigFile, files: &Files, modes: [Mode<'_>; 2]) -> Claims {
    match record.pending() {
        Some(pending) if written(committed, &pending, files, modes) => pending,
        _ => record.settled(),
    }
}

/// Whether `files` are what `claims` make of `committed`.
fn written(committed: &ConfigFile, claims: &Claims, files: &Files, modes: [Mode<'_>; 2]) -> bool {
    modes.iter().any(|mode| rendered(committed, claims, *mode).is_ok_and(|rendered| rendered.files == *files))
}

/// Puts every claim that `committed` has a place for into it.
pub(crate) fn rendered(committed: &ConfigFile, claims: &Claims, mode: Mode<'_>) -> Result<Rendered, PhpError> {
    let mut aside = Vec::new();
    let mut overridden = Vec::new();
    for (service, target) in &claims.overrides {
        match committed.entry(service.as_str()) {
            Ok(_) => overridden.push((service, &target.url)),
            Err(reason) => aside.push(format!("the override of `{service}` is kept but not in effect: {reason}")),
        }
    }
    match mode {
        Mode::Plain => {
            let sandboxes: Vec<_> = claims.requests.keys().map(|sandbox| format!("`{sandbox}`")).collect();
            let told = format!(
                "the routes per request of {} are kept but not in effect: set `per_request = true` under [gateway] in \
                 the agent's configuration",
                sandboxes.join(", ")
            );
            let requests_aside = if sandboxes.is_empty() { Vec::new() } else { vec![told] };
            let config = Some(committed.patched(&texts(overridden))?);
            Ok(Rendered { files: Files { config, ..Files::default() }, version: None, aside, requests_aside })
        }
        Mode::PerRequest(program) => {
            let chosen = |service: &ServiceName| committed.routable(service.as_str()).is_ok();
            let (every, fixed): (Vec<_>, Vec<_>) = overridden.into_iter().partition(|(service, _)| chosen(service));
            let services: BTreeSet<ServiceName> = defaults::of(committed).into_keys().collect();
            let mut requests_aside = Vec::new();
            let requests = routable(committed, &claims.requests, &mut requests_aside);
            let table = RequestTable::new(
                &services,
                &every.into_iter().collect(),
                &fixed.iter().map(|(service, _)| *service).collect(),
                &requests,
            );
            let config = Some(committed.wrapped(program, &texts(fixed))?);
            // It is generated from checked names and URLs; a mistake in that must not reach the gateway.
            ConfigFile::parse(table.text.as_bytes())?;
            let files = Files { config, table: Some(table.text.into_bytes()), program: Some(PROGRAM.into()) };
            Ok(Rendered { files, version: Some(table.version), aside, requests_aside })
        }
    }
}

fn texts<'a>(urls: impl IntoIterator<Item = (&'a ServiceName, &'a ServiceUrl)>) -> BTreeMap<String, String> {
    urls.into_iter().map(|(service, url)| (service.as_str().to_owned(), url.as_str().to_owned())).collect()
}

/// The routes that can be chosen per request on this branch; of the others `aside` gets a sentence.
fn routable(
    committed: &ConfigFile,
    requests: &BTreeMap<SandboxName, RequestRoutes>,
    aside: &mut Vec<String>,
) -> BTreeMap<SandboxName, RequestRoutes> {
    let mut requests = requests.clone();
    for (sandbox, routes) in &mut requests {
        routes.services.retain(|service, _| match committed.routable(service.as_str()) {
            Ok(_) => true,
            Err(reason) => {
                aside.push(format!(
                    "the route of `{service}` for requests of sandbox `{sandbox}` is kept but not in effect: {reason}"
                ));
                false
            }
        });
    }
    requests
}
