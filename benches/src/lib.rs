#![doc = include_str!("../README.md")]
#![expect(clippy::unwrap_used, reason = "a benchmark stops where it cannot go on")]

pub mod agent;
pub mod websocket;
pub mod wire;

use std::time::{Duration, Instant};

/// How often each side is measured.
pub const ROUNDS: usize = 15;

/// The middle one of some durations.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// One side's time for one round.
pub fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let began = Instant::now();
    let _ = std::hint::black_box(work());
    began.elapsed()
}

/// The line that tells two medians, and how many times faster the first is.
pub fn line(what: &str, ours: Duration, peer: &str, theirs: Duration) -> String {
    let ratio = theirs.as_secs_f64() / ours.as_secs_f64().max(f64::EPSILON);
    format!(
        "{what:<42} sdp {:>9.3} ms   {peer} {:>9.3} ms   {ratio:>6.1} x",
        ours.as_secs_f64() * 1e3,
        theirs.as_secs_f64() * 1e3
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let ms = Duration::from_millis;
        assert_eq!(median(vec![ms(9), ms(1), ms(5)]), ms(5));
        assert_eq!(median(Vec::new()), Duration::ZERO);
    }

    #[test]
    fn a_line_tells_the_ratio() {
        let line = line("x", Duration::from_millis(2), "git", Duration::from_millis(5));
        assert!(line.ends_with("2.5 x"), "{line}");
    }
}
