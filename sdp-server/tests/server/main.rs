//! A control plane on a real socket, with agents that do what the test's script says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agents;
mod daemon;
mod deployments;
mod environments;
mod http;
mod leftovers;
mod lifecycle;
mod model;
mod plain_http;
mod recovery;
mod rollback;
mod routes;
mod sleep;
mod streams;
mod support;
mod templates;
