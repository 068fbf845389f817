//! In-memory doubles of the four traits, and the suites that show an implementation correct.
//!
//! The doubles are public types for embedders' tests and for programs that run without git, Docker
//! or a gateway. A new backend is correct when its trait's suite in [`conformance`] passes.

mod clock;
mod config_keys;
pub mod conformance;
mod deployer;
mod disks;
pub mod privacy;
mod repos;
mod routes;
mod sinks;

pub use clock::ManualClock;
pub use config_keys::config_keys;
pub use deployer::{Behaviour, MemoryDeployer, Ran};
pub use disks::ForgetfulDisk;
pub use repos::MemoryRepos;
pub use routes::MemoryRoutes;
pub use sinks::{ChannelSink, MemorySink};
