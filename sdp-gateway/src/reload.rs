//! Having the gateway read its file again, without dropping a request.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process};
use sdp_core::{DeployError, Deployer, HostPort, InstanceKey, InstanceState};

/// Has a gateway read its configuration again.
///
/// # Contract
/// - No request in flight is dropped.
/// - A gateway that does not run is no failure: it reads the file when it starts.
#[async_trait]
pub trait Reload: std::fmt::Debug + Send + Sync {
    /// Reloads the gateway. Whether it already works by the new file when this returns is up to the gateway.
    ///
    /// # Errors
    /// [`ReloadError`] when it runs and could not be told.
    async fn reload(&self) -> Result<Reloaded, ReloadError>;

    /// The port of this machine on which the gateway answers, where that is known.
    async fn host_port(&self) -> Option<HostPort> {
        None
    }
}

/// What came of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The gateway was told.
    Told,
    /// The gateway does not run.
    NotRunning,
}

/// Why a gateway could not be told to reload.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The deployer could not reload the instance.
    #[error("its instance could not be reloaded")]
    Deployer(#[source] DeployError),
    /// The pid file cannot be used.
    #[error("the pid file {} cannot be used; correct `gateway.reload`", .path.display())]
    PidFile {
        /// The pid file.
        path: PathBuf,
        /// What went wrong below.
        #[source]
        source: io::Error,
    },
    /// The signal could not be sent.
    #[error("process {pid} could not be sent SIGUSR1; run SDP as its user or as root")]
    Signal {
        /// The process.
        pid: i32,
        /// What went wrong below.
        #[source]
        source: io::Error,
    },
}

/// Reloads a gateway that runs as an instance of a [`Deployer`].
#[derive(Debug, Clone)]
pub struct DeployerReload {
    deployer: Arc<dyn Deployer>,
    key: InstanceKey,
}

impl DeployerReload {
    /// Reloads the instance `key` of `deployer`.
    pub fn new(deployer: Arc<dyn Deployer>, key: InstanceKey) -> Self {
        Self { deployer, key }
    }
}

#[async_trait]
impl Reload for DeployerReload {
    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        match self.deployer.reload(&self.key).await {
            Ok(()) => Ok(Reloaded::Told),
            Err(DeployError::NotFound { .. }) => Ok(Reloaded::NotRunning),
            Err(error) => match self.deployer.inspect(&self.key).await {
                Ok(instance) if !matches!(instance.state, InstanceState::Running) => Ok(Reloaded::NotRunning),
                _ => Err(ReloadError::Deployer(error)),
            },
        }
    }

    async fn host_port(&self) -> Option<HostPort> {
        Some(self.deployer.inspect(&self.key).await.ok()?.host_port)
    }
}

/// Reloads an Apache that runs on its own: SIGUSR1, its graceful restart, to the process of its pid file.
#[derive(Debug, Clone)]
pub struct PidFileReload {
    path: PathBuf,
    program: String,
}

impl PidFileReload {
    /// Signals the process whose id is in `path`, if its name is `program`: a pid file outlives its process, and to
    /// most other programs the signal is deadly.
    pub fn new(path: impl Into<PathBuf>, program: impl Into<String>) -> Self {
        Self { path: path.into(), program: program.into() }
    }

    fn pid(&self) -> Result<Option<Pid>, ReloadError> {
        let unusable = |source| ReloadError::PidFile { path: self.path.clone(), source };
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(error)),
        };
        let pid = text.trim().parse().ok().filter(|pid| *pid > 1).and_then(Pid::from_raw);
        let Some(pid) = pid else {
            return Err(unusable(io::Error::new(io::ErrorKind::InvalidData, "it holds no process id")));
        };
        let comm = Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join("comm");
        // The kernel keeps 15 bytes of a program's name.
        let expected: String = self.program.chars().take(15).collect();
        Ok(fs::read_to_string(comm).is_ok_and(|name| name.trim_end() == expected).then_some(pid))
    }
}

#[async_trait]
impl Reload for PidFileReload {
    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let Some(pid) = self.pid()? else { return Ok(Reloaded::NotRunning) };
        match kill_process(pid, Signal::USR1) {
            Ok(()) => Ok(Reloaded::Told),
            Err(rustix::io::Errno::SRCH) => Ok(Reloaded::NotRunning),
            Err(error) => Err(ReloadError::Signal { pid: pid.as_raw_nonzero().get(), source: error.into() }),
        }
    }
}

/// For gateways that read their configuration on every request.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoReload;

#[async_trait]
impl Reload for NoReload {
    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        Ok(Reloaded::Told)
    }
}
