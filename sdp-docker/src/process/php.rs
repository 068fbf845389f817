//! Serving a PHP checkout with PHP's own server.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use sdp_core::DeployJob;

use crate::{apache, build::own_folder};

/// Serves files below a prefix as Apache with an alias and a front controller does.
const ROUTER: &str = include_str!("router.php");

/// Writes the router and answers the command that serves the checkout.
pub(crate) fn command(job: &DeployJob, address: SocketAddr) -> io::Result<Vec<String>> {
    let folder = own_folder(&job.checkout.path);
    fs::create_dir_all(&folder)?;
    let router = folder.join("router.php");
    let partial = folder.join("router.php.partial");
    fs::write(&partial, ROUTER)?;
    fs::rename(partial, &router)?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Ok(vec!["php".into(), "-S".into(), address.to_string(), "-t".into(), text(&job.checkout.path), text(&router)])
}

/// The variables that the router reads.
pub(crate) fn env(job: &DeployJob) -> [(String, String); 3] {
    let root: PathBuf = job.checkout.path.clone();
    [
        ("SDP_PREFIX".into(), apache::prefix(job)),
        ("SDP_ROOT".into(), root.to_string_lossy().into_owned()),
        // A gateway that calls itself needs a second worker.
        ("PHP_CLI_SERVER_WORKERS".into(), "4".into()),
    ]
}
