//! When a job that failed is tried again.

use std::time::Duration;

/// With the pauses below, hours pass until the last: a mail server may be away for a night.
pub(super) const MAX_ATTEMPTS: i32 = 20;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);

/// The pause after so many attempts: `chance`, from 0 to 1, of a bound that doubles each time. Jobs
/// that failed together come back one by one.
pub(super) fn pause(attempts: i32, chance: f64) -> Duration {
    bound(attempts).mul_f64(chance.clamp(0.0, 1.0))
}

fn bound(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0);
    FIRST
        .saturating_mul(2_u32.saturating_pow(doublings))
        .min(LONGEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(1, 1)]
    #[case(2, 2)]
    #[case(5, 16)]
    #[case(12, 2048)]
    #[case(13, 3600)]
    #[case(i32::MAX, 3600)]
    fn the_bound_doubles_up_to_an_hour(#[case] attempts: i32, #[case] seconds: u64) {
        assert_eq!(pause(attempts, 1.0), Duration::from_secs(seconds));
        assert_eq!(pause(attempts, 0.0), Duration::ZERO);
    }

    #[test]
    fn a_night_without_a_mail_server_is_waited_out() {
        let all: Duration = (1..MAX_ATTEMPTS).map(|attempts| pause(attempts, 0.5)).sum();
        assert!(all > Duration::from_secs(4 * 3600), "{all:?}");
    }

    proptest! {
        #[test]
        fn a_pause_is_within_its_bound(attempts: i32, chance in -1.0..2.0_f64) {
            prop_assert!(pause(attempts, chance) <= bound(attempts));
            prop_assert!(bound(attempts) <= bound(attempts.saturating_add(1)));
        }
    }
}
