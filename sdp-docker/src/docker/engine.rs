//! Talking to the engine: its errors told as ours.

use std::path::Path;

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error};
use sdp_core::DeployError;

/// How long the engine may take to answer, in seconds.
const ENGINE_TIMEOUT_SECONDS: u64 = 120;

/// Connects and agrees on an API version: engines of Debian 12 speak 1.41.
pub(crate) async fn connect(socket: &Path) -> Result<Docker, DeployError> {
    let path = socket.to_string_lossy();
    let docker = Docker::connect_with_unix(&path, ENGINE_TIMEOUT_SECONDS, API_DEFAULT_VERSION);
    docker.map_err(failed("be reached"))?.negotiate_version().await.map_err(failed("tell its version"))
}

/// For `map_err`: the engine failed to do this.
pub(crate) fn failed(action: &str) -> impl Fn(Error) -> DeployError + '_ {
    move |source| DeployError::Engine { action: action.to_owned(), source: source.into() }
}

/// Whether the engine said that there is no such thing.
pub(crate) fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

/// Whether the engine could not publish a port because somebody has it.
pub(crate) fn is_port_taken(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { message, .. }
        if message.contains("address already in use") || message.contains("port is already allocated"))
}

/// Takes "no such container", "already stopped" and "being removed already" for success.
pub(crate) fn unless_gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::DockerResponseServerError { status_code: 304 | 404, .. }) => Ok(()),
        Err(Error::DockerResponseServerError { status_code: 409, message }) if message.contains("in progress") => {
            Ok(())
        }
        result => result,
    }
}
