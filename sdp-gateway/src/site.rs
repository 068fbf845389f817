//! Where a gateway's files lie in its checkout.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sdp_core::RouteError;

use crate::atomic;
use crate::error::io_error;

/// Start of the names of probe files in `.sdp/`.
pub(crate) const PROBE: &str = "probe-";

/// The name of the program that chooses a request's routes, in `.sdp/`.
const REQUEST_PROGRAM: &str = "request.php";

/// Where the program that chooses a request's routes is, from the directory of the configuration at the relative path
/// `config`: `/../../.sdp/request.php`.
pub(crate) fn program_from(config: &Path) -> String {
    let up = "/..".repeat(config.components().count().saturating_sub(1));
    format!("{up}/.sdp/{REQUEST_PROGRAM}")
}

/// The files of one checkout. Everything SDP keeps beside the gateway's own files is in `.sdp/`, which survives a
/// switch of the branch.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// The gateway's configuration.
    pub(crate) config: PathBuf,
    /// SDP's own directory.
    pub(crate) own: PathBuf,
}

impl Site {
    /// The files below `root`, whose configuration is at the relative path `config`.
    ///
    /// A branch is somebody's input: neither it nor its `.sdp` may lead out of the checkout by a symbolic link.
    pub(crate) fn open(root: &Path, config: &Path) -> Result<Self, RouteError> {
        let path = root.join(config);
        let dir = path.parent().unwrap_or(root);
        let inside = |dir: &Path| -> io::Result<bool> { Ok(dir.canonicalize()?.starts_with(root.canonicalize()?)) };
        match inside(dir) {
            Ok(true) => {}
            Ok(false) => {
                let source = io::Error::other("it leads out of the checkout; replace the symbolic link on the branch");
                return Err(io_error("use", &path, source));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(RouteError::NoGateway { path }),
            Err(error) => return Err(io_error("read", &path, error)),
        }
        let own = root.join(".sdp");
        match fs::symlink_metadata(&own) {
            Ok(metadata) if !metadata.is_dir() => {
                let source = io::Error::other("it is not a directory; remove it from the branch");
                Err(io_error("use", &own, source))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("read", &own, error)),
            _ => Ok(Self { config: path, own }),
        }
    }

    /// Makes `.sdp/` if it is absent. Before the first write.
    pub(crate) fn make(&self) -> Result<(), RouteError> {
        match fs::create_dir(&self.own) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_error("make", &self.own, error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.own.join("lock")
    }

    pub(crate) fn overrides(&self) -> PathBuf {
        self.own.join("overrides.json")
    }

    /// The table of routes per request.
    pub(crate) fn request_table(&self) -> PathBuf {
        self.own.join("routes.php")
    }

    /// The program that chooses from it.
    pub(crate) fn request_program(&self) -> PathBuf {
        self.own.join(REQUEST_PROGRAM)
    }

    pub(crate) fn defaults(&self) -> PathBuf {
        self.own.join("ocp-defaults.json")
    }

    /// Removes what a killed process left. Only under the lock.
    pub(crate) fn sweep(&self) -> Result<(), RouteError> {
        atomic::sweep(&self.own, Some(PROBE)).map_err(|error| io_error("clean", &self.own, error))?;
        let dir = self.config.parent().unwrap_or(&self.config);
        atomic::sweep(dir, None).map_err(|error| io_error("clean", dir, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_from_any_depth() {
        assert_eq!(program_from(Path::new("config.php")), "/.sdp/request.php");
        assert_eq!(program_from(Path::new("application/config/config.php")), "/../../.sdp/request.php");
    }
}
