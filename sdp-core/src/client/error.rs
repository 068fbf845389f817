//! Why a request failed, by what the caller can do about it.

use std::{path::PathBuf, time::Duration};

use crate::problem::{ErrorCode, Problem};

/// An error without a type that callers could use.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no answer, or none as wished. [`code`](Self::code) is the machine-readable cause, [`cure`](Self::cure)
/// what can be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server refuses, and says why.
    #[error("{0}")]
    Refused(Problem),
    /// No connection could be made: nothing was carried out.
    #[error("{server} cannot be reached")]
    Unreachable {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The server's certificate is not trusted, or it does not speak TLS.
    #[error("no secure connection to {server} could be made")]
    Tls {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The answer did not come in time. What was asked for may have been carried out.
    #[error("{server} did not answer {what} within {limit:?}")]
    TimedOut {
        /// The server.
        server: String,
        /// The request: `GET /api/me`.
        what: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The connection broke before the answer was there. What was asked for may have been carried out.
    #[error("the connection to {server} broke during {what}")]
    Broken {
        /// The server.
        server: String,
        /// The request.
        what: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// Something answered that is not SDP's server, or one of another version.
    #[error("{server} answered {what} with {status}, and not as SDP's server does")]
    NotSdp {
        /// The server.
        server: String,
        /// The request.
        what: String,
        /// The HTTP status.
        status: u16,
        /// Where it sends callers instead.
        location: Option<String>,
    },
    /// The answer cannot be read: server and client are of different versions.
    #[error("the answer of {server} to {what} cannot be read")]
    Unreadable {
        /// The server.
        server: String,
        /// The request.
        what: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The server can be reached, and no WebSocket gets through to it.
    #[error("no WebSocket gets through to {server}: the upgrade was answered with {status}")]
    NoWebSocket {
        /// The server.
        server: String,
        /// The HTTP status it was answered with.
        status: u16,
    },
    /// Lines of a log that was followed are not there any more, or not yet.
    #[error("the log goes on with line {got} where line {expected} was to come")]
    Gap {
        /// The line that was to come.
        expected: u64,
        /// The line that came.
        got: u64,
    },
    /// The text cannot be a token.
    #[error("the token holds characters that no token has")]
    InvalidToken,
    /// There is no CA certificate to trust, and `https` needs one.
    #[error("no CA certificate was found on this machine")]
    NoRoots,
    /// The file of CA certificates cannot be used.
    #[error("the CA certificates in {} cannot be read", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BoxError,
    },
}

impl ClientError {
    /// The causes that [`code_str`](Self::code_str) names besides the server's codes.
    pub const OWN_CODES: &[&str] = &[
        "unreachable",
        "untrusted",
        "timed-out",
        "broken",
        "not-sdp",
        "unreadable",
        "no-websocket",
        "gap",
        "invalid-settings",
    ];

    /// What the server said.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }

    /// The server's machine-readable cause.
    pub fn code(&self) -> Option<ErrorCode> {
        self.problem().map(|problem| problem.code)
    }

    /// The cause as text: the server's code, or one of [`OWN_CODES`](Self::OWN_CODES).
    pub fn code_str(&self) -> &'static str {
        match self {
            Self::Refused(problem) => problem.code.as_str(),
            Self::Unreachable { .. } => "unreachable",
            Self::Tls { .. } => "untrusted",
            Self::TimedOut { .. } => "timed-out",
            Self::Broken { .. } => "broken",
            Self::NotSdp { .. } => "not-sdp",
            Self::Unreadable { .. } => "unreadable",
            Self::NoWebSocket { .. } => "no-websocket",
            Self::Gap { .. } => "gap",
            Self::InvalidToken | Self::NoRoots | Self::CaFile { .. } => "invalid-settings",
        }
    }

    /// Whether the same may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.retryable,
            Self::NotSdp { status, .. } => matches!(status, 502..=504),
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Broken { .. } => true,
            _ => false,
        }
    }

    /// What can be done about it, where the sentence does not say so already: the server's own sentences do.
    pub fn cure(&self) -> Option<String> {
        Some(match self {
            Self::Refused(problem) if problem.code == ErrorCode::NotSignedIn => "sign in again".into(),
            Self::Refused(_) | Self::Gap { .. } => return None,
            Self::Unreachable { .. } => {
                "start sdp-server there, or correct the address; it listens on 127.0.0.1:3452 unless told otherwise"
                    .into()
            }
            Self::Tls { .. } => {
                "trust the server's CA: name its certificate as CA file, or in SSL_CERT_FILE; or correct the address"
                    .into()
            }
            Self::TimedOut { .. } => "look at what became of it, and try again; the server may be busy".into(),
            Self::Broken { .. } => "look at what became of it, and try again".into(),
            Self::NotSdp { location: Some(location), .. } => {
                format!("it sends callers to {location}: use that address if it is SDP's")
            }
            Self::NotSdp { status: 502..=504, .. } => "a proxy on the way does not reach sdp-server: start it".into(),
            Self::NotSdp { .. } => "correct the address, and look at proxies on the way".into(),
            Self::Unreadable { .. } => "use the same version as the server's".into(),
            Self::NoWebSocket { .. } => {
                "let the proxy on the way pass the headers Upgrade and Connection to paths below /ws/".into()
            }
            Self::InvalidToken => "use the token as it was printed, on one line".into(),
            Self::NoRoots => "install ca-certificates, or name a file in SSL_CERT_FILE".into(),
            Self::CaFile { .. } => "name a readable file of PEM certificates".into(),
        })
    }

    /// Whether it is certain that what was asked for was not carried out.
    pub(super) fn is_harmless(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.code == ErrorCode::RateLimited,
            Self::Unreachable { .. } => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_own_codes_are_all_listed_and_none_of_the_servers() {
        let (server, what) = (String::new(), String::new());
        let source = || BoxError::from("why");
        let json = serde_json::from_str::<u8>("").unwrap_err();
        let own = [
            ClientError::Unreachable { server: server.clone(), source: source() },
            ClientError::Tls { server: server.clone(), source: source() },
            ClientError::TimedOut { server: server.clone(), what: what.clone(), limit: Duration::ZERO },
            ClientError::Broken { server: server.clone(), what: what.clone(), source: source() },
            ClientError::NotSdp { server: server.clone(), what: what.clone(), status: 404, location: None },
            ClientError::Unreadable { server: server.clone(), what, source: json },
            ClientError::NoWebSocket { server, status: 400 },
            ClientError::Gap { expected: 1, got: 2 },
            ClientError::NoRoots,
        ];
        let codes: Vec<_> = own.iter().map(ClientError::code_str).collect();
        assert_eq!(codes, ClientError::OWN_CODES);
        assert!(ErrorCode::ALL.iter().all(|code| !codes.contains(&code.as_str())));
    }
}
