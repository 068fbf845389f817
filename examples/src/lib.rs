#![doc = include_str!("../README.md")]

pub mod api;
pub mod canaries;
pub mod content;
mod control;
mod daemon;
pub mod hostile;
pub mod judge;
pub mod leftovers;
pub mod load;
pub mod middlebox;
pub mod playground;
pub mod ports;
pub mod pull_requests;
pub mod stable;
pub mod story;
pub mod torture;
pub mod traces;
pub mod wait;

/// What went wrong, in a sentence for the person who ran the example.
#[derive(Debug)]
pub struct Failed(pub String);

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(sdp_core::problem::chain(&error))
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
