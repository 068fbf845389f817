//! The parts of the Docker deployer, one subject each.

pub(crate) mod container;
pub(crate) mod engine;
pub(crate) mod labels;
pub(crate) mod output;
