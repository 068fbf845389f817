//! What a process deployer knows of its instances: one file each, replaced whole.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sdp_core::{Instance, RecipeKind};
use serde::{Deserialize, Serialize};

use super::system::ProcessId;
use crate::marked::MARK;

/// One instance: what to run, and what runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) instance: Instance,
    pub(crate) argv: Vec<String>,
    pub(crate) dir: PathBuf,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) recipe: RecipeKind,
    /// The build's folder.
    pub(crate) artifact: Option<PathBuf>,
    /// The program, while it was last known to run.
    pub(crate) process: Option<ProcessId>,
}

impl Record {
    /// Whether both are of the same commit, program and variables.
    pub(crate) fn makes_the_same_as(&self, other: &Self) -> bool {
        // It names the deployment.
        let env = |record: &Self| {
            let mut env = record.env.clone();
            env.remove(MARK);
            env
        };
        let of = |record: &Self| (record.instance.branch.clone(), record.instance.commit.clone(), record.recipe);
        of(self) == of(other)
            && (&self.argv, &self.dir, &self.artifact) == (&other.argv, &other.dir, &other.artifact)
            && env(self) == env(other)
    }
}

/// The folder of the records.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
}

impl Journal {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Every record, whole ones only: a file of another shape is someone else's.
    pub(crate) fn read(&self) -> io::Result<Vec<Record>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut records: Vec<Record> = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Ok(record) = serde_json::from_slice(&fs::read(&path)?)
            {
                records.push(record);
            }
        }
        records.sort_by(|a, b| (&a.instance.key, a.instance.parked).cmp(&(&b.instance.key, b.instance.parked)));
        Ok(records)
    }

    /// Writes a record in place of the one of the same id. Its variables may be secrets.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let path = self.path(&record.instance.id, "json");
        let partial = path.with_extension("partial");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        io::Write::write_all(&mut file, &serde_json::to_vec(record)?)?;
        file.sync_all()?;
        fs::rename(partial, path)
    }

    /// Removes a record and its output.
    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        for extension in ["json", "log"] {
            match fs::remove_file(self.path(id, extension)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Where an instance's output goes.
    pub(crate) fn log(&self, id: &str) -> PathBuf {
        self.path(id, "log")
    }

    fn path(&self, id: &str, extension: &str) -> PathBuf {
        self.dir.join(Path::new(id)).with_extension(extension)
    }
}
