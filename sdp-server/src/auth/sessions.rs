//! Signed-in people. In memory only: a restart asks everybody again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sdp_core::{Credentials, UserName};
use secrecy::{ExposeSecret, SecretString};

use super::token;

/// A signed-in person.
#[derive(Debug, Clone)]
pub struct Session {
    /// For the person's deploys; zeroized when the session and all requests that use it are gone.
    pub credentials: Credentials,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
}

impl Session {
    /// Who.
    pub fn user(&self) -> &UserName {
        self.credentials.username()
    }
}

#[derive(Debug)]
struct Kept {
    session: Session,
    started: Instant,
    used: Instant,
}

/// Every session, by the SHA-256 of its token.
#[derive(Debug)]
pub struct Sessions {
    idle: Duration,
    absolute: Duration,
    kept: Mutex<HashMap<[u8; 32], Kept>>,
}

impl Sessions {
    /// Sessions that end after `idle` without use, and after `absolute` in any case.
    pub fn new(idle: Duration, absolute: Duration) -> Self {
        Self { idle, absolute, kept: Mutex::default() }
    }

    /// Starts a session and gives its token.
    pub fn start(&self, credentials: Credentials, now: Instant) -> (SecretString, Session) {
        let token = token::new_token("sdps_");
        let expires_at = Timestamp::now().saturating_add(self.absolute).unwrap_or(Timestamp::MAX);
        let session = Session { credentials, expires_at };
        let kept = Kept { session: session.clone(), started: now, used: now };
        self.with(|sessions| {
            sessions.retain(|_, kept| self.alive(kept, now));
            sessions.insert(token::hash(token.expose_secret()), kept);
        });
        (token, session)
    }

    /// The session of `token`, which counts as used now.
    pub fn find(&self, token: &str, now: Instant) -> Option<Session> {
        let hash = token::hash(token);
        self.with(|sessions| {
            let (key, kept) = sessions.get_key_value(&hash)?;
            if !token::same(key, &hash) || !self.alive(kept, now) {
                sessions.remove(&hash);
                return None;
            }
            let kept = sessions.get_mut(&hash)?;
            kept.used = now;
            Some(kept.session.clone())
        })
    }

    /// Ends the session of `token`.
    pub fn end(&self, token: &str) {
        self.with(|sessions| sessions.remove(&token::hash(token)));
    }

    /// Forgets the sessions that have expired.
    pub fn sweep(&self, now: Instant) {
        self.with(|sessions| sessions.retain(|_, kept| self.alive(kept, now)));
    }

    fn alive(&self, kept: &Kept, now: Instant) -> bool {
        now.duration_since(kept.used) < self.idle && now.duration_since(kept.started) < self.absolute
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<[u8; 32], Kept>) -> T) -> T {
        f(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn started(now: Instant) -> (Sessions, String) {
        let sessions = Sessions::new(10 * MINUTE, 30 * MINUTE);
        let credentials = Credentials::new(UserName::new("ada").unwrap(), "hunter2".into());
        let (token, _) = sessions.start(credentials, now);
        (sessions, token.expose_secret().to_owned())
    }

    #[test]
    fn a_session_ends_when_idle_at_its_age_and_at_logout() {
        let now = Instant::now();
        let (sessions, token) = started(now);
        assert!(sessions.find(&token, now + 9 * MINUTE).is_some());
        assert!(sessions.find(&token, now + 18 * MINUTE).is_some(), "use keeps it alive");
        assert!(sessions.find(&token, now + 27 * MINUTE).is_some());
        assert!(sessions.find(&token, now + 30 * MINUTE).is_none(), "but not for ever");

        let (sessions, token) = started(now);
        assert!(sessions.find(&token, now + 10 * MINUTE).is_none());

        let (sessions, token) = started(now);
        assert!(sessions.find("sdps_wrong", now).is_none());
        sessions.end(&token);
        assert!(sessions.find(&token, now).is_none());
    }

    #[test]
    fn expired_sessions_are_forgotten_with_their_credentials() {
        let now = Instant::now();
        let (sessions, _) = started(now);
        sessions.sweep(now + 10 * MINUTE);
        assert!(sessions.kept.lock().unwrap().is_empty());
    }

    #[test]
    fn neither_token_nor_password_can_be_printed() {
        let (sessions, token) = started(Instant::now());
        let shown = format!("{sessions:?}");
        assert!(!shown.contains("hunter2") && !shown.contains(&token));
    }
}
