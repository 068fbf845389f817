//! Where a server is.

use std::{fmt, str::FromStr};

use url::{Position, Url};

/// The address of a control plane: `https://sdp.example`, `http://127.0.0.1:3452`, with a path where a proxy serves it
/// below one. Without a scheme it is `http`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// Scheme, host, port and path, without a slash at the end.
    base: String,
    host: String,
    is_tls: bool,
}

/// Why a text is not a [`ServerAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a server's address: {reason}")]
pub struct InvalidAddress {
    /// The text as given, cut to 200 characters, without what may be a password.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ServerAddress {
    /// Whether it is reached over TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether it is on this machine, so that nothing that is sent leaves it.
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// The address as text, without a slash at the end.
    pub fn as_str(&self) -> &str {
        &self.base
    }

    /// The address of a path that begins with a slash.
    pub(super) fn http(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The same for a WebSocket.
    pub(super) fn websocket(&self, path: &str) -> String {
        // `http` becomes `ws`, and `https` `wss`.
        self.http(path).replacen("http", "ws", 1)
    }
}

impl FromStr for ServerAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let text = text.trim();
        let refuse = |reason| {
            let shown = text.rsplit_once('@').map_or(text, |(_, after)| after);
            InvalidAddress { text: shown.chars().take(200).collect(), reason }
        };
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&whole).map_err(|_| refuse("write it as https://host or http://host:port"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse("only http and https are spoken"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("leave user and password out; `sdp login` asks for them"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("it ends with the path, without ? and #"));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| refuse("it names no host"))?;
        let base = url[..Position::AfterPath].trim_end_matches('/').to_owned();
        Ok(Self { host: host.to_owned(), is_tls: url.scheme() == "https", base })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, base) in [
            ("https://sdp.example", "https://sdp.example"),
            ("https://sdp.example/", "https://sdp.example"),
            ("sdp.example:3452", "http://sdp.example:3452"),
            ("127.0.0.1:3452", "http://127.0.0.1:3452"),
            (" http://[::1]:3452/sdp/ ", "http://[::1]:3452/sdp"),
            ("localhost", "http://localhost"),
        ] {
            assert_eq!(text.parse::<ServerAddress>().unwrap().as_str(), base);
        }
        for text in ["", "http://", "ftp://a", "https://a?b", "https://a#b", "http://a:99999", "a b", "://"] {
            assert!(text.parse::<ServerAddress>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        let error = "https://ada:s3cret@sdp.example".parse::<ServerAddress>().unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }

    #[test]
    fn websockets_have_the_same_address_with_their_own_scheme() {
        let address: ServerAddress = "https://http.example/a".parse().unwrap();
        assert_eq!(address.websocket("/ws/events"), "wss://http.example/a/ws/events");
        let address: ServerAddress = "127.0.0.1:1".parse().unwrap();
        assert_eq!(address.websocket("/ws/events?from=2"), "ws://127.0.0.1:1/ws/events?from=2");
        assert!(address.is_loopback() && !address.is_tls());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_reads_again(text in "\\PC{0,40}") {
            if let Ok(address) = text.parse::<ServerAddress>() {
                prop_assert_eq!(address.as_str().parse(), Ok(address.clone()));
            }
        }
    }
}
