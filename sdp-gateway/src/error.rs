//! From this crate's failures to [`RouteError`], which says what the caller can do.

use std::io;
use std::path::Path;

use sdp_core::model::names::ServiceName;
use sdp_core::{RepoError, RouteError};

use crate::lock::LockError;
use crate::php::{ConfigFile, PhpError};

/// An operation on `path` that the system refused. `action` is a verb.
pub(crate) fn io_error(action: &str, path: &Path, source: io::Error) -> RouteError {
    let action = match source.kind() {
        io::ErrorKind::PermissionDenied => format!("{action} (give the user SDP runs as write access)"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!("{action} (free some space on the disk)"),
        io::ErrorKind::ReadOnlyFilesystem => format!("{action} (mount its file system writable)"),
        _ => action.to_owned(),
    };
    RouteError::Io { action, path: path.to_owned(), source: source.into() }
}

pub(crate) fn lock_error(path: &Path, source: LockError) -> RouteError {
    match source {
        LockError::Io(source) => io_error("lock", path, source),
        held @ LockError::Held { .. } => {
            RouteError::Io { action: "lock".into(), path: path.to_owned(), source: held.into() }
        }
    }
}

pub(crate) fn repo_error(path: &Path, source: RepoError) -> RouteError {
    RouteError::Io { action: "read the commit of".into(), path: path.to_owned(), source: source.into() }
}

/// A failure of the PHP text `file` at `path`, told with what the file has instead.
pub(crate) fn php_error(path: &Path, file: Option<&ConfigFile>, error: PhpError) -> RouteError {
    let named = |service: &str| ServiceName::new(service).ok();
    let path_buf = || path.to_owned();
    match &error {
        PhpError::Absent { service } => match named(service) {
            Some(service) => RouteError::UnknownService { service, known: known(file) },
            None => RouteError::Invalid { path: path_buf(), line: 1, reason: error.to_string() },
        },
        PhpError::Duplicate { service, first, .. } => match named(service) {
            Some(name) => {
                let of_service = |file: &ConfigFile| {
                    file.entries().filter(|entry| entry.service() == service).map(|entry| entry.line()).collect()
                };
                RouteError::Duplicate {
                    service: name,
                    path: path_buf(),
                    lines: file.map(of_service).unwrap_or_default(),
                }
            }
            None => RouteError::Invalid { path: path_buf(), line: *first, reason: error.to_string() },
        },
        PhpError::Syntax { line, message } => RouteError::Invalid {
            path: path_buf(),
            line: *line,
            reason: format!("{message}; correct the PHP (`php -l` shows the same place)"),
        },
        PhpError::Unreplaceable { service, line, why } => RouteError::Invalid {
            path: path_buf(),
            line: *line,
            reason: format!("`{service}_url` cannot be replaced: {why}"),
        },
        PhpError::ConstantExpression { line, .. }
        | PhpError::ShortTag { line }
        | PhpError::TooDeep { line, .. }
        | PhpError::HeredocLabel { line } => {
            RouteError::Invalid { path: path_buf(), line: *line, reason: error.to_string() }
        }
        PhpError::TooLarge { .. } | PhpError::ParserFailed | PhpError::ReadBack { .. } => {
            RouteError::Invalid { path: path_buf(), line: 1, reason: error.to_string() }
        }
    }
}

/// The services of `file`, for people.
fn known(file: Option<&ConfigFile>) -> String {
    let mut services: Vec<&str> = file.into_iter().flat_map(ConfigFile::entries).map(|entry| entry.service()).collect();
    services.sort_unstable();
    services.dedup();
    if services.is_empty() { "none".into() } else { services.join(", ") }
}
