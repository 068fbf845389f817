//! The parts of the process deployer, one subject each.

pub(crate) mod exec;
pub(crate) mod journal;
pub(crate) mod output;
pub(crate) mod php;
pub(crate) mod system;
