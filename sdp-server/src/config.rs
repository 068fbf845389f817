//! `sdp-server.toml`: typed, checked, and every key overridable.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use sdp_core::{
    AgentName, IntegrationName, Role, UserName,
    config::{ConfigError, Layers},
};
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use crate::{
    auth::Network,
    bitbucket::{self, BitbucketConfig},
    traces::TracesConfig,
    webhooks::WebhookConfig,
};

/// The prefix of the environment variables that override keys: `SDP_SERVER__LISTEN`.
pub const ENV_PREFIX: &str = "SDP_SERVER";

/// The control plane's configuration. Every key has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// The address to serve on.
    pub listen: SocketAddr,
    /// Holds `sdp.db` and `logs/`. One server owns it.
    pub data_dir: PathBuf,
    /// The agent that checks sign-ins; none takes a connected one, with a gateway if there is one.
    pub auth_agent: Option<AgentName>,
    /// The agent whose gateway the routes are of; needed where several have one.
    pub gateway_agent: Option<AgentName>,
    /// Origins of other sites whose pages may use the API with a signed-in browser.
    pub allowed_origins: Vec<String>,
    /// Proxies in front of this server, by address or network, whose `X-Forwarded-For` is believed: sign-in attempts
    /// are then counted by, and the audit tells, the address that a person has.
    pub trusted_proxies: Vec<Network>,
    /// How long a sandbox lives unless its maker says otherwise.
    #[serde(with = "sdp_core::model::units::duration")]
    pub sandbox_lifetime: Duration,
    /// What becomes of sandboxes.
    pub sandboxes: SandboxesConfig,
    /// Who may do what.
    pub auth: AuthConfig,
    /// Sign-in sessions.
    pub session: SessionConfig,
    /// Sign-in attempts.
    pub login: LoginConfig,
    /// The agents' connections.
    pub agents: AgentsConfig,
    /// Deployments' logs.
    pub logs: LogsConfig,
    /// Encrypted connections; plain ones when absent.
    pub tls: Option<TlsConfig>,
    /// Traces of deployments; none when absent.
    pub traces: Option<TracesConfig>,
    /// How many connections there are at most at once; more wait. Each agent, stream and browser has some.
    pub connections: usize,
    /// What `/ws/events` tells.
    pub events: EventsConfig,
    /// The address at which people open this server, for links to it; `http://<listen>` when absent. A path in it is
    /// the dashboard's, behind a proxy that takes it off.
    pub public_url: Option<Url>,
    /// Bitbuckets whose pull requests have sandboxes.
    pub bitbucket: Vec<BitbucketConfig>,
    /// Who is told of what happens.
    pub webhook: Vec<WebhookConfig>,
    /// What is sent to others.
    pub deliveries: DeliveriesConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3452)),
            data_dir: "/var/lib/sdp-server".into(),
            auth_agent: None,
            gateway_agent: None,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            sandbox_lifetime: Duration::from_secs(7 * 86_400),
            sandboxes: SandboxesConfig::default(),
            auth: AuthConfig::default(),
            session: SessionConfig::default(),
            login: LoginConfig::default(),
            agents: AgentsConfig::default(),
            logs: LogsConfig::default(),
            tls: None,
            traces: None,
            connections: 20_000,
            events: EventsConfig::default(),
            public_url: None,
            bitbucket: Vec::new(),
            webhook: Vec::new(),
            deliveries: DeliveriesConfig::default(),
        }
    }
}

/// `[deliveries]`: what is sent to others, and what is done for them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveriesConfig {
    /// How long an answer is waited for.
    #[serde(with = "sdp_core::model::units::duration")]
    pub timeout: Duration,
    /// The first pause after a failure; each is twice as long as the one before.
    #[serde(with = "sdp_core::model::units::duration")]
    pub first: Duration,
    /// The longest pause.
    #[serde(with = "sdp_core::model::units::duration")]
    pub longest: Duration,
    /// After how long it is given up.
    #[serde(with = "sdp_core::model::units::duration")]
    pub give_up: Duration,
    /// How long before its end a sandbox is told of as expiring; no more than a quarter of its life.
    #[serde(with = "sdp_core::model::units::duration")]
    pub expiring: Duration,
}

impl Default for DeliveriesConfig {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            timeout: seconds(15),
            first: seconds(1),
            longest: seconds(300),
            give_up: seconds(86_400),
            expiring: seconds(86_400),
        }
    }
}

/// `[auth]`: who may do what.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// The git users who are admins, whatever else is said of them.
    pub admins: BTreeSet<UserName>,
    /// The role of everybody else, until an admin gives them another.
    pub default_role: Role,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self { admins: BTreeSet::new(), default_role: Role::Developer }
    }
}

/// `[tls]`: files in PEM format, read again when they change.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate, and after it those of the authorities between it and one that clients know.
    pub certificate: PathBuf,
    /// Its private key, unencrypted, readable by the server's user alone.
    pub key: PathBuf,
}

/// `[logs]`: how long the logs of deployments that have ended are kept.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogsConfig {
    /// One that nothing was added to for this long is removed.
    #[serde(with = "sdp_core::model::units::duration")]
    pub keep: Duration,
    /// When all together are larger, in MiB, the oldest are removed.
    pub total_mib: u64,
}

impl Default for LogsConfig {
    fn default() -> Self {
        Self { keep: Duration::from_secs(90 * 86_400), total_mib: 10 * 1024 }
    }
}

/// `[events]`: what `/ws/events` tells.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsConfig {
    /// How many are kept for who was away.
    pub keep: u32,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { keep: 10_000 }
    }
}

/// `[sandboxes]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxesConfig {
    /// How often it is looked which have expired or are idle, and what is left to do for one is tried again.
    #[serde(with = "sdp_core::model::units::duration")]
    pub upkeep: Duration,
    /// After how long without a deployment, a change of a route or a look at it a sandbox goes to sleep; never when
    /// absent.
    #[serde(with = "sdp_core::model::units::duration_option")]
    pub idle_after: Option<Duration>,
}

impl Default for SandboxesConfig {
    fn default() -> Self {
        Self { upkeep: Duration::from_secs(10), idle_after: None }
    }
}

/// `[session]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// A session that nobody uses ends after this.
    #[serde(with = "sdp_core::model::units::duration")]
    pub idle: Duration,
    /// Every session ends after this.
    #[serde(with = "sdp_core::model::units::duration")]
    pub absolute: Duration,
    /// Whether browsers send the cookie over HTTPS only; set it behind TLS.
    pub cookie_secure: bool,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { idle: Duration::from_secs(8 * 3600), absolute: Duration::from_secs(24 * 3600), cookie_secure: false }
    }
}

/// `[login]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoginConfig {
    /// How many failed attempts one user has from one address within the window; ten times as many has an address
    /// over all users, and a user over all addresses.
    pub attempts: u32,
    /// The window.
    #[serde(with = "sdp_core::model::units::duration")]
    pub window: Duration,
}

impl Default for LoginConfig {
    fn default() -> Self {
        Self { attempts: 5, window: Duration::from_secs(60) }
    }
}

/// `[agents]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentsConfig {
    /// How long a new connection has for its hello.
    #[serde(with = "sdp_core::model::units::duration")]
    pub hello: Duration,
    /// How often a connection is pinged.
    #[serde(with = "sdp_core::model::units::duration")]
    pub ping: Duration,
    /// How long a connection may be silent before it counts as gone.
    #[serde(with = "sdp_core::model::units::duration")]
    pub silence: Duration,
    /// How long an agent has to answer a request.
    #[serde(with = "sdp_core::model::units::duration")]
    pub request: Duration,
    /// How often what should run is compared with what an agent finds running.
    #[serde(with = "sdp_core::model::units::duration")]
    pub reconcile: Duration,
}

impl Default for AgentsConfig {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            hello: seconds(10),
            ping: seconds(5),
            silence: seconds(15),
            request: seconds(30),
            reconcile: seconds(30),
        }
    }
}

impl ServerConfig {
    /// Reads the layers and checks what the types cannot. Secrets are taken out of `env` and shown in no error.
    ///
    /// # Errors
    /// [`ConfigError`] names file, line and key.
    ///
    /// ```
    /// use sdp_core::config::Layers;
    /// use sdp_server::ServerConfig;
    /// let env = vec![("SDP_SERVER__SESSION__IDLE".to_string(), "30m".to_string())];
    /// let config = ServerConfig::load(Layers::new().file("sdp-server.toml", "data_dir = '/tmp/x'"), env, &[])?;
    /// assert_eq!(config.session.idle.as_secs(), 1800);
    /// # Ok::<(), sdp_core::config::ConfigError>(())
    /// ```
    pub fn load(layers: Layers, env: Vec<(String, String)>, flags: &[(String, String)]) -> Result<Self, ConfigError> {
        let (secrets, env): (Vec<_>, Vec<_>) = env.into_iter().partition(|(name, _)| names_a_secret(name));
        let layers = layers.env(ENV_PREFIX, env);
        let layers = flags.iter().fold(layers, |layers, (key, value)| layers.set(key, value));
        let mut config: Self = layers.load()?;
        config.take_secrets(secrets)?;
        config.check()?;
        Ok(config)
    }

    /// The address at which people open this server.
    pub fn public_url(&self) -> Url {
        let mut url = self.public_url.clone().unwrap_or_else(|| {
            Url::parse(&format!("http://{}", self.listen)).expect("a socket's address is one of a URL")
        });
        // What is joined to it goes below its path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("");
        }
        url
    }

    /// Gives each secret from the environment to what it is of.
    fn take_secrets(&mut self, secrets: Vec<(String, String)>) -> Result<(), ConfigError> {
        for (variable, secret) in secrets {
            let secret = SecretString::from(secret.trim_end_matches(['\r', '\n']));
            let place = self.place_of(&variable);
            let unknown = || ConfigError::Overridden(format!("{variable} is of nothing that is configured"));
            *place.ok_or_else(unknown)? = Some(secret);
        }
        Ok(())
    }

    fn place_of(&mut self, variable: &str) -> Option<&mut Option<SecretString>> {
        let is = |name: &IntegrationName, kind: &str, what: &str| {
            let name = name.as_str().to_ascii_uppercase().replace('-', "_");
            variable == format!("{ENV_PREFIX}__{kind}__{name}__{what}")
        };
        for bitbucket in &mut self.bitbucket {
            if is(&bitbucket.name, "BITBUCKET", "SECRET") {
                return Some(&mut bitbucket.secret);
            }
            if is(&bitbucket.name, "BITBUCKET", "TOKEN") {
                return Some(&mut bitbucket.token);
            }
        }
        self.webhook.iter_mut().find(|hook| is(&hook.name, "WEBHOOK", "SECRET")).map(|hook| &mut hook.secret)
    }

    fn check_integrations(&self) -> Result<(), ConfigError> {
        let mut names = BTreeSet::new();
        let mut sandboxes = BTreeMap::new();
        for (at, bitbucket) in self.bitbucket.iter().enumerate() {
            bitbucket.check(at)?;
            if !names.insert(("bitbucket", &bitbucket.name)) {
                return Err(invalid(&format!("bitbucket[{at}].name"), "is that of another one as well"));
            }
            for (number, repo) in bitbucket.repo.iter().enumerate().filter(|(_, repo)| repo.template.is_some()) {
                if let Some(other) = sandboxes.insert(bitbucket::sandbox_name(&repo.repo, 1), &repo.slug) {
                    let reason = format!("would give its pull requests' sandboxes the names of those of {other}");
                    return Err(invalid(&format!("bitbucket[{at}].repo[{number}].repo"), &reason));
                }
            }
        }
        for (at, webhook) in self.webhook.iter().enumerate() {
            webhook.check(at)?;
            if !names.insert(("webhook", &webhook.name)) {
                return Err(invalid(&format!("webhook[{at}].name"), "is that of another one as well"));
            }
        }
        match &self.public_url {
            Some(url) if !bitbucket::is_address(url) || url.query().is_some() => {
                Err(invalid("public_url", "must be an http or https address, such as \"https://sdp.example\""))
            }
            _ => Ok(()),
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the key.
    pub fn check(&self) -> Result<(), ConfigError> {
        let durations = [
            ("sandbox_lifetime", self.sandbox_lifetime),
            ("sandboxes.upkeep", self.sandboxes.upkeep),
            ("sandboxes.idle_after", self.sandboxes.idle_after.unwrap_or(Duration::MAX)),
            ("session.idle", self.session.idle),
            ("session.absolute", self.session.absolute),
            ("login.window", self.login.window),
            ("agents.hello", self.agents.hello),
            ("agents.ping", self.agents.ping),
            ("agents.silence", self.agents.silence),
            ("agents.request", self.agents.request),
            ("agents.reconcile", self.agents.reconcile),
            ("logs.keep", self.logs.keep),
            ("deliveries.timeout", self.deliveries.timeout),
            ("deliveries.first", self.deliveries.first),
            ("deliveries.longest", self.deliveries.longest),
        ];
        if let Some((key, _)) = durations.iter().find(|(_, duration)| duration.is_zero()) {
            return Err(invalid(key, "must be longer than nothing"));
        }
        if self.auth.default_role == Role::Admin {
            return Err(invalid(
                "auth.default_role",
                "must be \"viewer\" or \"developer\": name admins in `auth.admins`",
            ));
        }
        if self.agents.silence <= self.agents.ping {
            return Err(invalid("agents.silence", "must be longer than `agents.ping`"));
        }
        if self.connections == 0 {
            return Err(invalid("connections", "must be at least 1, or nobody is served"));
        }
        if self.login.attempts == 0 {
            return Err(invalid("login.attempts", "must be at least 1, or nobody can sign in"));
        }
        self.check_integrations()?;
        let is_origin = |text: &String| {
            Url::parse(text).is_ok_and(|url| url.origin().is_tuple() && url.origin().ascii_serialization() == *text)
        };
        match self.allowed_origins.iter().find(|text| !is_origin(text)) {
            Some(_) => {
                Err(invalid("allowed_origins", "must hold origins such as \"https://tools.example\", without a path"))
            }
            None => Ok(()),
        }
    }
}

/// `SDP_SERVER__BITBUCKET__CORP__SECRET` and the like.
fn names_a_secret(variable: &str) -> bool {
    let parts: Vec<_> = variable.split("__").collect();
    matches!(parts[..], [ENV_PREFIX, "BITBUCKET", _, "SECRET" | "TOKEN"] | [ENV_PREFIX, "WEBHOOK", _, "SECRET"])
}

fn invalid(key: &str, reason: &str) -> ConfigError {
    ConfigError::Invalid { key: key.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const CORP: &str = "[[bitbucket]]\nname = 'corp-1'\nkind = 'cloud'\n";

    fn load(text: &str, env: &[(&str, &str)]) -> Result<ServerConfig, ConfigError> {
        let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        ServerConfig::load(Layers::new().file("sdp-server.toml", text), env, &[])
    }

    #[test]
    fn secrets_come_from_the_environment_as_they_are_and_into_no_error() {
        let text = format!("{CORP}[[webhook]]\nname = 'chat'\nurl = 'https://chat.example/x'\n");
        let config = load(
            &text,
            &[
                ("SDP_SERVER__BITBUCKET__CORP_1__SECRET", "12345"),
                ("SDP_SERVER__BITBUCKET__CORP_1__TOKEN", "true\n"),
                ("SDP_SERVER__WEBHOOK__CHAT__SECRET", "[1"),
            ],
        );
        let config = config.unwrap();
        let exposed = |secret: &Option<SecretString>| secret.as_ref().unwrap().expose_secret().to_owned();
        assert_eq!(exposed(&config.bitbucket[0].secret), "12345");
        assert_eq!(exposed(&config.bitbucket[0].token), "true");
        assert_eq!(exposed(&config.webhook[0].secret), "[1");
        assert!(!format!("{config:?}").contains("12345"));
        let error = load(CORP, &[("SDP_SERVER__BITBUCKET__OTHER__SECRET", "s3cret")]).unwrap_err().to_string();
        assert!(error.contains("OTHER__SECRET") && !error.contains("s3cret"), "{error}");
        let error = load(&format!("{CORP}secret = 's3cret'"), &[]).unwrap_err().to_string();
        assert!(error.contains("unknown field `secret`") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn what_does_not_go_together_is_told_by_its_key() {
        let repo =
            |slug: &str, repo: &str| format!("[[bitbucket.repo]]\nslug = '{slug}'\nrepo = '{repo}'\ntemplate = 't'\n");
        for (text, key) in [
            ("[[bitbucket]]\nname = 'a'\nkind = 'data-center'\n".to_owned(), "bitbucket[0].url"),
            (format!("{CORP}url = 'ftp://a.example'"), "bitbucket[0].url"),
            (format!("{CORP}url = 'https://u:p@a.example'"), "bitbucket[0].url"),
            (format!("{CORP}{}", repo("shop", "a")), "bitbucket[0].repo[0].slug"),
            (format!("{CORP}{}{}", repo("s/a", "a"), repo("S/A", "b")), "bitbucket[0].repo[1].slug"),
            (format!("{CORP}{}{}", repo("s/a", "a.b"), repo("s/b", "a-b")), "bitbucket[0].repo[1].repo"),
            (format!("{CORP}{CORP}"), "bitbucket[1].name"),
            ("[[webhook]]\nname = 'a'\nurl = 'mailto:a@b'".into(), "webhook[0].url"),
            ("public_url = 'https://sdp.example/?x'".into(), "public_url"),
            ("[deliveries]\nfirst = '0s'".into(), "deliveries.first"),
        ] {
            let error = load(&text, &[]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{key}`")), "{text}: {error}");
        }
    }

    #[test]
    fn links_go_below_the_public_address() {
        for (text, link) in [
            ("listen = '127.0.0.1:3452'", "http://127.0.0.1:3452/api/x"),
            ("public_url = 'https://sdp.example/sdp'", "https://sdp.example/sdp/api/x"),
            ("public_url = 'https://sdp.example/sdp/'", "https://sdp.example/sdp/api/x"),
        ] {
            assert_eq!(load(text, &[]).unwrap().public_url().join("api/x").unwrap().as_str(), link);
        }
    }
}
