//! Who needs an offer, and when. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use shared::ids::ConnectionId;

/// After an attempt that failed, or whose process died.
const RETRY: Duration = Duration::from_secs(15);

/// A connection on a server in trouble that its client watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Case {
    /// The last attempt to make an offer for it.
    pub(super) tried: Option<Tried>,
    /// The offer that stands.
    pub(super) offer: Option<Standing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tried {
    pub(super) ago: Duration,
    /// Whether there was an offer; none where nobody said.
    pub(super) made: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) connection: ConnectionId,
    /// Its server takes no clients any more either.
    pub(super) in_trouble: bool,
}

/// What to do for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Wait,
    Make,
    /// Take this offer back and make another.
    Replace(ConnectionId),
}

/// An offer that was not used is not repeated for as long again as it stood: its client may be one
/// that cannot change by itself.
pub(super) fn step(case: &Case, lifetime: Duration) -> Step {
    let rested = |pause| case.tried.is_none_or(|tried| tried.ago >= pause);
    match (case.offer, case.tried) {
        (Some(standing), _) if standing.in_trouble && rested(RETRY) => {
            Step::Replace(standing.connection)
        }
        (Some(_), _) => Step::Wait,
        (
            None,
            Some(Tried {
                made: Some(true), ..
            }),
        ) if !rested(lifetime * 2) => Step::Wait,
        (None, _) if !rested(RETRY.min(lifetime)) => Step::Wait,
        (None, _) => Step::Make,
    }
}

/// Whose turn it is, where there are more than one round can look after.
#[derive(Debug, Default)]
pub(super) struct Rota {
    last: Option<ConnectionId>,
}

impl Rota {
    /// The next ones after those of the round before.
    pub(super) fn turn(&self, needy: &BTreeSet<ConnectionId>, limit: usize) -> Vec<ConnectionId> {
        let after = |id: &&ConnectionId| self.last.is_none_or(|last| **id > last);
        let behind = needy.iter().filter(after);
        let before = needy.iter().filter(|id| !after(id));
        behind.chain(before).take(limit).copied().collect()
    }

    /// The round got as far as this one.
    pub(super) const fn reached(&mut self, last: ConnectionId) {
        self.last = Some(last);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use uuid::Uuid;

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(300);

    fn id(number: u128) -> ConnectionId {
        ConnectionId(Uuid::from_u128(number))
    }

    fn tried(seconds: u64, made: Option<bool>) -> Option<Tried> {
        let ago = Duration::from_secs(seconds);
        Some(Tried { ago, made })
    }

    fn standing(in_trouble: bool) -> Option<Standing> {
        let connection = id(9);
        Some(Standing {
            connection,
            in_trouble,
        })
    }

    #[rstest]
    #[case::never_tried(None, None, Step::Make)]
    #[case::under_way(tried(5, None), None, Step::Wait)]
    #[case::its_replica_died(tried(15, None), None, Step::Make)]
    #[case::no_room_a_moment_ago(tried(5, Some(false)), None, Step::Wait)]
    #[case::no_room_a_while_ago(tried(15, Some(false)), None, Step::Make)]
    #[case::offered(tried(100, Some(true)), standing(false), Step::Wait)]
    #[case::offered_long_ago(tried(9_000, Some(true)), standing(false), Step::Wait)]
    #[case::unused(tried(599, Some(true)), None, Step::Wait)]
    #[case::unused_and_rested(tried(600, Some(true)), None, Step::Make)]
    #[case::offer_lost_its_server(tried(60, Some(true)), standing(true), Step::Replace(id(9)))]
    #[case::offer_lost_its_server_at_once(tried(3, Some(true)), standing(true), Step::Wait)]
    fn offers_when_it_is_time(
        #[case] tried: Option<Tried>,
        #[case] offer: Option<Standing>,
        #[case] expected: Step,
    ) {
        assert_eq!(step(&Case { tried, offer }, LIFETIME), expected);
    }

    proptest! {
        #[test]
        fn everybody_gets_a_turn(count in 1_u128..60, limit in 1_usize..20) {
            let needy: BTreeSet<_> = (1..=count).map(id).collect();
            let mut rota = Rota::default();
            let mut seen = BTreeSet::new();
            for _ in 0..needy.len().div_ceil(limit) {
                let turn = rota.turn(&needy, limit);
                prop_assert_eq!(turn.len(), limit.min(needy.len()));
                if let Some(last) = turn.last() {
                    rota.reached(*last);
                }
                seen.extend(turn);
            }
            prop_assert_eq!(seen, needy);
        }
    }
}
