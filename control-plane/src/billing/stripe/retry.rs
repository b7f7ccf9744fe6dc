//! Which calls are made again, and when. Pure.

use std::time::Duration;

/// Of one call, the first included.
pub(super) const ATTEMPTS: u32 = 3;
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(4);

/// What an answer means for the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    /// The same call may have another answer.
    Again,
    /// It cannot at present, and the same call would only get the same answer.
    Busy,
    Refused,
}

/// By the status, what Stripe advises itself (`Stripe-Should-Retry`), and whether it repeats what it answered
/// to this idempotency key before.
pub(super) fn judge(status: u16, advice: Option<bool>, is_repeated: bool) -> Verdict {
    // 408: it did not arrive in time. 409: another call with this key, or on this thing, goes on.
    let may_pass = matches!(status, 408 | 409 | 424 | 429 | 500..=599);
    match (status, advice) {
        (200..=299, _) => Verdict::Done,
        (409, Some(false)) => Verdict::Refused,
        (_, Some(true)) if may_pass => Verdict::Again,
        _ if !may_pass => Verdict::Refused,
        (_, Some(false)) => Verdict::Busy,
        _ if is_repeated => Verdict::Busy,
        _ => Verdict::Again,
    }
}

/// The pause after so many attempts: `chance`, from 0 to 1, of a bound that doubles each time.
pub(super) fn pause(attempts: u32, chance: f64) -> Duration {
    let doublings = attempts.saturating_sub(1);
    let bound = FIRST.saturating_mul(2_u32.saturating_pow(doublings));
    bound.min(LONGEST).mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(200, None, false, Verdict::Done)]
    #[case(400, None, false, Verdict::Refused)]
    #[case(402, None, false, Verdict::Refused)]
    #[case(404, Some(true), false, Verdict::Refused)]
    #[case(408, None, false, Verdict::Again)]
    #[case(409, None, false, Verdict::Again)]
    #[case(409, Some(false), false, Verdict::Refused)]
    #[case(429, None, false, Verdict::Again)]
    #[case(429, Some(false), false, Verdict::Busy)]
    #[case(500, None, false, Verdict::Again)]
    #[case(500, None, true, Verdict::Busy)]
    #[case(500, Some(true), true, Verdict::Again)]
    #[case(503, Some(false), false, Verdict::Busy)]
    #[case(302, None, false, Verdict::Refused)]
    fn only_what_may_pass_is_tried_again(
        #[case] status: u16,
        #[case] advice: Option<bool>,
        #[case] is_repeated: bool,
        #[case] verdict: Verdict,
    ) {
        assert_eq!(judge(status, advice, is_repeated), verdict);
    }

    #[test]
    fn pauses_double_and_are_bounded() {
        let most: Vec<_> = (1..6).map(|it| pause(it, 1.0).as_millis()).collect();
        assert_eq!(most, [500, 1000, 2000, 4000, 4000]);
        assert_eq!(pause(u32::MAX, 1.0), LONGEST);
        assert_eq!(pause(3, 0.0), Duration::ZERO);
        assert_eq!(pause(3, 7.0), pause(3, 1.0));
    }
}
