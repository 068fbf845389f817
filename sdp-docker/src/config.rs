//! What the deployers are made from.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use crate::NetworkPool;

/// How many good builds of a repo are kept, unless configured otherwise.
pub const KEEP_BUILDS: usize = 10;

/// How a [`DockerDeployer`](crate::DockerDeployer) uses the engine.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// Marks the containers of this deployer: two agents on one engine leave each other's alone.
    pub owner: String,
    /// The engine's socket. Default `/var/run/docker.sock`.
    pub socket: PathBuf,
    /// The address that host ports are published on. Default 127.0.0.1.
    pub publish: IpAddr,
    /// How long a program may take to end after SIGTERM. Default 10 s.
    pub stop_timeout: Duration,
    /// How long an engine that is away, as during its restart, is waited for. Default 20 s.
    pub patience: Duration,
    /// The addresses that sandboxes' networks are made from. Default `10.231.0.0/19`.
    pub network_pool: NetworkPool,
    /// How many builds of a repo that proved good are kept for going back to, besides those in use.
    /// Default 10.
    pub keep_builds: usize,
}

impl DockerConfig {
    /// The defaults, for containers marked with `owner`.
    pub fn new(owner: impl Into<String>) -> Self {
        Self {
            owner: owner.into(),
            socket: "/var/run/docker.sock".into(),
            publish: Ipv4Addr::LOCALHOST.into(),
            stop_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(20),
            network_pool: NetworkPool::default(),
            keep_builds: KEEP_BUILDS,
        }
    }
}

/// How a [`SwarmDeployer`](crate::SwarmDeployer) uses its swarm.
#[derive(Debug, Clone)]
pub struct SwarmConfig {
    /// Marks the services of this deployer: two agents on one swarm leave each other's alone.
    pub owner: String,
    /// The socket of the engine, which is a manager of the swarm. Default `/var/run/docker.sock`.
    pub socket: PathBuf,
    /// Where services may run, as the swarm writes it: `node.labels.sdp==yes`. None: on this machine
    /// only, where the checkouts are. All else needs the checkouts shared under the same path.
    pub constraints: Vec<String>,
    /// How long a program may take to end after SIGTERM. Default 10 s.
    pub stop_timeout: Duration,
    /// How long an engine that is away, as during its restart, is waited for. Default 20 s.
    pub patience: Duration,
    /// How many builds of a repo that proved good are kept for going back to, besides those in use.
    /// Default 10.
    pub keep_builds: usize,
}

impl SwarmConfig {
    /// The defaults, for services marked with `owner`.
    pub fn new(owner: impl Into<String>) -> Self {
        let docker = DockerConfig::new(owner);
        Self {
            owner: docker.owner,
            socket: docker.socket,
            constraints: Vec::new(),
            stop_timeout: docker.stop_timeout,
            patience: docker.patience,
            keep_builds: docker.keep_builds,
        }
    }
}

/// How a [`ProcessDeployer`](crate::ProcessDeployer) runs programs.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// Where its journal and the programs' output are kept.
    pub dir: PathBuf,
    /// The address that programs are told to listen on, and are probed at. Default 127.0.0.1.
    pub publish: IpAddr,
    /// How long a program may take to end after SIGTERM. Default 5 s.
    pub stop_timeout: Duration,
    /// How many builds of a repo that proved good are kept for going back to, besides those in use.
    /// Default 10.
    pub keep_builds: usize,
}

impl ProcessConfig {
    /// The defaults, with its files in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            publish: Ipv4Addr::LOCALHOST.into(),
            stop_timeout: Duration::from_secs(5),
            keep_builds: KEEP_BUILDS,
        }
    }
}
