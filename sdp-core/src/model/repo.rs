//! A deployable repository, as an agent's configuration declares it.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    names::{BranchName, CommitId, EnvName, RepoName, ServiceName},
    units,
};

/// A repository and how its checkouts become running things.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepoSpec {
    /// The repo's name in SDP, in container names and in URLs.
    pub name: RepoName,
    /// The service it serves: the gateway's key is `<service>_url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The checkout of quick deploys; cloned from `remote` when absent.
    pub path: PathBuf,
    /// Where it is fetched from: `https://…`, `http://…`, `ssh://…` or `user@host:path`.
    pub remote: String,
    /// How a checkout becomes a running thing.
    pub recipe: RecipeKind,
    /// The container image; the recipe's own default when absent. Never pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What to build, for `recipe = "command"`, or instead of the recipe's own build: a program
    /// and its arguments, no shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Vec<String>>,
    /// What to run, for `recipe = "command"`, or instead of the recipe's own: a program and its
    /// arguments, no shell, inside the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Vec<String>>,
    /// For `recipe = "go"`: the package to build, relative to the checkout. Default `.`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// For `recipe = "php"`: the URL prefix it is served under. Default `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_prefix: Option<String>,
    /// For `recipe = "php"`: what a failure of `composer install` means.
    #[serde(default)]
    pub composer: ComposerMode,
    /// The port the program listens on inside its container.
    #[serde(default = "default_container_port")]
    pub container_port: u16,
    /// How the container reaches the network.
    #[serde(default)]
    pub network: NetworkMode,
    /// When it counts as healthy.
    #[serde(default)]
    pub health: HealthCheck,
    /// Environment variables of every deployment of it; a request's own win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<EnvName, String>,
    /// CPU and memory limits.
    #[serde(default)]
    pub limits: Limits,
    /// The longest a build may take. Default 15 minutes.
    #[serde(default = "default_build_timeout", with = "units::duration")]
    pub build_timeout: Duration,
}

impl RepoSpec {
    /// Where the builds of all of the repo's checkouts on this machine are: beside its object store,
    /// which they share too.
    pub fn builds(&self) -> PathBuf {
        self.path.join(".sdp").join("builds")
    }
}

fn default_container_port() -> u16 {
    8080
}

fn default_build_timeout() -> Duration {
    Duration::from_secs(15 * 60)
}

/// How a checkout becomes a running thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RecipeKind {
    /// `go build` on the host; the static binary runs in a small base image.
    Go,
    /// `composer install` on the host; the checkout is served by an Apache+PHP image.
    Php,
    /// Any build command, any run command, any image.
    Command,
}

impl RecipeKind {
    /// The image of the recipe when the repo names none; `command` has no default.
    pub fn default_image(self) -> Option<&'static str> {
        match self {
            Self::Go => Some("alpine:3.20"),
            Self::Php => Some("php:8.3-apache"),
            Self::Command => None,
        }
    }
}

/// What a failure of `composer install` means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComposerMode {
    /// A warning: the checkout may carry its dependencies.
    #[default]
    BestEffort,
    /// The build fails.
    Required,
    /// Composer is not run.
    Off,
}

/// How a container reaches the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// Its own address; the host port is published to the container's port.
    #[default]
    Bridge,
    /// The host's network: the program itself listens on the host port (environment `HOST` and
    /// `PORT`) and can reach what is published on the host's loopback address.
    Host,
}

/// CPU and memory limits of one instance. Absent means unlimited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// CPUs, `1.5` is one and a half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
}

/// When a started instance counts as healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "HealthCheckText", into = "HealthCheckText")]
pub struct HealthCheck {
    /// What is asked.
    pub probe: HealthProbe,
    /// The longest wait for the first good answer. Default 30 s.
    pub timeout: Duration,
    /// The pause between probes. Default 250 ms.
    pub interval: Duration,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self { probe: HealthProbe::Tcp, timeout: Duration::from_secs(30), interval: Duration::from_millis(250) }
    }
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthProbe {
    /// A GET of this path on the host port, answered with a status below 400.
    Http(String),
    /// A TCP connection to the host port that the program keeps open.
    Tcp,
    /// A command run inside the instance that exits with 0: a program and its arguments, no shell.
    Command(Vec<String>),
}

/// The written form of [`HealthCheck`]: `{ http = "/healthz", timeout = "30s" }`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthCheckText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    tcp: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    timeout: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    interval: Option<Duration>,
}

impl TryFrom<HealthCheckText> for HealthCheck {
    type Error = &'static str;

    fn try_from(text: HealthCheckText) -> Result<Self, Self::Error> {
        let default = Self::default();
        let probe = match (text.http, text.tcp, text.command) {
            (Some(path), false, None) if path.starts_with('/') => HealthProbe::Http(path),
            (Some(_), false, None) => return Err("the health check's `http` must be a path that starts with `/`"),
            (None, false, Some(command)) if !command.is_empty() => HealthProbe::Command(command),
            (None, _, None) => HealthProbe::Tcp,
            _ => return Err("a health check has one of `http`, `tcp = true` and a non-empty `command`"),
        };
        let interval = text.interval.unwrap_or(default.interval);
        if interval.is_zero() {
            return Err("the health check's `interval` must be longer than zero");
        }
        Ok(Self { probe, timeout: text.timeout.unwrap_or(default.timeout), interval })
    }
}

impl From<HealthCheck> for HealthCheckText {
    fn from(check: HealthCheck) -> Self {
        let mut text = Self { timeout: Some(check.timeout), interval: Some(check.interval), ..Self::default() };
        match check.probe {
            HealthProbe::Http(path) => text.http = Some(path),
            HealthProbe::Tcp => text.tcp = true,
            HealthProbe::Command(command) => text.command = Some(command),
        }
        text
    }
}

/// A branch as the remote has it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Branch {
    /// Its name.
    pub name: BranchName,
    /// The commit at its tip.
    pub commit: CommitId,
}

/// A prepared working tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkout {
    /// The directory of the working tree.
    pub path: PathBuf,
    /// The branch it is on.
    pub branch: BranchName,
    /// The exact commit.
    pub commit: CommitId,
    /// The git tree of that commit, which names the content for build caches.
    pub tree: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specs_example_repo_parses() {
        let spec: RepoSpec = toml::from_str(
            r#"
            name = "eredar"
            service = "eredar"
            path = "/srv/repos/eredar"
            remote = "https://bitbucket.example/scm/shop/eredar.git"
            recipe = "go"
            image = "alpine:3.20"
            container_port = 8080
            health = { http = "/healthz", timeout = "30s" }
            "#,
        )
        .unwrap();
        assert_eq!(spec.health.probe, HealthProbe::Http("/healthz".into()));
        assert_eq!(spec.health.timeout, Duration::from_secs(30));
        let again: RepoSpec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
    }

    #[test]
    fn contradictory_health_checks_are_refused() {
        for text in [
            r#"{"http": "healthz"}"#,
            r#"{"http": "/x", "tcp": true}"#,
            r#"{"command": []}"#,
            r#"{"interval": "0s"}"#,
            r#"{"timeout": "soon"}"#,
            r#"{"htpp": "/x"}"#,
        ] {
            assert!(serde_json::from_str::<HealthCheck>(text).is_err(), "{text}");
        }
    }
}
