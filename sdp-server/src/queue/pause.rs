//! The pause before something is tried again. Pure.

use std::time::Duration;

/// The longest that the other side may ask to be left alone.
const LONGEST_WISH: Duration = Duration::from_secs(3600);

/// After `attempts` failures: twice as long each time, up to `longest`, and between half of that and all of it as
/// `random` (0 to 1) has it, so that what failed together does not come back together. Never sooner than the other side
/// wishes.
pub(super) fn pause(
    attempts: u32,
    first: Duration,
    longest: Duration,
    wish: Option<Duration>,
    random: f64,
) -> Duration {
    let full = first.saturating_mul(2u32.saturating_pow(attempts)).min(longest);
    let jittered = full / 2 + (full / 2).mul_f64(random.clamp(0.0, 1.0));
    jittered.max(wish.unwrap_or_default().min(LONGEST_WISH))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(300);

    #[test]
    fn pauses_double_up_to_the_longest() {
        let all = |attempts| pause(attempts, FIRST, LONGEST, None, 1.0).as_secs();
        assert_eq!([0, 1, 2, 3, 8, 9, u32::MAX].map(all), [1, 2, 4, 8, 256, 300, 300]);
    }

    proptest! {
        #[test]
        fn a_pause_is_within_its_bounds(attempts: u32, random in 0.0f64..1.0, wish in proptest::option::of(0u64..10_000)) {
            let wish = wish.map(Duration::from_secs);
            let pause = pause(attempts, FIRST, LONGEST, wish, random);
            prop_assert!(pause >= FIRST / 2 && pause <= LONGEST.max(LONGEST_WISH));
            prop_assert!(pause >= wish.unwrap_or_default().min(LONGEST_WISH));
        }
    }
}
