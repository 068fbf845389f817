//! How a gateway is configured: the `[gateway]` section of an agent's file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Component, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sdp_core::model::ids::InstanceKey;
use sdp_core::model::names::{RepoName, SandboxName};
use sdp_core::model::units;
use sdp_core::{Deployer, HostPort};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::reload::{DeployerReload, NoReload, PidFileReload, Reload};

/// A PHP gateway, whose configuration is read in every request, as Apache's mod_php and PHP-FPM do: which repo it is, where its configuration lies, how it reloads and how it is asked what it uses.
///
/// ```
/// let config: sdp_gateway::GatewayConfig = toml::from_str(r#"
///     repo = "erangel-ocean"
///     config = "application/config/config.php"
///     url = "http://127.0.0.1:8080/erangel/"
///     lint = ["php", "-l"]
/// "#)?;
/// config.check()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// The gateway's repo.
    pub repo: RepoName,
    /// The sandbox whose own gateway this is; none for the shared one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxName>,
    /// The PHP file with the routes, relative to the checkout.
    pub config: PathBuf,
    /// Where the gateway serves the checkout's root, as this machine reaches it: after each change the gateway itself
    /// is asked what it uses. Absent, it is `http://<host>:<port><url_prefix>/` with the port on which the deployer
    /// runs the gateway and the repo's `url_prefix`; where nobody knows the port, the file alone is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Url>,
    /// The address on which the deployer publishes the gateway's port, where `url` is absent. Default 127.0.0.1.
    #[serde(default = "default_host")]
    pub host: IpAddr,
    /// How the gateway is made to read its file again, where it does not know a change by itself.
    #[serde(default)]
    pub reload: ReloadConfig,
    /// Whether a request that carries a sandbox's key sees that sandbox's services, while all others see what is set
    /// for everybody. It takes PHP 7.0 or newer. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub per_request: bool,
    /// A program and its arguments that judge PHP on standard input and exit with 0 if it is sound, for example
    /// `["php", "-l"]` or `["docker", "exec", "-i", "sdp-erangel-ocean", "php", "-l"]`. Run before a change is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lint: Option<Vec<String>>,
    /// The longest wait for another process that is changing the routes. Default 30 s.
    #[serde(default = "default_lock_timeout", with = "units::duration")]
    pub lock_timeout: Duration,
    /// The longest wait for the gateway to use what was written, after its reload. Default 5 s.
    #[serde(default = "default_settle_timeout", with = "units::duration")]
    pub settle_timeout: Duration,
}

fn default_host() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}

fn default_lock_timeout() -> Duration {
    Duration::from_secs(30)
}

fn default_settle_timeout() -> Duration {
    Duration::from_secs(5)
}

/// How the gateway is made to read its file again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReloadConfig {
    /// It runs as an instance of the agent's deployer, which reloads it.
    #[default]
    Deployer,
    /// It runs on its own: SIGUSR1, Apache's graceful restart, goes to the process of a pid file.
    PidFile {
        /// The pid file, absolute.
        path: PathBuf,
        /// The process's name, as `/proc/<pid>/comm` has it; a pid that belongs to another program is left alone.
        program: String,
    },
    /// It reads its file on every request.
    None,
}

/// Why a [`GatewayConfig`] cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The path of the PHP file leaves the checkout.
    #[error("`gateway.config` is {}; write a path relative to the checkout, without `..`", .path.display())]
    Path {
        /// The path as given.
        path: PathBuf,
    },
    /// The gateway's own address is not plain HTTP.
    #[error("`gateway.url` is {url}; write http://host:port/path/, as this machine reaches the gateway")]
    Url {
        /// The URL as given.
        url: Url,
    },
    /// The lint command is empty.
    #[error("`gateway.lint` is empty; write a program and its arguments, or leave it out")]
    Lint,
    /// The pid file's path is relative.
    #[error("`gateway.reload` names the pid file {}; write an absolute path", .path.display())]
    PidFile {
        /// The path as given.
        path: PathBuf,
    },
}

impl GatewayConfig {
    /// The configuration of the shared gateway of `repo`, everything else at its default.
    pub fn new(repo: RepoName, config: impl Into<PathBuf>) -> Self {
        Self {
            repo,
            sandbox: None,
            config: config.into(),
            url: None,
            host: default_host(),
            reload: ReloadConfig::default(),
            per_request: false,
            lint: None,
            lock_timeout: default_lock_timeout(),
            settle_timeout: default_settle_timeout(),
        }
    }

    /// The gateway's instance: its checkout and what runs of it.
    pub fn key(&self) -> InstanceKey {
        match &self.sandbox {
            Some(sandbox) => InstanceKey::in_sandbox(sandbox.clone(), self.repo.clone()),
            None => InstanceKey::quick(self.repo.clone()),
        }
    }

    /// Where the gateway serves the checkout's root, if it answers on `port` of this machine.
    pub(crate) fn url_on(&self, port: HostPort, prefix: &str) -> Option<Url> {
        let address = SocketAddr::new(self.host, port.get());
        Url::parse(&format!("http://{address}/")).and_then(|url| url.join(prefix)).ok()
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and what to write.
    pub fn check(&self) -> Result<(), ConfigError> {
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if self.config.file_name().is_none() || !self.config.components().all(plain) {
            return Err(ConfigError::Path { path: self.config.clone() });
        }
        if let Some(url) = self.url.as_ref().filter(|url| url.scheme() != "http" || !url.has_host()) {
            return Err(ConfigError::Url { url: url.clone() });
        }
        if self.lint.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConfigError::Lint);
        }
        match &self.reload {
            ReloadConfig::PidFile { path, .. } if !path.is_absolute() => {
                Err(ConfigError::PidFile { path: path.clone() })
            }
            _ => Ok(()),
        }
    }

    /// What reloads the gateway, as [`GatewayConfig::reload`] says.
    pub fn reloader(&self, deployer: Arc<dyn Deployer>) -> Arc<dyn Reload> {
        match &self.reload {
            ReloadConfig::Deployer => Arc::new(DeployerReload::new(deployer, self.key())),
            ReloadConfig::PidFile { path, program } => Arc::new(PidFileReload::new(path, program)),
            ReloadConfig::None => Arc::new(NoReload),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> GatewayConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_specs_section_is_enough() {
        let config = parse("repo = \"erangel-ocean\"\nconfig = \"application/config/config.php\"");
        assert_eq!(
            config,
            GatewayConfig::new(RepoName::new("erangel-ocean").unwrap(), "application/config/config.php")
        );
        config.check().unwrap();
    }

    #[test]
    fn every_way_to_reload_can_be_written() {
        for (text, reload) in [
            ("\"none\"", ReloadConfig::None),
            ("\"deployer\"", ReloadConfig::Deployer),
            (
                "{ pid-file = { path = \"/run/apache2.pid\", program = \"apache2\" } }",
                ReloadConfig::PidFile { path: "/run/apache2.pid".into(), program: "apache2".into() },
            ),
        ] {
            let config = parse(&format!("repo = \"gw\"\nconfig = \"c.php\"\nreload = {text}"));
            assert_eq!(config.reload, reload);
            config.check().unwrap();
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let ok = || GatewayConfig::new(RepoName::new("gw").unwrap(), "config.php");
        for path in ["/etc/passwd", "../config.php", "a/../../b.php", "", "."] {
            let error = GatewayConfig { config: path.into(), ..ok() }.check().unwrap_err();
            assert!(matches!(error, ConfigError::Path { .. }), "{path}");
        }
        let url = Url::parse("https://gateway/").ok();
        assert!(matches!(GatewayConfig { url, ..ok() }.check(), Err(ConfigError::Url { .. })));
        assert!(matches!(GatewayConfig { lint: Some(vec![]), ..ok() }.check(), Err(ConfigError::Lint)));
        assert!(toml::from_str::<GatewayConfig>("repo = \"gw\"\nconfig = \"c\"\nconfg = 1").is_err());
    }
}
