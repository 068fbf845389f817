//! How patient a client is.

use std::{path::PathBuf, time::Duration};

/// How a client behaves. Change what [`Default`] gives.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// How long a connection may take to be made: 10 s.
    pub connect_timeout: Duration,
    /// How long a request may take until its answer is there: 100 s, since some answers wait for agents.
    pub request_timeout: Duration,
    /// How often a request is sent again at most, where that is safe: 3 times.
    pub retries: u32,
    /// The pause before that, which doubles each time and is jittered by half: 200 ms.
    pub first_pause: Duration,
    /// The longest pause; a server that asks for a longer one is not waited for: 30 s.
    pub longest_pause: Duration,
    /// After how long without a sign of life a WebSocket is given up: 60 s, of which the server uses 20.
    pub silence: Duration,
    /// For how long it is tried to go on with a followed stream that broke off: 5 min.
    pub reconnect_for: Duration,
    /// A file of PEM certificates to trust besides the machine's.
    pub ca_file: Option<PathBuf>,
    /// Which program this is, for the server's log.
    pub user_agent: String,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(100),
            retries: 3,
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(30),
            silence: Duration::from_secs(60),
            reconnect_for: Duration::from_secs(300),
            ca_file: None,
            user_agent: concat!("sdp-client/", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}
