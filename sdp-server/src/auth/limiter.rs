//! How often a sign-in may fail.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sdp_core::UserName;

/// How many (address, user) pairs are remembered: more is an attack, and ends in fewer attempts.
const REMEMBERED: usize = 10_000;

/// An address has this many times the attempts of one user over all users.
const USERS_PER_ADDRESS: u32 = 10;

type Key = (IpAddr, Option<UserName>);

/// Counts attempts per address and user, and per address.
#[derive(Debug)]
pub struct Limiter {
    attempts: u32,
    window: Duration,
    counts: Mutex<HashMap<Key, (Instant, u32)>>,
}

impl Limiter {
    /// Allows `attempts` within `window`.
    pub fn new(attempts: u32, window: Duration) -> Self {
        Self { attempts, window, counts: Mutex::default() }
    }

    /// Counts an attempt. False when there were too many.
    pub fn attempt(&self, address: IpAddr, user: &UserName, now: Instant) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= REMEMBERED {
            counts.retain(|_, (since, _)| now.duration_since(*since) < self.window);
        }
        if counts.len() >= REMEMBERED {
            return false;
        }
        let limits = [(Some(user.clone()), self.attempts), (None, self.attempts.saturating_mul(USERS_PER_ADDRESS))];
        let mut allowed = true;
        for (user, limit) in limits {
            let (since, count) = counts.entry((address, user)).or_insert((now, 0));
            if now.duration_since(*since) >= self.window {
                (*since, *count) = (now, 0);
            }
            *count = count.saturating_add(1);
            allowed &= *count <= limit;
        }
        allowed
    }

    /// Takes back an attempt that nobody could judge: the agent or the git host was away.
    pub fn undecided(&self, address: IpAddr, user: &UserName) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for key in [(address, Some(user.clone())), (address, None)] {
            if let Some((_, count)) = counts.get_mut(&key) {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// Takes back an attempt that succeeded, and the user's before it.
    pub fn succeeded(&self, address: IpAddr, user: &UserName) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.remove(&(address, Some(user.clone())));
        if let Some((_, count)) = counts.get_mut(&(address, None)) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_attempts_are_refused_until_the_window_is_over() {
        let limiter = Limiter::new(2, Duration::from_secs(60));
        let (home, other) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let (ada, now) = (UserName::new("ada").unwrap(), Instant::now());
        assert!(limiter.attempt(home, &ada, now) && limiter.attempt(home, &ada, now));
        assert!(!limiter.attempt(home, &ada, now));
        assert!(limiter.attempt(other, &ada, now), "another address is not punished");
        assert!(limiter.attempt(home, &ada, now + Duration::from_secs(60)));
    }

    #[test]
    fn a_success_forgives_the_failures_before_it() {
        let limiter = Limiter::new(2, Duration::from_secs(60));
        let (home, ada, now) = (IpAddr::from([127, 0, 0, 1]), UserName::new("ada").unwrap(), Instant::now());
        for _ in 0..50 {
            assert!(limiter.attempt(home, &ada, now));
            limiter.succeeded(home, &ada);
        }
    }

    #[test]
    fn an_address_that_tries_many_users_is_refused() {
        let limiter = Limiter::new(1, Duration::from_secs(60));
        let (home, now) = (IpAddr::from([127, 0, 0, 1]), Instant::now());
        let tries = (0..20).filter(|n| limiter.attempt(home, &UserName::new(format!("u{n}")).unwrap(), now));
        assert_eq!(tries.count(), 10);
    }
}
