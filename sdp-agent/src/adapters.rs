//! The real parts, from the configuration.

use std::{net::IpAddr, sync::Arc};

use sdp_core::{
    Credentials, Deployer, OwnGateways, RepoSource, RouteError, RouteStore, SandboxName, config::read_secret,
};
use sdp_docker::{DockerConfig, DockerDeployer, ProcessConfig, ProcessDeployer, SwarmConfig, SwarmDeployer};
use sdp_gateway::{GatewayConfig, PhpRoutes, ReloadConfig};
use sdp_git::{GitConfig, GitRepos};

use crate::{
    agent::{Agent, Parts},
    config::{AgentConfig, DeployerKind},
    error::AgentError,
};

impl Agent {
    /// Starts an agent on the parts that the configuration names.
    ///
    /// # Errors
    /// [`AgentError`] says which part cannot be had, and why.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub async fn start(config: AgentConfig) -> Result<Self, AgentError> {
        config.check()?;
        let parts = Parts::real(&config).await?;
        Self::start_with(config, parts)
    }
}

impl Parts {
    /// The parts that the configuration names, and the usual times; a caller may change some before
    /// [`Agent::start_with`].
    ///
    /// # Errors
    /// [`AgentError`] says which part cannot be had, and why.
    pub async fn real(config: &AgentConfig) -> Result<Self, AgentError> {
        let credentials = credentials(config)?;
        let mut git = GitConfig::new(config.repo.clone(), config.worktrees());
        git.ssh_key = config.git.ssh_key.clone();
        git.credentials = credentials.clone();
        let source: Arc<dyn RepoSource> = Arc::new(GitRepos::new(git).map_err(part("git repositories"))?);
        let deployer = deployer(config).await?;
        let mut parts = Self::new(Arc::clone(&source), Arc::clone(&deployer));
        parts.secrets.extend(credentials.map(|credentials| credentials.expose_password().into()));
        if let Some(gateway) = &config.gateway {
            let mut gateway = gateway.clone();
            gateway.host = reachable(config.deployer.publish);
            let reload = gateway.reloader(Arc::clone(&deployer));
            let shared = PhpRoutes::new(gateway.clone(), Arc::clone(&source), reload).map_err(part("gateway"))?;
            parts = parts.routes(Arc::new(shared)).own_gateways(Arc::new(OwnPhpGateways { gateway, source, deployer }));
        }
        Ok(parts)
    }
}

/// Gateways that sandboxes deploy from branches of the shared one's repo.
#[derive(Debug)]
struct OwnPhpGateways {
    gateway: GatewayConfig,
    source: Arc<dyn RepoSource>,
    deployer: Arc<dyn Deployer>,
}

impl OwnGateways for OwnPhpGateways {
    fn routes_of(&self, sandbox: &SandboxName) -> Result<Arc<dyn RouteStore>, RouteError> {
        let gateway = GatewayConfig {
            sandbox: Some(sandbox.clone()),
            // What is said of the shared gateway: where it answers, how it reloads, who shares it.
            url: None,
            reload: ReloadConfig::Deployer,
            per_request: false,
            ..self.gateway.clone()
        };
        let reload = gateway.reloader(Arc::clone(&self.deployer));
        let path = gateway.config.clone();
        let routes = PhpRoutes::new(gateway, Arc::clone(&self.source), reload);
        let routes = routes.map_err(|error| RouteError::Io { action: "open".into(), path, source: error.into() })?;
        Ok(Arc::new(routes))
    }
}

fn credentials(config: &AgentConfig) -> Result<Option<Credentials>, AgentError> {
    let (Some(user), Some(path)) = (&config.git.user, &config.git.password_file) else { return Ok(None) };
    let password = read_secret("git.password_file", path)?;
    Ok(Some(Credentials::new(user.clone(), password)))
}

/// The address at which this machine reaches what it publishes on `publish`.
fn reachable(publish: IpAddr) -> IpAddr {
    match publish {
        IpAddr::V4(any) if any.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        publish => publish,
    }
}

fn part<E: std::error::Error + Send + Sync + 'static>(part: &'static str) -> impl FnOnce(E) -> AgentError {
    move |source| AgentError::Part { part, source: source.into() }
}

/// How the engine is used.
pub(crate) fn docker(config: &AgentConfig) -> DockerConfig {
    let mut docker = DockerConfig::new(config.name.as_str());
    docker.publish = config.deployer.publish;
    docker.network_pool = config.deployer.network_pool;
    docker.keep_builds = config.deployer.keep_builds;
    if let Some(socket) = &config.deployer.socket {
        docker.socket = socket.clone();
    }
    docker
}

/// How the swarm is used.
pub(crate) fn swarm(config: &AgentConfig) -> SwarmConfig {
    let mut swarm = SwarmConfig::new(config.name.as_str());
    swarm.constraints = config.deployer.constraints.clone();
    swarm.keep_builds = config.deployer.keep_builds;
    if let Some(socket) = &config.deployer.socket {
        swarm.socket = socket.clone();
    }
    swarm
}

async fn deployer(config: &AgentConfig) -> Result<Arc<dyn Deployer>, AgentError> {
    match config.deployer.kind {
        DeployerKind::Docker => {
            Ok(Arc::new(DockerDeployer::connect(docker(config)).await.map_err(part("container engine"))?))
        }
        DeployerKind::Swarm => Ok(Arc::new(SwarmDeployer::connect(swarm(config)).await.map_err(part("swarm"))?)),
        DeployerKind::Process => {
            let mut process = ProcessConfig::new(config.data_dir.join("processes"));
            process.publish = config.deployer.publish;
            process.keep_builds = config.deployer.keep_builds;
            Ok(Arc::new(ProcessDeployer::new(process).map_err(part("process deployer"))?))
        }
    }
}
