#![doc = include_str!("../README.md")]

mod apache;
mod build;
mod command;
mod config;
mod docker;
mod docker_deployer;
mod lines;
mod marked;
mod network_pool;
mod output;
mod probe;
mod process;
mod process_deployer;
mod swarm_deployer;
#[cfg(feature = "testing")]
pub mod testing;

pub use config::{DockerConfig, KEEP_BUILDS, ProcessConfig, SwarmConfig};
pub use docker_deployer::DockerDeployer;
pub use network_pool::{InvalidNetworkPool, NetworkPool};
pub use process_deployer::ProcessDeployer;
pub use swarm_deployer::SwarmDeployer;
