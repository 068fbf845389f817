//! Errors, as `sdp.errors` raises them.

use pyo3::{exceptions::PyRuntimeError, prelude::*, sync::PyOnceLock};
use sdp_core::{ErrorCode, Problem, client::ClientError, problem::chain};
use serde::{Serialize, de::DeserializeOwned};

/// An error that Python has a class for, by its code.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    code: &'static str,
    status: Option<u16>,
    detail: String,
    cure: Option<String>,
    field: Option<String>,
    holder: Option<String>,
    retryable: bool,
    retry_after: Option<u64>,
}

impl Failure {
    /// Settings that cannot be used.
    pub(crate) fn settings(detail: impl Into<String>) -> Self {
        Self::own("invalid-settings", detail.into())
    }

    /// What cannot be used after a fork.
    pub(crate) fn forked(what: &str) -> Self {
        Self::own("broken", format!("{what} belongs to the process that this one was forked from; make another here"))
    }

    fn own(code: &'static str, detail: String) -> Self {
        Self { code, status: None, detail, cure: None, field: None, holder: None, retryable: false, retry_after: None }
    }

    /// The exception.
    pub(crate) fn into_err(self, py: Python<'_>) -> PyErr {
        let raised = self.exception(py);
        raised.map_or_else(|error| error, PyErr::from_value)
    }

    /// The exception, as an object.
    pub(crate) fn exception<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let text = serde_json::to_string(self).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        MAKE.import(py, "sdp.errors", "_from_native")?.call1((text,))
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self {
            code: problem.code.as_str(),
            status: Some(problem.status),
            detail: problem.detail,
            cure: None,
            field: problem.field,
            holder: problem.holder,
            retryable: problem.retryable,
            retry_after: problem.retry_after,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let (cure, retryable) = (error.cure(), error.is_transient());
        match error {
            ClientError::Refused(problem) => Self { cure, ..problem.into() },
            error => Self { cure, retryable, ..Self::own(error.code_str(), chain(&error)) },
        }
    }
}

/// Reads what Python sent; what breaks a rule is named by its field.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    let mut json = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let field = path.strip_prefix("body.").unwrap_or(&path).to_owned();
        // Without the place in the text, which nobody has seen.
        let detail = error.into_inner().to_string();
        let detail = detail.split(" at line ").next().unwrap_or_default();
        let problem = Problem::new(ErrorCode::InvalidInput, detail);
        if field == "." || field == "body" { problem.into() } else { problem.field(field).into() }
    })
}

/// What goes to Python.
pub(crate) fn write<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()).into())
}
