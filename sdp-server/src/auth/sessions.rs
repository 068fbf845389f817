//! Signed-in people. In memory only: a restart asks everybody again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sdp_core::{ApiToken, Credentials, UserName};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{SESSION_TOKEN, token};

/// How many sessions a person may have: a further one ends the one that was not used for longest.
const PER_USER: usize = 50;

/// A signed-in person.
#[derive(Debug, Clone)]
pub struct Session {
    user: UserName,
    /// For the person's deploys; zeroized when the session and all requests that use it are gone. A token has none.
    pub credentials: Option<Credentials>,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
}

impl Session {
    /// What stands for a session where a token is used.
    pub(super) fn of_token(token: &ApiToken) -> Self {
        Self { user: token.user.clone(), credentials: None, expires_at: token.expires_at }
    }

    /// Who.
    pub fn user(&self) -> &UserName {
        &self.user
    }
}

#[derive(Debug)]
struct Kept {
    session: Session,
    started: Instant,
    used: Instant,
    ended: CancellationToken,
    _end: DropGuard,
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

    /// Starts a session of `user`, who may have spelled their name otherwise for the git host, and gives its token.
    pub fn start(&self, user: UserName, credentials: Credentials, now: Instant) -> (SecretString, Session) {
        let token = token::new_token(SESSION_TOKEN);
        let expires_at = Timestamp::now().saturating_add(self.absolute).unwrap_or(Timestamp::MAX);
        let session = Session { user, credentials: Some(credentials), expires_at };
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        let kept = Kept { session: session.clone(), started: now, used: now, ended, _end: end };
        self.with(|sessions| {
            sessions.retain(|_, kept| self.alive(kept, now));
            let own = sessions.iter().filter(|(_, kept)| kept.session.user == session.user);
            let mut own: Vec<_> = own.map(|(hash, kept)| (kept.used, *hash)).collect();
            if own.len() >= PER_USER {
                own.sort_unstable();
                sessions.remove(&own[0].1);
            }
            sessions.insert(token::hash(token.expose_secret()), kept);
        });
        (token, session)
    }

    /// The session of `token`, which counts as used now; and what is cancelled when it ends.
    pub fn find(&self, token: &str, now: Instant) -> Option<(Session, CancellationToken)> {
        let hash = token::hash(token);
        self.with(|sessions| {
            let (key, kept) = sessions.get_key_value(&hash)?;
            if !token::same(key, &hash) || !self.alive(kept, now) {
                sessions.remove(&hash);
                return None;
            }
            let kept = sessions.get_mut(&hash)?;
            kept.used = now;
            Some((kept.session.clone(), kept.ended.clone()))
        })
    }

    /// Ends the session of `token`.
    pub fn end(&self, token: &str) {
        self.with(|sessions| sessions.remove(&token::hash(token)));
    }

    /// Ends every session of somebody. Gives how many there were.
    pub fn end_all(&self, user: &UserName) -> usize {
        self.with(|sessions| {
            let before = sessions.len();
            sessions.retain(|_, kept| kept.session.user != *user);
            before - sessions.len()
        })
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
        let (token, _) = sessions.start(credentials.username().clone(), credentials, now);
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
    fn all_of_a_persons_sessions_end_at_once_and_say_so() {
        let now = Instant::now();
        let (sessions, first) = started(now);
        let start = |user: &str| {
            let user = UserName::new(user).unwrap();
            sessions.start(user.clone(), Credentials::new(user, "x".into()), now)
        };
        let ((second, _), (others, _)) = (start("ada"), start("bob"));
        let (_, ended) = sessions.find(&first, now).unwrap();
        assert_eq!(sessions.end_all(&"ada".parse().unwrap()), 2);
        assert!(ended.is_cancelled() && sessions.find(second.expose_secret(), now).is_none());
        assert!(sessions.find(others.expose_secret(), now).is_some());
    }

    #[test]
    fn a_person_who_signs_in_again_and_again_keeps_the_sessions_that_are_used() {
        let now = Instant::now();
        let (sessions, used) = started(now);
        for n in 1..=2 * PER_USER as u64 {
            let at = now + Duration::from_millis(n);
            let user = UserName::new("ada").unwrap();
            sessions.start(user.clone(), Credentials::new(user, "x".into()), at);
            assert!(sessions.find(&used, at + Duration::from_micros(1)).is_some());
        }
        assert_eq!(sessions.kept.lock().unwrap().len(), PER_USER);
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
