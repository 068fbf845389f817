//! `sdp-agent.toml`: typed, checked, and every key overridable.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use sdp_core::{
    AgentName, PortRange, RecipeKind, RepoSpec, UserName,
    config::{ConfigError, Layers, read_secret},
};
use sdp_docker::{KEEP_BUILDS, NetworkPool};
use sdp_gateway::GatewayConfig;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use crate::link::TransportChoice;

/// The prefix of the environment variables that override keys: `SDP_AGENT__DATA_DIR`.
pub const ENV_PREFIX: &str = "SDP_AGENT";

/// The variable that holds the enrolment token, in place of `token_file`.
pub const TOKEN_ENV: &str = "SDP_AGENT__TOKEN";

/// An agent's configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The agent's name, the one its token was issued for.
    pub name: AgentName,
    /// Where the control plane is: `ws://…/ws/agent` or `wss://…`.
    pub server: Url,
    /// What carries the connection: `auto` takes a WebSocket, or plain HTTP where something in between
    /// breaks WebSockets; `websocket` and `http` take only that.
    #[serde(default)]
    pub transport: TransportChoice,
    /// A file that holds the enrolment token and nothing else.
    pub token_file: Option<PathBuf>,
    /// The enrolment token itself: never in the file, only from [`TOKEN_ENV`] or an embedder.
    #[serde(skip)]
    pub token: Option<SecretString>,
    /// Where the agent keeps what must survive it.
    pub data_dir: PathBuf,
    /// The host that routes to this agent's deployments use.
    pub advertise: String,
    /// How things are run.
    #[serde(default)]
    pub deployer: DeployerConfig,
    /// What can be deployed.
    #[serde(default)]
    pub repo: Vec<RepoSpec>,
    /// The gateway, on the gateway's VM.
    pub gateway: Option<GatewayConfig>,
    /// How repositories are reached.
    #[serde(default)]
    pub git: GitConfig,
}

/// `[deployer]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeployerConfig {
    /// Containers, processes on the host, or services of a swarm.
    pub kind: DeployerKind,
    /// The address that host ports are published on.
    pub publish: IpAddr,
    /// The container engine's socket; the engine's usual one when absent.
    pub socket: Option<PathBuf>,
    /// The ports to pick from when none is asked for.
    pub port_range: PortRange,
    /// How long what a deployment replaced serves on after the routes point elsewhere, where both can run
    /// at once.
    #[serde(with = "sdp_core::model::units::duration")]
    pub drain: Duration,
    /// The addresses that sandboxes' networks are made from, 32 for each.
    pub network_pool: NetworkPool,
    /// For `kind = "swarm"`: where services may run, as the swarm writes it, `node.labels.sdp==yes`.
    /// On this machine only when there are none.
    pub constraints: Vec<String>,
    /// Whether whoever may change a deployment here may also run commands in it.
    pub exec: bool,
    /// How long such a command may take.
    #[serde(with = "sdp_core::model::units::duration")]
    pub exec_timeout: Duration,
    /// How many deployments may build at once; as many as the machine has cores when absent.
    pub builds: Option<NonZeroUsize>,
    /// A deployment is refused when less than this, in MiB, is free on the disk of `data_dir`, of the worktrees or
    /// of its repo.
    pub min_free_mib: u64,
    /// How many builds of a repo that proved good are kept for going back to, besides those in use.
    pub keep_builds: usize,
}

impl DeployerConfig {
    /// How many deployments may build at once.
    pub fn builds(&self) -> NonZeroUsize {
        let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.builds.unwrap_or_else(cores)
    }
}

impl Default for DeployerConfig {
    fn default() -> Self {
        Self {
            kind: DeployerKind::Docker,
            publish: Ipv4Addr::LOCALHOST.into(),
            socket: None,
            port_range: PortRange(20_000..=29_999),
            drain: Duration::from_secs(10),
            network_pool: NetworkPool::default(),
            constraints: Vec::new(),
            exec: false,
            exec_timeout: Duration::from_secs(3600),
            builds: None,
            min_free_mib: 1024,
            keep_builds: KEEP_BUILDS,
        }
    }
}

/// How deployments run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeployerKind {
    /// In containers.
    Docker,
    /// As processes of the host.
    Process,
    /// As services of a Docker Swarm.
    Swarm,
}

/// `[git]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GitConfig {
    /// The private key for ssh remotes; the ssh agent when absent.
    pub ssh_key: Option<PathBuf>,
    /// The user for requests that bring no credentials.
    pub user: Option<UserName>,
    /// A file that holds that user's password and nothing else.
    pub password_file: Option<PathBuf>,
    /// Where sandboxes have their worktrees; `<data_dir>/worktrees` when absent.
    pub worktrees: Option<PathBuf>,
}

impl AgentConfig {
    /// Reads the layers and checks what only the keys together can tell. The enrolment token is
    /// taken out of `env` and shown in no error.
    ///
    /// # Errors
    /// [`ConfigError`] names file, line and key.
    ///
    /// ```
    /// use sdp_agent::AgentConfig;
    /// use sdp_core::config::Layers;
    /// let text = r#"
    ///     name = "micro-92"
    ///     server = "ws://127.0.0.1:3452/ws/agent"
    ///     token_file = "/etc/sdp/agent.token"
    ///     data_dir = "/var/lib/sdp-agent"
    /// "#;
    /// let env = vec![("SDP_AGENT__ADVERTISE".to_string(), "10.0.0.92".to_string())];
    /// let config = AgentConfig::load(Layers::new().file("sdp-agent.toml", text), env, &[])?;
    /// assert_eq!(config.advertise, "10.0.0.92");
    /// # Ok::<(), sdp_core::config::ConfigError>(())
    /// ```
    pub fn load(layers: Layers, env: Vec<(String, String)>, flags: &[(String, String)]) -> Result<Self, ConfigError> {
        let (token, env): (Vec<_>, Vec<_>) = env.into_iter().partition(|(name, _)| name == TOKEN_ENV);
        let layers = layers.env(ENV_PREFIX, env);
        let layers = flags.iter().fold(layers, |layers, (key, value)| layers.set(key, value));
        let mut config: Self = layers.load()?;
        config.token = token.into_iter().next().map(|(_, token)| token.trim().into());
        config.check()?;
        Ok(config)
    }

    /// Checks what only the keys together can tell.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the key.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !matches!(self.server.scheme(), "ws" | "wss") || !self.server.has_host() {
            return Err(invalid("server", "must be written as ws://host:port/ws/agent or wss://host/ws/agent"));
        }
        if !self.server.username().is_empty() || self.server.password().is_some() {
            return Err(invalid("server", "must not hold credentials: the token is what admits an agent"));
        }
        if self.token.is_none() && self.token_file.is_none() {
            let reason = format!(
                "is missing: name the file with the token that `sdp-server agent add {}` \
                prints, or set {TOKEN_ENV}",
                self.name
            );
            return Err(invalid("token_file", reason));
        }
        if Url::parse(&format!("http://{}:1/", self.advertise)).map(|url| url.path() != "/").unwrap_or(true) {
            return Err(invalid("advertise", "must be a host name or an IP address, without scheme or port"));
        }
        self.check_deployer()?;
        self.check_repos()?;
        self.check_gateway()?;
        match (&self.git.user, &self.git.password_file) {
            (Some(_), None) => Err(invalid("git.password_file", "is missing: `git.user` alone signs nobody in")),
            (None, Some(_)) => Err(invalid("git.user", "is missing: `git.password_file` needs the user's name")),
            _ => Ok(()),
        }
    }

    fn check_deployer(&self) -> Result<(), ConfigError> {
        let DeployerConfig { kind, publish, constraints, .. } = &self.deployer;
        if *kind != DeployerKind::Swarm {
            return match constraints.as_slice() {
                [] => Ok(()),
                _ => Err(invalid("deployer.constraints", "are a swarm's: leave them out, or set kind = \"swarm\"")),
            };
        }
        if !publish.is_unspecified() {
            let reason = format!(
                "is {publish}, but a swarm publishes on every address of the node that runs a service: \
                write \"0.0.0.0\" if that is meant, and keep others off with the node's firewall"
            );
            return Err(invalid("deployer.publish", reason));
        }
        let is_written_well = |constraint: &&String| constraint.contains("==") || constraint.contains("!=");
        match constraints.iter().find(|constraint| !is_written_well(constraint)) {
            None => Ok(()),
            Some(other) => {
                let reason =
                    format!("have {other:?}: write each like \"node.labels.sdp==yes\" or \"node.hostname!=db\"");
                Err(invalid("deployer.constraints", reason))
            }
        }
    }

    fn check_repos(&self) -> Result<(), ConfigError> {
        let (mut names, mut paths) = (BTreeMap::new(), BTreeMap::new());
        for (at, repo) in self.repo.iter().enumerate() {
            if let Some(first) = names.insert(&repo.name, at) {
                let reason = format!("is `{}`, as is that of repo[{first}]: every repo needs its own", repo.name);
                return Err(invalid(format!("repo[{at}].name"), reason));
            }
            if let Some(first) = paths.insert(&repo.path, &repo.name) {
                let reason = format!("is {}, as is that of `{first}`: every repo needs its own", repo.path.display());
                return Err(invalid(format!("repo[{at}].path"), reason));
            }
            if repo.container_port == 0 {
                return Err(invalid(format!("repo[{at}].container_port"), "must be a number from 1 to 65535"));
            }
            if repo.recipe == RecipeKind::Command {
                if repo.run.as_ref().is_none_or(Vec::is_empty) {
                    let reason =
                        format!("is missing: `{}` has the recipe `command`, which runs what it is told", repo.name);
                    return Err(invalid(format!("repo[{at}].run"), reason));
                }
                if repo.image.is_none() && self.deployer.kind != DeployerKind::Process {
                    let reason =
                        format!("is missing: `{}` has the recipe `command`, which has no default image", repo.name);
                    return Err(invalid(format!("repo[{at}].image"), reason));
                }
            }
        }
        Ok(())
    }

    fn check_gateway(&self) -> Result<(), ConfigError> {
        let Some(gateway) = &self.gateway else { return Ok(()) };
        if !self.repo.iter().any(|repo| repo.name == gateway.repo) {
            let reason = format!("is `{}`, which is no declared repo: add a [[repo]] of that name", gateway.repo);
            return Err(invalid("gateway.repo", reason));
        }
        if gateway.sandbox.is_some() {
            return Err(invalid("gateway.sandbox", "must be left out: an agent's gateway is the shared one"));
        }
        gateway.check().map_err(|error| ConfigError::Overridden(error.to_string()))
    }

    /// Where sandboxes have their worktrees.
    pub fn worktrees(&self) -> PathBuf {
        self.git.worktrees.clone().unwrap_or_else(|| self.data_dir.join("worktrees"))
    }

    /// The enrolment token.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] when its file cannot be read or is empty.
    pub fn read_token(&self) -> Result<SecretString, ConfigError> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(token.clone()),
            (None, Some(path)) => read_secret("token_file", path),
            (None, None) => Err(invalid("token_file", "is missing")),
        }
    }
}

fn invalid(key: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { key: key.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"
name = "micro-92"
server = "ws://127.0.0.1:3452/ws/agent"
token_file = "/etc/sdp/agent.token"
data_dir = "/var/lib/sdp-agent"
advertise = "127.0.0.1"          # the host that routes to this agent's deployments use

[deployer]
kind = "docker"                  # docker | process | swarm
publish = "127.0.0.1"            # address that host ports are published on

[[repo]]
name = "eredar"
service = "eredar"               # the gateway's key is eredar_url
path = "/srv/repos/eredar"       # cloned from remote if absent
remote = "https://bitbucket.example/scm/shop/eredar.git"
recipe = "go"
image = "alpine:3.20"
container_port = 8080
health = { http = "/healthz", timeout = "30s" }

[[repo]]
name = "erangel-ocean"
path = "/srv/repos/erangel-ocean"
remote = "https://bitbucket.example/scm/shop/erangel-ocean.git"
recipe = "php"

[gateway]                        # only on the gateway's VM
repo = "erangel-ocean"
config = "application/config/config.php"
"#;

    fn load(text: &str, env: &[(&str, &str)]) -> Result<AgentConfig, ConfigError> {
        let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        AgentConfig::load(Layers::new().file("sdp-agent.toml", text), env, &[])
    }

    #[test]
    fn the_specs_example_is_accepted_with_the_promised_defaults() {
        let config = load(SPEC, &[]).unwrap();
        assert_eq!(config.deployer.port_range.0, 20_000..=29_999);
        assert!(config.deployer.builds().get() >= 1);
        assert_eq!(config.deployer.min_free_mib, 1024);
        assert!(!config.deployer.exec, "only who says so lets people run commands");
        assert_eq!(config.gateway.as_ref().unwrap().repo.as_str(), "erangel-ocean");
        assert_eq!(config.worktrees(), PathBuf::from("/var/lib/sdp-agent/worktrees"));
    }

    #[test]
    fn variables_and_flags_override_the_file() {
        let env = vec![("SDP_AGENT__DEPLOYER__PORT_RANGE".into(), "100-200".into())];
        let flags = [("deployer.kind".into(), "process".into())];
        let config = AgentConfig::load(Layers::new().file("sdp-agent.toml", SPEC), env, &flags).unwrap();
        assert_eq!((config.deployer.port_range.0, config.deployer.kind), (100..=200, DeployerKind::Process));
    }

    #[test]
    fn the_token_comes_from_its_variable_and_is_never_shown() {
        let text = SPEC.replace("token_file", "#");
        let config = load(&text, &[(TOKEN_ENV, "12345678\n")]).unwrap();
        assert!(!format!("{config:?}").contains("12345678"));
        assert_eq!(secrecy::ExposeSecret::expose_secret(&config.read_token().unwrap()), "12345678");
        let error = load("", &[(TOKEN_ENV, "12345678"), ("SDP_AGENT__X", "1")]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("12345678"));
        assert!(load(&format!("token = 'x'\n{SPEC}"), &[]).unwrap_err().to_string().contains("token"));
    }

    #[test]
    fn what_only_the_keys_together_can_tell_is_refused_with_the_key() {
        let repo = |name: &str, path: &str, more: &str| {
            format!("[[repo]]\nname = '{name}'\npath = '{path}'\nremote = 'https://g/x.git'\n{more}\n")
        };
        let swarm = |more: &str| {
            SPEC.replace("\"docker\"", "\"swarm\"")
                .replace("publish = \"127.0.0.1\"", &format!("publish = '0.0.0.0'\n{more}\n"))
        };
        load(&swarm("constraints = ['node.labels.sdp==yes']"), &[]).unwrap();
        let end = SPEC.find("[gateway]").unwrap();
        let (head, gateway) = SPEC.split_at(end);
        for (text, key) in [
            (SPEC.replace("ws://127", "http://127"), "`server`"),
            (SPEC.replace("\"docker\"", "\"swarm\""), "`deployer.publish`"),
            (
                SPEC.replace("[[repo]]\nname = \"eredar\"", "constraints = ['a==b']\n[[repo]]\nname = \"eredar\""),
                "`deployer.constraints`",
            ),
            (swarm("constraints = ['here']"), "`deployer.constraints`"),
            (SPEC.replace("ws://127", "ws://u:p@127"), "`server`"),
            (SPEC.replace("token_file = ", "#"), "`token_file`"),
            (SPEC.replace("advertise = \"127.0.0.1\"", "advertise = \"http://x:1/\""), "`advertise`"),
            (format!("{head}{}{gateway}", repo("eredar", "/x", "recipe = 'go'")), "`repo[2].name`"),
            (format!("{head}{}{gateway}", repo("x", "/srv/repos/eredar", "recipe = 'go'")), "`repo[2].path`"),
            (format!("{head}{}{gateway}", repo("x", "/x", "recipe = 'command'\nimage = 'i'")), "`repo[2].run`"),
            (format!("{head}{}{gateway}", repo("x", "/x", "recipe = 'command'\nrun = ['r']")), "`repo[2].image`"),
            (SPEC.replace("repo = \"erangel-ocean\"", "repo = \"other\""), "`gateway.repo`"),
            (format!("{SPEC}sandbox = 'pay'\n"), "`gateway.sandbox`"),
            (SPEC.replace("\"application/", "\"../"), "the configuration is not valid: `gateway.config`"),
            (format!("{SPEC}[git]\nuser = 'ci'\n"), "`git.password_file`"),
        ] {
            let error = load(&text, &[]).unwrap_err().to_string();
            assert!(error.starts_with(key), "{key}: {error}");
        }
    }

    #[test]
    fn unknown_keys_and_bad_values_are_told_with_their_line() {
        let error = load(&SPEC.replace("publish", "publsih"), &[]).unwrap_err().to_string();
        assert!(error.starts_with("sdp-agent.toml:10:") && error.contains("publsih"), "{error}");
        let error = load(&SPEC.replace("publish = \"127.0.0.1\"", "port_range = '9-1'"), &[]).unwrap_err().to_string();
        assert!(error.contains("20000-29999"), "{error}");
        let error = load(&SPEC.replace("publish = \"127.0.0.1\"", "network_pool = '10.0.0.1/8'"), &[]).unwrap_err();
        assert!(error.to_string().contains("10.231.0.0/19"), "{error}");
    }

    #[test]
    fn a_token_file_that_is_missing_or_empty_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let mut config = load(SPEC, &[]).unwrap();
        config.token_file = Some(path.clone());
        assert!(config.read_token().unwrap_err().to_string().contains("cannot be read"));
        std::fs::write(&path, "\n").unwrap();
        assert!(config.read_token().unwrap_err().to_string().contains("is empty"));
        std::fs::write(&path, "t0ken\n").unwrap();
        assert_eq!(secrecy::ExposeSecret::expose_secret(&config.read_token().unwrap()), "t0ken");
    }
}
