//! What can go wrong with the database.

use std::{path::PathBuf, sync::Arc};

use sdp_core::{
    AgentName, DeploymentId, DeploymentState, EnvironmentName, ErrorCode, HostPort, PortRange, Problem, SandboxName,
    problem,
};

use super::ports::PortHolder;

/// Why the database did not do what was asked. Nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It exists already.
    #[error("{what} {name:?} exists already")]
    Exists {
        /// The kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// It is not any more as the caller last saw it.
    #[error("{what} {name:?} has changed since it was read: read it again, and change that")]
    Changed {
        /// The kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// There is no such deployment.
    #[error("there is no deployment {0}")]
    NoDeployment(DeploymentId),
    /// The host port is somebody else's.
    #[error("port {port} of agent {agent} is held by {holder}; choose another, or leave it out to have one picked")]
    PortTaken {
        /// The agent.
        agent: AgentName,
        /// The port.
        port: HostPort,
        /// Who holds it.
        holder: PortHolder,
    },
    /// Every port of the range is held.
    #[error(
        "every port of {range} is held on agent {agent}; delete a sandbox that is not needed, or widen `deployer.port_range`"
    )]
    NoFreePort {
        /// The agent.
        agent: AgentName,
        /// The range.
        range: PortRange,
    },
    /// A change of state that [`DeploymentState::can_become`] forbids.
    #[error("deployment {id} is {from} and cannot become {to}")]
    Illegal {
        /// Which deployment.
        id: DeploymentId,
        /// Its state.
        from: DeploymentState,
        /// The state asked for.
        to: DeploymentState,
    },
    /// The sandbox is being torn down.
    #[error("sandbox {0} is being deleted: wait until it is gone, or take another name")]
    Deleting(SandboxName),
    /// Sandboxes live in the environment.
    #[error("sandbox {sandbox} lives in environment {environment}: delete it first")]
    InUse {
        /// The environment.
        environment: EnvironmentName,
        /// One of its sandboxes.
        sandbox: SandboxName,
    },
    /// The database was written by a newer version.
    #[error("the database {} was written by a newer version of sdp-server: start that version, or restore a backup made before the upgrade", .0.display())]
    Newer(PathBuf),
    /// The file is no SQLite database, or a damaged one.
    #[error("the database {} is damaged ({reason}): restore it from a backup", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        reason: String,
    },
    /// The file cannot be opened.
    #[error("failed to open the database {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: Arc<rusqlite::Error>,
    },
    /// It cannot be copied before its schema is changed, and so is not changed.
    #[error("failed to copy the database to {} before the upgrade: make room there, or correct its permissions", path.display())]
    Backup {
        /// The copy.
        path: PathBuf,
        /// The reason.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The schema cannot be brought up to date.
    #[error("failed to upgrade the database {}", path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: Arc<rusqlite_migration::Error>,
    },
    /// A statement failed: the disk is full, or the like.
    #[error("the database failed")]
    Sqlite(#[source] Arc<rusqlite::Error>),
    /// A row holds what this version cannot read.
    #[error("the database holds a value that cannot be read, in column {column}: {reason}")]
    Unreadable {
        /// The column.
        column: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The server is shutting down.
    #[error("the database is closed: the server is shutting down")]
    Closed,
}

impl StoreError {
    /// The machine-readable cause.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Exists { .. } | Self::Illegal { .. } | Self::Deleting(_) | Self::InUse { .. } => ErrorCode::Conflict,
            Self::Changed { .. } => ErrorCode::Changed,
            Self::PortTaken { .. } | Self::NoFreePort { .. } => ErrorCode::PortTaken,
            Self::NoDeployment(_) => ErrorCode::NotFound,
            _ => ErrorCode::Internal,
        }
    }
}

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        let told = Self::new(error.code(), problem::chain(error));
        match error {
            StoreError::InUse { sandbox, .. } => told.holder(sandbox.as_str()),
            StoreError::PortTaken { holder, .. } => told.field("host_port").holder(holder.key.to_string()),
            StoreError::NoFreePort { .. } => told.field("host_port"),
            _ => told,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

/// Whether an insert failed because the key is taken.
pub(super) fn is_taken(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        matches!(
            error.extended_code,
            rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY | rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE
        )
    })
}
