//! A change under way and the way back.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sdp_core::RouteError;
use sdp_core::claims::Claims;

use crate::atomic;
use crate::error::io_error;
use crate::files::Files;
use crate::overrides::Record;
use crate::plan::Plan;
use crate::site::Site;

/// A change under way and the way back.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) site: Site,
    /// The claims in force before.
    pub(crate) before: Claims,
    /// The gateway's files before.
    pub(crate) files: Files,
    pub(crate) plan: Plan,
    /// Somebody edited the gateway's configuration: it is neither what SDP wrote nor a fresh checkout.
    pub(crate) drifted: bool,
    /// Where a copy of the configuration goes if so.
    copy: PathBuf,
}

/// One file of the gateway's, with its bytes before and after; none where there is no file.
struct Step<'a> {
    path: PathBuf,
    before: Option<&'a [u8]>,
    after: Option<&'a [u8]>,
}

impl<'a> Step<'a> {
    fn new(path: PathBuf, before: &'a Option<Vec<u8>>, after: &'a Option<Vec<u8>>) -> Self {
        Self { path, before: before.as_deref(), after: after.as_deref() }
    }
}

impl Change {
    pub(crate) fn new(site: Site, before: Claims, files: Files, plan: Plan, drifted: bool, now: Timestamp) -> Self {
        let copy = site.own.join(format!("drifted-{}.php", now.strftime("%Y%m%dT%H%M%S%.6fZ")));
        Self { site, before, files, plan, drifted, copy }
    }

    /// Announces the change and replaces the gateway's files; where only the table of routes per request changes, records
    /// as well that it is in force. A copy of a drifted configuration is kept, which the
    /// answer tells.
    pub(crate) fn write(&self) -> Result<Option<String>, RouteError> {
        let announced = Record::announcing(&self.before, &self.plan.claims);
        if self.is_of_requests_alone() {
            let (record, path) = (self.site.overrides(), self.site.request_table());
            let table = self.plan.files.table.as_deref().unwrap_or_default();
            let confirmed = Record::of(&self.plan.claims);
            let records = announced.bytes().and_then(|announced| Ok((announced, confirmed.bytes()?)));
            let written = records.and_then(|(announced, confirmed)| {
                atomic::write_unsynced(&[(&record, &announced), (&path, table), (&record, &confirmed)])
            });
            written.map_err(|error| io_error("write", &path, error))?;
            return Ok(None);
        }
        announced.write(&self.site.overrides())?;
        let mut warning = None;
        if let Some(config) = self.files.config.as_deref().filter(|_| self.drifted) {
            let copy = &self.copy;
            atomic::write_like(&self.site.config, copy, config).map_err(|error| io_error("write", copy, error))?;
            tracing::warn!(copy = %copy.display(), "replacing a gateway's file that was edited by hand");
            warning = Some(format!("the file had been edited by hand; that version is kept in {}", copy.display()));
        }
        for Step { path, before, after } in self.steps() {
            // A plain configuration is written in any case: a fresh time makes a cache look again.
            if before != after || path == self.site.config && self.plan.files.table.is_none() {
                put(&path, after).map_err(|error| io_error("write", &path, error))?;
            }
        }
        Ok(warning)
    }

    /// The files in the order in which they are replaced: wrapped values find their table, and a table goes when nothing
    /// asks for it any more.
    fn steps(&self) -> Vec<Step<'_>> {
        let (before, after) = (&self.files, &self.plan.files);
        let mut steps = vec![
            Step::new(self.site.request_program(), &before.program, &after.program),
            Step::new(self.site.request_table(), &before.table, &after.table),
            Step::new(self.site.config.clone(), &before.config, &after.config),
        ];
        if after.table.is_none() {
            steps.reverse();
        }
        steps
    }

    /// Whether nothing changes but the table of routes per request, which the gateway reads on each.
    pub(crate) fn is_of_requests_alone(&self) -> bool {
        let (before, after) = (&self.files, &self.plan.files);
        after.table.is_some() && before.config == after.config && before.program == after.program
    }

    /// What is new of PHP, each with the path it goes to.
    pub(crate) fn new_php(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let new = self.steps().into_iter().filter(|step| step.before != step.after);
        new.filter_map(|step| Some((step.path, step.after?.to_vec()))).collect()
    }

    /// Makes the change durable, and records that it is in force.
    pub(crate) fn confirm(&self) -> Result<(), RouteError> {
        if self.is_of_requests_alone() {
            let record = self.site.overrides();
            return atomic::sync(&record).map_err(|error| io_error("write", &record, error));
        }
        Record::of(&self.plan.claims).write(&self.site.overrides())
    }

    /// Puts everything back. Answers whether a file of the gateway's had been replaced.
    pub(crate) fn undo(&self) -> bool {
        // It may be said already that the change is in force, and who looks meanwhile should not believe it.
        let _ = Record::announcing(&self.before, &self.plan.claims).write(&self.site.overrides());
        let mut replaced = false;
        for Step { path, before, .. } in self.steps().into_iter().rev() {
            if atomic::read(&path).is_ok_and(|now| now.as_deref() == before) {
                continue;
            }
            replaced = true;
            put(&path, before).unwrap_or_else(|error| {
                tracing::error!(path = %path.display(), %error, "failed to put a gateway's previous file back");
            });
        }
        // The edited file itself is in its place again.
        let _ = atomic::remove(&self.copy);
        Record::of(&self.before).write(&self.site.overrides()).unwrap_or_else(|error| {
            tracing::error!(%error, "failed to put the previous overrides back; the next change will");
        });
        replaced
    }
}

fn put(path: &Path, bytes: Option<&[u8]>) -> std::io::Result<()> {
    match bytes {
        Some(bytes) => atomic::write(path, bytes),
        None => atomic::remove(path),
    }
}
