//! Who may do what: people's sign-in, sessions, roles and tokens; agents' enrolment tokens.
//!
//! Every endpoint has a [`Rule`], and one guard holds requests to it before their handler is asked.

mod address;
mod extract;
mod guard;
mod limiter;
mod origin;
mod people;
mod rule;
mod sessions;
mod token;

use sdp_core::{ErrorCode, UserName};

pub use self::{
    address::Network,
    extract::SignedIn,
    limiter::Limiter,
    people::People,
    rule::Rule,
    sessions::{Session, Sessions},
    token::{enrol, hash, new_token, rotate, same},
};
pub(crate) use self::{
    address::client_address,
    extract::{Standing, bearer, cookie},
    guard::{admit_to, guard},
    people::ChangeError,
};
use crate::ApiError;

/// The cookie that carries a browser's session.
pub const COOKIE: &str = "sdp_session";

/// How an API token begins.
pub const API_TOKEN: &str = "sdp_";
/// How a session's token begins.
const SESSION_TOKEN: &str = "sdps_";
/// How an agent's token begins.
const AGENT_TOKEN: &str = "sdpa_";

/// How every secret of this server begins.
const SECRET_PREFIXES: [&str; 3] = [API_TOKEN, SESSION_TOKEN, AGENT_TOKEN];

/// That a person is locked out.
pub(crate) fn locked_out(user: &UserName) -> ApiError {
    let sentence = format!("{user} is locked out here: an admin can lift that with PUT /api/users/{user}");
    ApiError::new(ErrorCode::NotAllowed, sentence)
}
