//! Which echoes are out, and whose answer a reply is. Pure: time and randomness are passed in.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::Rng;
use shared::ids::PeerId;
use shared::protocol::MAX_WATCHED;

use super::echo::Mark;
use super::{RoundTrip, Target};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(4);

/// Echoes that are out at most: fewer than there are sequence numbers, so that each names one.
const MAX_OUT: usize = 8 * MAX_WATCHED;

#[derive(Debug)]
struct Echo {
    peer: PeerId,
    address: IpAddr,
    token: u64,
    sent: Instant,
}

/// The echoes that are out.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    out: HashMap<u16, Echo>,
    /// Oldest first; answered ones are still in it.
    order: VecDeque<(Instant, u16)>,
    next: u16,
}

impl Rounds {
    /// A new echo to this target.
    pub(super) fn send(&mut self, target: Target, now: Instant, rng: &mut impl Rng) -> Mark {
        self.forget(now);
        let mark = Mark {
            sequence: self.next,
            token: rng.random(),
        };
        self.next = self.next.wrapping_add(1);
        let echo = Echo {
            peer: target.peer,
            address: target.address,
            token: mark.token,
            sent: now,
        };
        self.out.insert(mark.sequence, echo);
        self.order.push_back((now, mark.sequence));
        mark
    }

    /// Whose answer this is, and how long it took. Each counts once.
    pub(super) fn answer(&mut self, from: IpAddr, mark: Mark, now: Instant) -> Option<RoundTrip> {
        let echo = self.out.get(&mark.sequence)?;
        let took = now.saturating_duration_since(echo.sent);
        if echo.address != from || echo.token != mark.token || took > PATIENCE {
            return None;
        }
        let echo = self.out.remove(&mark.sequence)?;
        Some((
            echo.peer,
            u32::try_from(took.as_micros()).unwrap_or(u32::MAX),
        ))
    }

    fn forget(&mut self, now: Instant) {
        let too_old = |sent: Instant| now.saturating_duration_since(sent) > PATIENCE;
        while let Some((_, sequence)) = self
            .order
            .front()
            .filter(|(sent, _)| too_old(*sent) || self.order.len() >= MAX_OUT)
        {
            self.out.remove(sequence);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn target(peer: u64, address: &str) -> Target {
        Target {
            peer: PeerId(peer),
            address: address.parse().expect("an address"),
        }
    }

    #[test]
    fn only_the_one_who_was_asked_answers_and_once() {
        let (start, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let at = |millis| start + Duration::from_millis(millis);
        let (one, two) = (target(1, "10.8.0.2"), target(2, "10.8.0.3"));
        let mut rounds = Rounds::default();
        let first = rounds.send(one, at(0), &mut rng);
        let second = rounds.send(two, at(0), &mut rng);
        assert_ne!(first, second);
        assert_eq!(rounds.answer(two.address, first, at(1)), None);
        let forged = Mark {
            token: first.token ^ 1,
            ..first
        };
        assert_eq!(rounds.answer(one.address, forged, at(1)), None);
        let stranger = Mark {
            sequence: 999,
            ..first
        };
        assert_eq!(rounds.answer(one.address, stranger, at(1)), None);
        let answer = rounds.answer(one.address, first, at(25));
        assert_eq!(answer, Some((PeerId(1), 25_000)));
        assert_eq!(rounds.answer(one.address, first, at(26)), None);
        // Late by a second or two still counts, much later does not.
        let answer = rounds.answer(two.address, second, at(2_500));
        assert_eq!(answer, Some((PeerId(2), 2_500_000)));
        let third = rounds.send(one, at(3_000), &mut rng);
        assert_eq!(rounds.answer(one.address, third, at(7_001)), None);
    }

    #[test]
    fn what_is_out_is_bounded() {
        let (start, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let one = target(1, "10.8.0.2");
        let mut rounds = Rounds::default();
        let marks: Vec<_> = (0..70_000)
            .map(|_| rounds.send(one, start, &mut rng))
            .collect();
        assert!(rounds.out.len() <= MAX_OUT && rounds.order.len() <= MAX_OUT);
        let last = *marks.last().expect("sent");
        assert!(rounds.answer(one.address, last, start).is_some());
        assert_eq!(rounds.answer(one.address, marks[0], start), None);
        rounds.send(one, start + Duration::from_secs(5), &mut rng);
        assert_eq!((rounds.out.len(), rounds.order.len()), (1, 1));
    }
}
