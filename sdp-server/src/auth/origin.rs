//! Which page a request comes from, as far as its browser says.

use http::{HeaderMap, header};
use url::Url;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A page of this site, or of one that is allowed.
    Here,
    /// Another site's page.
    Elsewhere,
    /// No browser says so.
    Unknown,
}

/// Where a request comes from, given the origins that are allowed besides this site's own.
pub(crate) fn origin(headers: &HeaderMap, allowed: &[String]) -> Origin {
    let text = |name| headers.get(name).map(|value: &http::HeaderValue| value.to_str().unwrap_or_default());
    let site = text(header::HeaderName::from_static("sec-fetch-site"));
    let Some(origin) = text(header::ORIGIN) else {
        return match site {
            Some("same-origin") => Origin::Here,
            Some(_) => Origin::Elsewhere,
            None => Origin::Unknown,
        };
    };
    let is_allowed = allowed.iter().any(|allowed| allowed == origin);
    let is_this_site = is_own(origin, text(header::HOST)) && !matches!(site, Some("cross-site" | "same-site"));
    if is_allowed || is_this_site { Origin::Here } else { Origin::Elsewhere }
}

/// Whether an origin is that of the host asked. The scheme may differ: TLS can end before this server.
fn is_own(origin: &str, host: Option<&str>) -> bool {
    let authority = |url: &Url| match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => Some(format!("{host}:{port}")),
        (Some(host), None) => Some(host.to_owned()),
        (None, _) => None,
    };
    match (Url::parse(origin), host) {
        // Parsed likewise, so that a default port written out makes no difference.
        (Ok(origin), Some(host)) => Url::parse(&format!("{}://{host}", origin.scheme()))
            .is_ok_and(|here| authority(&here).is_some() && authority(&here) == authority(&origin)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &str)]) -> Origin {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        origin(&headers.collect(), &["https://tools.example".into()])
    }

    #[test]
    fn only_this_site_and_the_allowed_ones_are_here() {
        let from = |origin, host| of(&[("origin", origin), ("host", host)]);
        assert_eq!(from("http://sdp.example:3452", "sdp.example:3452"), Origin::Here);
        assert_eq!(from("https://sdp.example", "sdp.example:443"), Origin::Here);
        assert_eq!(from("https://tools.example", "sdp.example"), Origin::Here);
        for origin in ["https://evil.example", "null", "http://sdp.example.evil", "http://sdp.example:1", "x", ""] {
            assert_eq!(from(origin, "sdp.example:3452"), Origin::Elsewhere, "{origin}");
        }
        assert_eq!(of(&[("origin", "https://sdp.example")]), Origin::Elsewhere, "without a host nothing is here");
    }

    #[test]
    fn a_browser_that_sends_no_origin_says_at_least_which_site() {
        let site = |site| of(&[("sec-fetch-site", site), ("host", "sdp.example")]);
        assert_eq!(site("same-origin"), Origin::Here);
        for other in ["same-site", "cross-site", "none", ""] {
            assert_eq!(site(other), Origin::Elsewhere, "{other}");
        }
        let headers = [("origin", "http://sdp.example"), ("host", "sdp.example"), ("sec-fetch-site", "cross-site")];
        assert_eq!(of(&headers), Origin::Elsewhere, "a name that was made to point here");
        assert_eq!(of(&[("host", "sdp.example")]), Origin::Unknown, "programs say nothing");
    }
}
