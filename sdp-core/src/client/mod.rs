//! A typed client of the control plane's HTTP API and WebSockets: what the command line and the Python package are made
//! of.
//!
//! Every method is one endpoint, takes and answers the types of [`api`](crate::api) and [`model`](crate::model), and
//! fails with a [`ClientError`]. Dropping a future cancels what it waits for; what the server was asked to do, it does
//! all the same.
//!
//! - Requests have a [time limit](ClientOptions), and are sent again only where that is safe: what reads, what sets
//!   something to a value, what creates with the `Idempotency-Key` that the client makes for it, and whatever was
//!   certainly not carried out. `Retry-After` is heeded.
//! - [`Client::follow`] and [`Client::events`] go on after a broken connection where they were: no line is missing,
//!   none comes twice.
//! - [`Client::exec`] is sent once, as nobody knows whether a command has run whose answer was lost.
//! - TLS is rustls with the machine's CA certificates (`SSL_CERT_FILE` counts). Proxies are not used, redirects not
//!   followed.
//!
//! ```no_run
//! use sdp_core::{DeploymentState, api::CreateDeployment, client::{Client, ClientOptions}};
//!
//! # async fn deploy() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:3452".parse()?, ClientOptions::default())?;
//! let client = client.with_token(std::env::var("SDP_TOKEN")?.into())?;
//! let wanted = CreateDeployment::new("eredar".parse()?, "feature/greeting".parse()?);
//! let mut follow = client.follow(client.deploy(&wanted).await?.id, 1);
//! while let Some(event) = follow.next().await? {
//!     println!("{event}");
//! }
//! assert_eq!(follow.end().map(|(state, _)| state), Some(DeploymentState::Running));
//! # Ok(())
//! # }
//! ```

mod address;
mod agents;
mod audit;
mod call;
mod deployments;
mod environments;
mod error;
mod exchange;
mod exec;
mod follow;
mod live;
mod logs;
mod options;
mod output;
mod paging;
mod platform;
mod repos;
mod retry;
mod routes;
mod sandboxes;
mod session;
mod socket;
mod templates;
mod tls;
mod tokens;
mod users;
mod versioned;

use std::{fmt, sync::Arc};

use secrecy::SecretString;

use self::exchange::HttpClient;
pub use self::{
    address::{InvalidAddress, ServerAddress},
    agents::IssuedAgentToken,
    error::ClientError,
    exec::{CompletedCommand, RunningCommand},
    follow::Follow,
    live::{Live, LiveFollow},
    options::ClientOptions,
    output::FollowOutput,
    sandboxes::Document,
    session::SignedIn,
    tokens::IssuedToken,
    versioned::{Version, Versioned},
};

/// A client of one server, for one person or script. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    token: Option<SecretString>,
}

struct Shared {
    address: ServerAddress,
    options: ClientOptions,
    http: HttpClient,
    tls: Arc<rustls::ClientConfig>,
}

impl Client {
    /// A client that is not signed in. Nothing is sent yet.
    ///
    /// # Errors
    /// When `https` is asked for and there is no CA certificate to trust, or the one named cannot be read.
    pub fn new(address: ServerAddress, options: ClientOptions) -> Result<Self, ClientError> {
        let tls = Arc::new(tls::config(&address, options.ca_file.as_deref())?);
        let http = exchange::http_client(&tls, options.connect_timeout);
        Ok(Self { shared: Arc::new(Shared { address, options, http, tls }), token: None })
    }

    /// The same, signed in with the token of a session or of a script.
    ///
    /// # Errors
    /// [`ClientError::InvalidToken`] when the text cannot be a token.
    pub fn with_token(&self, token: SecretString) -> Result<Self, ClientError> {
        exchange::bearer(&token)?;
        Ok(Self { shared: Arc::clone(&self.shared), token: Some(token) })
    }

    /// The same with connections of its own. Connections belong to the runtime that made them: a program with several has
    /// a client for each.
    #[must_use]
    pub fn with_own_connections(&self) -> Self {
        let Shared { address, options, tls, .. } = &*self.shared;
        let http = exchange::http_client(tls, options.connect_timeout);
        let shared = Shared { address: address.clone(), options: options.clone(), http, tls: Arc::clone(tls) };
        Self { shared: Arc::new(shared), token: self.token.clone() }
    }

    /// The token it is signed in with.
    pub fn token(&self) -> Option<&SecretString> {
        self.token.as_ref()
    }

    /// The server it is a client of.
    pub fn address(&self) -> &ServerAddress {
        &self.shared.address
    }

    fn options(&self) -> &ClientOptions {
        &self.shared.options
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shared, token } = self;
        let mut shown = f.debug_struct("Client");
        shown.field("address", &shared.address).field("signed_in", &token.is_some()).finish_non_exhaustive()
    }
}
