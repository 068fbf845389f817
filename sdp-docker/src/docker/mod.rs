//! The parts of the deployers on a Docker engine, one subject each.

pub(crate) mod container;
mod containers;
mod ending;
pub(crate) mod engine;
mod exec;
pub(crate) mod found;
pub(crate) mod labels;
pub(crate) mod networks;
pub(crate) mod outages;
pub(crate) mod output;
pub(crate) mod program;
pub(crate) mod service;
pub(crate) mod services;

/// The pause between two looks at what the engine is doing.
pub(crate) const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(100);
