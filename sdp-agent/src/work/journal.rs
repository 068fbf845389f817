//! The deployments under way, on disk: one small file each, gone when it has ended.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
};

use sdp_core::{BranchName, Checkout, DeployRequest, DeploymentId, InstanceKey, data_dir::DataDirError};
use serde::{Deserialize, Serialize};

use crate::error::AgentError;

/// What must be known of a deployment to end it after a crash.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) deployment: DeploymentId,
    pub(super) key: InstanceKey,
    pub(super) branch: BranchName,
    /// The checkout as it was when its turn came, if there was one.
    #[serde(default)]
    pub(super) previous: Option<Checkout>,
    /// Set when it has ended and something it made, or what it parked, is still to be put in order.
    #[serde(default)]
    pub(super) untidy: bool,
    /// Whether the control plane says when what it replaces may be ended.
    #[serde(default)]
    pub(super) retire_on_request: bool,
}

#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    left: Vec<Record>,
}

impl Journal {
    pub(super) fn open(dir: impl Into<PathBuf>) -> Result<Self, AgentError> {
        let dir = dir.into();
        let failed = |action| {
            let path = dir.clone();
            move |source| AgentError::from(DataDirError::Io { action, path, source })
        };
        fs::create_dir_all(&dir).map_err(failed("create"))?;
        let mut left = Vec::new();
        for entry in fs::read_dir(&dir).map_err(failed("read"))? {
            let path = entry.map_err(failed("read"))?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => {}
                // A crash came before it was whole.
                Some("new") => {
                    fs::remove_file(&path).map_err(failed("clean up"))?;
                    continue;
                }
                _ => continue,
            }
            let text = fs::read(&path).map_err(failed("read"))?;
            match serde_json::from_slice::<Record>(&text) {
                Ok(record) => left.push(record),
                Err(error) => tracing::error!(path = %path.display(), %error, "a record of work cannot be read"),
            }
        }
        left.sort_by_key(|record| record.deployment);
        Ok(Self { dir, left })
    }

    /// What an earlier agent left, oldest first.
    pub(super) fn left(&self) -> &[Record] {
        &self.left
    }

    /// Writes down that a deployment was accepted.
    pub(super) fn begin(&self, request: &DeployRequest) -> io::Result<()> {
        self.write(request, None, false)
    }

    /// Writes down what a deployment is about to change.
    pub(super) fn turn_came(&self, request: &DeployRequest, previous: Option<Checkout>) {
        if let Err(error) = self.write(request, previous, false) {
            let deployment = request.deployment;
            tracing::warn!(%deployment, %error, "the checkout could not be noted: a crash now would not put it back");
        }
    }

    /// Writes down that a deployment has ended, but for what an engine that is away keeps from being
    /// undone.
    pub(super) fn untidy(&self, request: &DeployRequest) {
        if let Err(error) = self.write(request, None, true) {
            let deployment = request.deployment;
            tracing::warn!(%deployment, %error, "what it left could not be noted: a crash now would forget it");
        }
    }

    /// Forgets a deployment that has ended.
    pub(super) fn end(&self, deployment: DeploymentId) {
        match fs::remove_file(self.path(deployment)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%deployment, %error, "a record of work could not be removed");
            }
            _ => {}
        }
    }

    fn path(&self, deployment: DeploymentId) -> PathBuf {
        self.dir.join(format!("{deployment}.json"))
    }

    fn write(&self, request: &DeployRequest, previous: Option<Checkout>, untidy: bool) -> io::Result<()> {
        let DeployRequest { deployment, key, branch, retire_on_request, .. } = request;
        let (deployment, key, branch) = (*deployment, key.clone(), branch.clone());
        let record = Record { deployment, key, branch, previous, untidy, retire_on_request: *retire_on_request };
        let temporary = self.dir.join(format!("{deployment}.new"));
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&record)?)?;
        file.sync_data()?;
        fs::rename(&temporary, self.path(deployment))?;
        File::open(&self.dir)?.sync_all()
    }
}
