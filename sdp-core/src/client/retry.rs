//! When a request is sent again.

use std::time::Duration;

use super::{ClientError, ClientOptions};
use crate::problem::ErrorCode;

/// The pauses of one request, which grow.
#[derive(Debug)]
pub(super) struct Pauses<'a> {
    options: &'a ClientOptions,
    left: u32,
    next: Duration,
}

impl<'a> Pauses<'a> {
    pub(super) fn new(options: &'a ClientOptions) -> Self {
        Self { options, left: options.retries, next: options.first_pause }
    }

    /// How long to wait before the next attempt; none when there is to be none.
    pub(super) fn after(&mut self, error: &ClientError, repeatable: bool) -> Option<Duration> {
        if self.left == 0 || took_its_time(error) || !error.is_transient() || !(repeatable || error.is_harmless()) {
            return None;
        }
        self.left -= 1;
        let pause = jittered(self.next).min(self.options.longest_pause);
        self.next = self.next.saturating_mul(2);
        let wanted = error.problem().and_then(|problem| problem.retry_after).map(Duration::from_secs);
        match wanted {
            Some(wanted) if wanted > self.options.longest_pause => None,
            Some(wanted) => Some(pause.max(wanted)),
            None => Some(pause),
        }
    }
}

/// Whether somebody waited in vain already: that is not likely to be faster the next time.
fn took_its_time(error: &ClientError) -> bool {
    use ErrorCode as E;
    matches!(error, ClientError::TimedOut { .. }) || matches!(error.code(), Some(E::Timeout | E::HostUnreachable))
}

/// Half to one and a half of it, so that clients that failed together do not try together.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Problem;

    fn refused(code: ErrorCode) -> ClientError {
        ClientError::Refused(Problem::new(code, "no"))
    }

    fn unreachable() -> ClientError {
        ClientError::Unreachable { server: "s".into(), source: "refused".into() }
    }

    fn broken() -> ClientError {
        ClientError::Broken { server: "s".into(), what: "w".into(), source: "reset".into() }
    }

    fn is_tried_again(error: &ClientError, repeatable: bool) -> bool {
        Pauses::new(&ClientOptions::default()).after(error, repeatable).is_some()
    }

    #[test]
    fn what_may_have_been_carried_out_is_repeated_only_where_that_is_safe() {
        for error in [broken(), refused(ErrorCode::AgentAway)] {
            assert!(is_tried_again(&error, true), "{error}");
            assert!(!is_tried_again(&error, false), "{error}");
        }
        for error in [unreachable(), refused(ErrorCode::RateLimited)] {
            assert!(is_tried_again(&error, false), "{error}");
        }
    }

    #[test]
    fn what_cannot_change_is_not_repeated() {
        for code in [
            ErrorCode::NotFound,
            ErrorCode::Conflict,
            ErrorCode::Timeout,
            ErrorCode::NotSignedIn,
            ErrorCode::InvalidInput,
        ] {
            assert!(!is_tried_again(&refused(code), true), "{code}");
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        let options = ClientOptions::default();
        let mut pauses = Pauses::new(&options);
        let taken: Vec<_> = std::iter::from_fn(|| pauses.after(&broken(), true)).collect();
        assert_eq!(taken.len(), 3);
        for (pause, base) in taken.iter().zip([200, 400, 800]) {
            let base = Duration::from_millis(base);
            assert!(*pause >= base / 2 && *pause <= base * 3 / 2, "{pause:?}");
        }
    }

    #[test]
    fn the_server_is_waited_for_as_long_as_it_says_unless_that_is_too_long() {
        let options = ClientOptions::default();
        let after = |seconds| {
            let problem = Problem::new(ErrorCode::RateLimited, "no").retry_after(Duration::from_secs(seconds));
            Pauses::new(&options).after(&ClientError::Refused(problem), false)
        };
        assert_eq!(after(7), Some(Duration::from_secs(7)));
        assert_eq!(after(31), None);
    }
}
