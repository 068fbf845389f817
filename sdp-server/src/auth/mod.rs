//! Who may do what: agents' enrolment tokens, people's sign-in and sessions.

mod extract;
mod limiter;
mod sessions;
mod token;

pub(crate) use self::extract::bearer;
pub use self::{
    extract::{SignedIn, origin_allowed},
    limiter::Limiter,
    sessions::{Session, Sessions},
    token::{enrol, hash, new_token, same},
};

/// The cookie that carries a browser's session.
pub const COOKIE: &str = "sdp_session";
