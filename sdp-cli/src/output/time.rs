//! Times as people say them.

use std::time::Duration;

use jiff::Timestamp;

/// How long: `340ms`, `2.4s`, `3m 12s`, `5h 2m`, `6d 3h`.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{:.1}s", (duration.as_millis() / 100) as f64 / 10.0),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

fn two(first: u64, unit: &str, second: u64, smaller: &str) -> String {
    if second == 0 { format!("{first}{unit}") } else { format!("{first}{unit} {second}{smaller}") }
}

/// How long ago: `3m ago`, in one unit.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", one(now.duration_since(at).unsigned_abs()))
}

/// How long there is left: `in 6d`; `over` when there is nothing left.
pub(crate) fn left(until: Timestamp, now: Timestamp) -> String {
    let left = until.duration_since(now);
    if left.is_positive() { format!("in {}", one(left.unsigned_abs())) } else { "over".into() }
}

/// To the nearest.
fn one(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let nearest = |unit: u64| (seconds + unit / 2) / unit;
    let (minutes, hours) = (nearest(60), nearest(3_600));
    match () {
        () if seconds < 60 => format!("{seconds}s"),
        () if minutes < 60 => format!("{minutes}m"),
        () if hours < 24 => format!("{hours}h"),
        () => format!("{}d", nearest(86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1.0s"),
            (59_999, "59.9s"),
            (60_000, "1m"),
            (192_000, "3m 12s"),
            (18_120_000, "5h 2m"),
            (529_200_000, "6d 3h"),
        ] {
            assert_eq!(short(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn the_past_and_the_future_are_told_apart() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(ago("2026-01-02T03:01:05Z".parse().unwrap(), now), "3m ago");
        assert_eq!(left("2026-01-09T03:04:04Z".parse().unwrap(), now), "in 7d");
        assert_eq!(left("2026-01-02T04:04:00Z".parse().unwrap(), now), "in 1h");
        assert_eq!(left(now, now), "over");
    }
}
