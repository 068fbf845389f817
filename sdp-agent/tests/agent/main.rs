//! The whole agent on doubles, against a scripted control plane.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

mod limits;
mod link;
mod real;
mod recovery;
mod support;
mod work;
