//! Which address a request comes from, where proxies may be in between.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use axum::extract::ConnectInfo;
use http::{Extensions, HeaderMap};
use ipnet::IpNet;
use serde::{Deserialize, de};

/// What proxies add the address to that they were asked from: each at the end.
const FORWARDED: &str = "x-forwarded-for";

/// An address, or a network of them: `127.0.0.1`, `10.1.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text.parse().or_else(|_| text.parse().map(|address: IpAddr| address.into()));
        let network =
            network.map_err(|_| format!("{text:?} is no address or network, such as 127.0.0.1 or 10.1.0.0/16"));
        network.map(Self)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The address a request comes from: the last one that no trusted proxy has. What a client writes into the header itself
/// stands before what the proxies add, and is not reached.
pub(crate) fn client_address(extensions: &Extensions, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
    // Mounted in another service, which has not said where requests come from.
    let mut address = peer.unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let told = headers.get_all(FORWARDED).iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    // Each for itself: what a client writes before it may be anything.
    for one in told.map(|part| str::from_utf8(part).unwrap_or_default()) {
        if !trusted.iter().any(|network| network.contains(address)) {
            break;
        }
        // Some proxies tell the port as well.
        let parsed = one.trim().parse().or_else(|_| one.trim().parse().map(|socket: SocketAddr| socket.ip()));
        let Ok(parsed) = parsed else { break };
        address = parsed.to_canonical();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let (mut extensions, mut headers) = (Extensions::new(), HeaderMap::new());
        extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 4000)));
        for value in forwarded {
            headers.append(FORWARDED, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let trusted: Vec<_> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_address(&extensions, &headers, &trusted).to_string()
    }

    #[test]
    fn only_what_trusted_proxies_say_is_believed() {
        let proxies = ["127.0.0.1", "10.1.0.0/16"];
        assert_eq!(of("127.0.0.1", &["192.0.2.7"], &[]), "127.0.0.1", "nobody is trusted unless it is said");
        assert_eq!(of("192.0.2.9", &["192.0.2.7"], &proxies), "192.0.2.9", "a client that says so itself");
        assert_eq!(of("127.0.0.1", &["192.0.2.7"], &proxies), "192.0.2.7");
        assert_eq!(of("::ffff:127.0.0.1", &["192.0.2.7:1234"], &proxies), "192.0.2.7");
        assert_eq!(of("127.0.0.1", &["198.51.100.1, 192.0.2.7, 10.1.2.3"], &proxies), "192.0.2.7");
        assert_eq!(of("127.0.0.1", &["198.51.100.1", "192.0.2.7,10.1.2.3"], &proxies), "192.0.2.7");
        assert_eq!(of("127.0.0.1", &["\u{fc}, 192.0.2.7"], &proxies), "192.0.2.7");
        assert_eq!(of("127.0.0.1", &["2001:db8::1"], &proxies), "2001:db8::1");
        assert_eq!(of("127.0.0.1", &["[2001:db8::1]:80"], &proxies), "2001:db8::1");
    }

    #[test]
    fn what_makes_no_sense_ends_at_the_proxy_that_passed_it_on() {
        assert_eq!(of("127.0.0.1", &[], &["127.0.0.1"]), "127.0.0.1");
        assert_eq!(of("127.0.0.1", &["192.0.2.7, unknown"], &["127.0.0.1"]), "127.0.0.1");
        assert_eq!(of("127.0.0.1", &["unknown, 10.1.2.3"], &["127.0.0.1", "10.1.0.0/16"]), "10.1.2.3");
    }

    #[test]
    fn a_network_is_an_address_or_has_a_length() {
        assert_eq!("127.0.0.1".parse::<Network>().unwrap().to_string(), "127.0.0.1/32");
        for wrong in ["", "localhost", "10.0.0.0/33", "10.0.0"] {
            assert!(wrong.parse::<Network>().unwrap_err().contains("no address or network"), "{wrong}");
        }
    }
}
