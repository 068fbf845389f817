//! The signed-in person of a request.

use std::time::Instant;

use axum::extract::FromRequestParts;
use http::{HeaderMap, Method, header, request::Parts};
use sdp_core::ErrorCode;
use url::Url;

use super::{COOKIE, Session};
use crate::{ApiError, AppState, app::client_address};

/// Extracts the session of a bearer token or of the cookie; refuses with 401 otherwise.
///
/// A cookie is sent by browsers on behalf of any page, so that with one the page's `Origin` must be
/// this site or an allowed one, for everything but plain reads.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// The session.
    pub session: Session,
    /// Its token, as presented.
    pub(crate) token: secrecy::SecretString,
    /// Where the request comes from.
    pub(crate) address: std::net::IpAddr,
}

impl FromRequestParts<AppState> for SignedIn {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let headers = &parts.headers;
        let token = match (bearer(headers), cookie(headers)) {
            (Some(token), _) => token,
            (None, Some(token)) => {
                let plain_read =
                    matches!(parts.method, Method::GET | Method::HEAD) && !headers.contains_key(header::UPGRADE);
                if !plain_read && !origin_allowed(headers, &state.config().allowed_origins) {
                    let sentence =
                        "this page's origin may not use the API with your session; add it to `allowed_origins`";
                    return Err(ApiError::new(ErrorCode::NotAllowed, sentence));
                }
                token
            }
            (None, None) => return Err(ApiError::new(ErrorCode::NotSignedIn, "sign in with POST /api/login first")),
        };
        let session = state.sessions().find(token, Instant::now()).ok_or_else(|| {
            ApiError::new(ErrorCode::NotSignedIn, "the session is unknown or has expired; sign in again")
        })?;
        let address = client_address(&parts.extensions);
        Ok(Self { session, token: token.into(), address })
    }
}

/// The token of the header `Authorization: Bearer`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// Whether the request comes from a page of this site, of an allowed one, or from no page at all.
pub fn origin_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    if allowed.iter().any(|allowed| allowed == origin) {
        return true;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
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

    fn allowed(origin: &str, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, origin.parse().unwrap());
        headers.insert(header::HOST, host.parse().unwrap());
        origin_allowed(&headers, &["https://tools.example".into()])
    }

    #[test]
    fn only_this_site_and_the_allowed_ones_may_use_a_cookie() {
        assert!(allowed("http://sdp.example:3452", "sdp.example:3452"));
        assert!(allowed("https://sdp.example", "sdp.example:443"));
        assert!(allowed("https://tools.example", "sdp.example"));
        for origin in ["https://evil.example", "null", "http://sdp.example.evil", "http://sdp.example:1", "x"] {
            assert!(!allowed(origin, "sdp.example:3452"), "{origin}");
        }
        assert!(origin_allowed(&HeaderMap::new(), &[]), "programs send no origin");
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, "a=b; sdp_session=t; c=d".parse().unwrap());
        assert_eq!(cookie(&headers), Some("t"));
    }
}
