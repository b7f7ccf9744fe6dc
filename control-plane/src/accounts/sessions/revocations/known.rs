//! Which sessions have ended as far as this replica knows, and until when it may rely on that: a pure
//! core.
//!
//! Word of an ended session comes over a connection that answers pings in order: when a ping is
//! answered, everything that was said before it was asked has arrived. So the set is whole as of the
//! last answered ping, and is relied on for a short time from the moment when that ping was asked.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::accounts::SessionId;

/// How long after it was asked an answered ping is relied on: what an ended session may outlive its
/// end where the connection breaks without a sign.
pub(super) const LEASE: Duration = Duration::from_millis(750);

#[derive(Debug)]
pub(super) struct Known {
    /// Until when each is remembered: no access token of it lives longer.
    ended: HashMap<SessionId, Instant>,
    capacity: usize,
    /// Until when one may be missing for which there was no room.
    incomplete_until: Option<Instant>,
    trusted_until: Option<Instant>,
}

impl Known {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            ended: HashMap::new(),
            capacity,
            incomplete_until: None,
            trusted_until: None,
        }
    }

    /// Whether the session has ended; none where this replica cannot be sure.
    pub(super) fn answer(&self, session: SessionId, now: Instant) -> Option<bool> {
        if self.ended.contains_key(&session) {
            return Some(true);
        }
        let is_past = |time: Option<Instant>| time.is_none_or(|time| time <= now);
        (!is_past(self.trusted_until) && is_past(self.incomplete_until)).then_some(false)
    }

    pub(super) fn remember(&mut self, session: SessionId, until: Instant) {
        if self.ended.len() >= self.capacity && !self.ended.contains_key(&session) {
            self.incomplete_until = self.incomplete_until.max(Some(until));
            return;
        }
        let known = self.ended.entry(session).or_insert(until);
        *known = until.max(*known);
    }

    /// The set was whole at this moment.
    pub(super) fn was_whole(&mut self, at: Instant) {
        self.trusted_until = self.trusted_until.max(Some(at + LEASE));
    }

    /// Word may be missed from now on.
    pub(super) const fn is_deaf(&mut self) {
        self.trusted_until = None;
    }

    /// Drops what has no living token.
    pub(super) fn forget(&mut self, now: Instant) {
        self.ended.retain(|_, until| *until > now);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn nothing_is_sure_before_the_set_was_whole() {
        let (known, start) = (Known::new(10), Instant::now());
        assert_eq!(known.answer(SessionId::generate(), start), None);
    }

    #[rstest]
    #[case(0, Some(false))]
    #[case(749, Some(false))]
    #[case(750, None)]
    #[case(60_000, None)]
    fn a_whole_set_is_relied_on_for_the_lease(#[case] after: u64, #[case] answer: Option<bool>) {
        let (mut known, start) = (Known::new(10), Instant::now());
        known.was_whole(start);
        let session = SessionId::generate();
        assert_eq!(known.answer(session, start + milliseconds(after)), answer);
    }

    #[test]
    fn a_late_answer_to_an_early_ping_shortens_nothing() {
        let (mut known, start) = (Known::new(10), Instant::now());
        known.was_whole(start + milliseconds(500));
        known.was_whole(start);
        let then = start + milliseconds(1_200);
        assert_eq!(known.answer(SessionId::generate(), then), Some(false));
    }

    #[test]
    fn an_ended_session_is_known_with_and_without_the_lease() {
        let (mut known, start) = (Known::new(10), Instant::now());
        let session = SessionId::generate();
        known.remember(session, start + LIFE);
        assert_eq!(known.answer(session, start), Some(true));
        known.was_whole(start);
        assert_eq!(known.answer(session, start), Some(true));
        known.is_deaf();
        assert_eq!(known.answer(session, start), Some(true));
        assert_eq!(known.answer(SessionId::generate(), start), None);
    }

    #[test]
    fn a_session_is_forgotten_with_its_last_token() {
        let (mut known, start) = (Known::new(10), Instant::now());
        let (early, late) = (SessionId::generate(), SessionId::generate());
        known.remember(early, start + LIFE);
        known.remember(late, start + LIFE * 2);
        // Word of it comes again, with less to live.
        known.remember(late, start + LIFE);
        known.forget(start + LIFE);
        assert_eq!(known.ended.len(), 1);
        assert_eq!(known.answer(late, start), Some(true));
    }

    #[test]
    fn without_room_nobody_is_let_in_on_a_guess() {
        let (mut known, start) = (Known::new(1), Instant::now());
        let (kept, missing) = (SessionId::generate(), SessionId::generate());
        known.remember(kept, start + LIFE);
        known.was_whole(start);
        known.remember(missing, start + LIFE);
        assert_eq!(known.answer(kept, start), Some(true));
        assert_eq!(known.answer(missing, start), None);
        known.forget(start + LIFE);
        known.was_whole(start + LIFE);
        assert_eq!(known.answer(missing, start + LIFE), Some(false));
    }
}
