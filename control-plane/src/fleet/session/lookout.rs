//! Whose round trips the node measures: what it was told last, and at most one word a second. Pure.

use std::time::{Duration, Instant};

use shared::ids::PeerId;
use shared::protocol::Watch;

/// The first version of the protocol that measures.
const SINCE: u16 = 2;
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Lookout {
    understood: bool,
    wanted: Vec<PeerId>,
    told: Vec<PeerId>,
    /// Not before then.
    next: Option<Instant>,
}

impl Lookout {
    pub(super) const fn new(protocol: u16) -> Self {
        Self {
            understood: protocol >= SINCE,
            wanted: Vec::new(),
            told: Vec::new(),
            next: None,
        }
    }

    pub(super) fn want(&mut self, peers: Vec<PeerId>) {
        if self.understood {
            self.wanted = peers;
        }
    }

    /// What to tell the node now.
    pub(super) fn due(&mut self, now: Instant) -> Option<Watch> {
        if self.wanted == self.told || self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.told.clone_from(&self.wanted);
        self.next = Some(now + PAUSE);
        let peers = self.told.clone();
        Some(Watch { peers })
    }

    /// When to ask again; none while the node knows.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.next.filter(|_| self.wanted != self.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(numbers: &[u64]) -> Vec<PeerId> {
        numbers.iter().copied().map(PeerId).collect()
    }

    fn watch(numbers: &[u64]) -> Option<Watch> {
        let peers = peers(numbers);
        Some(Watch { peers })
    }

    #[test]
    fn changes_within_a_second_are_told_at_once() {
        let (mut lookout, now) = (Lookout::new(2), Instant::now());
        assert_eq!(lookout.due(now), None);
        lookout.want(peers(&[1]));
        assert_eq!(lookout.due(now), watch(&[1]));
        lookout.want(peers(&[1, 2]));
        lookout.want(peers(&[1, 2, 3]));
        assert_eq!(lookout.due(now), None);
        assert_eq!(lookout.timeout(), Some(now + PAUSE));
        assert_eq!(lookout.due(now + PAUSE), watch(&[1, 2, 3]));
        assert_eq!(lookout.timeout(), None);
        lookout.want(peers(&[]));
        assert_eq!(lookout.due(now + PAUSE * 2), watch(&[]));
    }

    #[test]
    fn what_was_taken_back_in_time_is_not_told() {
        let (mut lookout, now) = (Lookout::new(2), Instant::now());
        lookout.want(peers(&[1]));
        lookout.due(now);
        lookout.want(peers(&[2]));
        lookout.want(peers(&[1]));
        assert_eq!(lookout.due(now + PAUSE), None);
    }

    #[test]
    fn an_agent_of_the_first_version_is_asked_nothing() {
        let mut lookout = Lookout::new(1);
        lookout.want(peers(&[1]));
        assert_eq!(lookout.due(Instant::now()), None);
        assert_eq!(lookout.timeout(), None);
    }
}
