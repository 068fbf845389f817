//! The parts of the deployers on a Docker engine, one subject each.

pub(crate) mod container;
mod containers;
pub(crate) mod engine;
pub(crate) mod found;
pub(crate) mod labels;
pub(crate) mod networks;
mod output;
