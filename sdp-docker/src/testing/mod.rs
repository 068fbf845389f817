//! Engines of a test's own, for what nobody may do to the engine that everybody shares: restart it,
//! make a swarm of it, fill its networks.

mod cgroups;
mod private_engine;

pub use private_engine::{PrivateEngine, Stop};
