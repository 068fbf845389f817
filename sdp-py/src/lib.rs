//! The native half of the Python package `sdp`, the module `sdp._sdp`. It is private and narrow: what crosses is JSON, which
//! the Python half turns into objects. The Python half is in `python/sdp`, and says what all of this is for.

mod calls;
mod client;
mod doubles;
mod error;
mod pipeline;
mod platform;
mod process;
mod request;
mod runtime;
mod stream;
mod task;

use pyo3::prelude::*;

/// The module.
#[pymodule]
mod _sdp {
    use pyo3::prelude::*;
    use sdp_core::{ErrorCode, client::ClientError};

    #[pymodule_export]
    use super::{
        client::Client,
        doubles::{GitHost, MemoryDeployer, MemoryRepos, MemoryRoutes},
        pipeline::Pipeline,
        platform::Platform,
        stream::Stream,
        task::Task,
    };

    /// Every code of the server's errors: name, HTTP status, title.
    #[pyfunction]
    fn server_codes() -> Vec<(&'static str, u16, &'static str)> {
        ErrorCode::ALL.iter().map(|code| (code.as_str(), code.status(), code.title())).collect()
    }

    /// Every code of the client's own errors.
    #[pyfunction]
    fn client_codes() -> Vec<&'static str> {
        ClientError::OWN_CODES.to_vec()
    }

    /// Called when the interpreter begins to end.
    #[pyfunction]
    fn close(py: Python<'_>) {
        crate::runtime::close(py);
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.py().import("atexit")?.call_method1("register", (module.getattr("close")?,)).map(drop)
    }
}
