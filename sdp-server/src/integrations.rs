//! What the server works with outside: configured, with their secrets.

use sdp_core::{IntegrationName, config::ConfigError};

use crate::{ServerConfig, bitbucket::Bitbucket, outgoing::Outgoing, webhooks::Webhook};

/// All of it.
#[derive(Debug)]
pub(crate) struct Integrations {
    bitbuckets: Vec<Bitbucket>,
    /// The outgoing webhooks.
    pub(crate) webhooks: Vec<Webhook>,
    /// How others are asked.
    pub(crate) outgoing: Outgoing,
}

impl Integrations {
    /// Reads the secrets.
    ///
    /// # Errors
    /// When one cannot be read, or nobody can be trusted over https.
    pub(crate) fn new(config: &ServerConfig) -> Result<Self, ConfigError> {
        let bitbuckets = config.bitbucket.iter().cloned().map(Bitbucket::new).collect::<Result<Vec<_>, _>>()?;
        let webhooks = config.webhook.iter().cloned().map(Webhook::new).collect::<Result<Vec<_>, _>>()?;
        let apis =
            bitbuckets.iter().filter(|bitbucket| bitbucket.reports()).filter_map(|bitbucket| bitbucket.config.api());
        let mut urls = apis.chain(webhooks.iter().map(|webhook| webhook.config.url.clone()));
        if urls.any(|url| url.scheme() == "https") && !Outgoing::has_roots() {
            tracing::error!(
                "this machine has no CA certificates, so that nobody can be trusted over https: install the package \
                ca-certificates, or name a file of them with SSL_CERT_FILE"
            );
        }
        let outgoing = Outgoing::new(config.deliveries.timeout)
            .map_err(|error| ConfigError::Overridden(format!("https cannot be used on this machine: {error}")))?;
        Ok(Self { bitbuckets, webhooks, outgoing })
    }

    /// The Bitbucket of that name.
    pub(crate) fn bitbucket(&self, name: &IntegrationName) -> Option<&Bitbucket> {
        self.bitbuckets.iter().find(|bitbucket| bitbucket.config.name == *name)
    }

    /// The webhook of that name.
    pub(crate) fn webhook(&self, name: &IntegrationName) -> Option<&Webhook> {
        self.webhooks.iter().find(|webhook| webhook.config.name == *name)
    }
}
