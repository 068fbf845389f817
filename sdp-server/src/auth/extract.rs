//! The signed-in person of a request, as the [guard](super::guard) found out.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use http::{HeaderMap, header, request::Parts};
use sdp_core::{ApiToken, ErrorCode, Role, UserName, protocol::CredentialsFrame};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::{COOKIE, Session};
use crate::{ApiError, AppState, hub::Asker};

/// What somebody is to the thing that a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is about no such thing.
    None,
    /// Its owner.
    Owner,
    /// One of those it is shared with.
    Shared,
    /// Neither, but an admin.
    Admin,
}

/// Who asks, with a session or a token.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// The session; of a token, one without credentials.
    pub session: Session,
    /// What they may do with what they signed in with.
    pub role: Role,
    /// The token, if they use one.
    pub token: Option<ApiToken>,
    /// The secret, as presented.
    pub(crate) secret: SecretString,
    /// Where the request comes from.
    pub(crate) address: IpAddr,
    pub(crate) standing: Standing,
    /// Cancelled when the session or the token ends: streams end with it.
    pub(crate) ended: CancellationToken,
}

impl SignedIn {
    /// Who.
    pub fn user(&self) -> &UserName {
        self.session.user()
    }

    /// For a deployment that they ask for, with the credentials that came with the request, or else the session's.
    pub(crate) fn asker(&self, given: Option<CredentialsFrame>) -> Asker {
        let given = given.map(|CredentialsFrame(given)| given);
        Asker { user: self.user().clone(), credentials: given.or_else(|| self.session.credentials.clone()) }
    }
}

impl FromRequestParts<AppState> for SignedIn {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        // Only an endpoint whose rule asks for nobody lacks it.
        parts.extensions.get().cloned().ok_or_else(|| ApiError::new(ErrorCode::NotSignedIn, "sign in first"))
    }
}

/// The token of the header `Authorization: Bearer`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The session's token in the cookie.
pub(crate) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, "a=b; sdp_session=t; c=d".parse().unwrap());
        assert_eq!(cookie(&headers), Some("t"));
    }
}
