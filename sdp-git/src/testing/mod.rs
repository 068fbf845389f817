//! A real git host for tests and demonstrations.

mod cgi;
mod git_host;

pub use git_host::{GitHost, HostError, Mood};
