//! How often a sign-in may fail.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sdp_core::UserName;

/// How many counts are remembered: more is an attack, and ends in fewer attempts.
const REMEMBERED: usize = 30_000;

/// An address over all users, and a user over all addresses, has this many times the attempts.
const IN_ALL: u32 = 10;

/// What attempts are counted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    /// In lower case, as below.
    User(String),
    Both(IpAddr, String),
}

/// Counts attempts per address, per user, and per both.
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

    /// Counts an attempt.
    ///
    /// # Errors
    /// After how long to try again, when there were too many.
    pub fn attempt(&self, address: IpAddr, user: &UserName, now: Instant) -> Result<(), Duration> {
        let mut counts = self.counts();
        if counts.len() >= REMEMBERED {
            counts.retain(|_, (since, _)| now.duration_since(*since) < self.window);
        }
        if counts.len() >= REMEMBERED {
            return Err(self.window);
        }
        for (key, limit) in keys(address, user).into_iter().zip(self.limits()) {
            let (since, count) = counts.entry(key).or_insert((now, 0));
            let age = now.duration_since(*since);
            if age >= self.window {
                (*since, *count) = (now, 0);
            }
            // What the first refuses makes no entry for the others: one address cannot fill the memory.
            if *count >= limit {
                return Err(self.window.saturating_sub(age).max(Duration::from_secs(1)));
            }
            *count += 1;
        }
        Ok(())
    }

    /// Takes back an attempt that nobody could judge: the agent or the git host was away.
    pub fn undecided(&self, address: IpAddr, user: &UserName) {
        let mut counts = self.counts();
        for key in keys(address, user) {
            if let Some((_, count)) = counts.get_mut(&key) {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// Takes back an attempt that succeeded, and the user's before it from that address.
    pub fn succeeded(&self, address: IpAddr, user: &UserName) {
        self.undecided(address, user);
        let [_, both, _] = keys(address, user);
        self.counts().remove(&both);
    }

    fn limits(&self) -> [u32; 3] {
        let in_all = self.attempts.saturating_mul(IN_ALL);
        [in_all, self.attempts, in_all]
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Key, (Instant, u32)>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keys(address: IpAddr, user: &UserName) -> [Key; 3] {
    let (address, user) = (network(address), user.as_str().to_ascii_lowercase());
    [Key::Address(address), Key::Both(address, user.clone()), Key::User(user)]
}

/// Who has one IPv6 address has the 2⁶⁴ beside it.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => address.into(),
            None => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        },
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn user(name: &str) -> UserName {
        UserName::new(name).unwrap()
    }

    #[test]
    fn too_many_attempts_are_refused_until_the_window_is_over() {
        let limiter = Limiter::new(2, MINUTE);
        let (home, other) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let (ada, now) = (user("ada"), Instant::now());
        assert!(limiter.attempt(home, &ada, now).is_ok() && limiter.attempt(home, &ada, now).is_ok());
        let later = now + Duration::from_secs(20);
        assert_eq!(limiter.attempt(home, &ada, later), Err(Duration::from_secs(40)));
        assert!(limiter.attempt(other, &ada, now).is_ok(), "another address is not punished");
        assert!(limiter.attempt(home, &ada, now + MINUTE).is_ok());
    }

    #[test]
    fn a_success_forgives_the_failures_before_it() {
        let limiter = Limiter::new(2, MINUTE);
        let (home, ada, now) = (IpAddr::from([127, 0, 0, 1]), user("ada"), Instant::now());
        for _ in 0..50 {
            assert!(limiter.attempt(home, &ada, now).is_ok());
            limiter.succeeded(home, &ada);
        }
    }

    #[test]
    fn an_address_that_tries_many_users_is_refused_and_fills_no_memory() {
        let limiter = Limiter::new(1, MINUTE);
        let (home, now) = (IpAddr::from([127, 0, 0, 1]), Instant::now());
        let tries = (0..1000).filter(|n| limiter.attempt(home, &user(&format!("u{n}")), now).is_ok());
        assert_eq!(tries.count(), 10);
        assert_eq!(limiter.counts().len(), 21);
    }

    #[test]
    fn a_user_who_is_tried_from_many_addresses_is_refused() {
        let limiter = Limiter::new(1, MINUTE);
        let (ada, now) = (user("ada"), Instant::now());
        let tries = (0..100).filter(|n| limiter.attempt(IpAddr::from([10, 0, 0, *n]), &ada, now).is_ok());
        assert_eq!(tries.count(), 10);
    }

    #[test]
    fn the_addresses_of_one_network_count_as_one() {
        let limiter = Limiter::new(1, MINUTE);
        let (ada, now) = (user("ada"), Instant::now());
        assert!(limiter.attempt("2001:db8::1".parse().unwrap(), &ada, now).is_ok());
        assert!(limiter.attempt("2001:db8::2".parse().unwrap(), &ada, now).is_err());
        assert!(limiter.attempt("2001:db8:0:1::2".parse().unwrap(), &ada, now).is_ok());
    }
}
