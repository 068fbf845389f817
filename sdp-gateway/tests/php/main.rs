//! The lossless patch, judged by the real PHP.
#![expect(clippy::disallowed_methods, reason = "tests arrange files")]

mod judge;
mod patch;
mod properties;
