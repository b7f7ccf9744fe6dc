//! How far a plan reaches: which servers, how many connections, until when. Pure.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use shared::ids::ConnectionId;

/// A plan's bounds, of a person at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Servers up to this tier.
    pub(super) tier: i16,
    /// The same once what was paid for is over.
    pub(super) lasting_tier: i16,
    pub(super) max_connections: i32,
    /// When what was paid for is over.
    pub(super) ends_at: Option<DateTime<Utc>>,
}

/// Where a live connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) connection: ConnectionId,
    /// Its server's; none where the server is gone.
    pub(super) tier: Option<i16>,
    /// Which of the plan's places it has.
    pub(super) place: Option<i16>,
    /// It is offered in place of this one.
    pub(super) offered_for: Option<ConnectionId>,
}

impl Bounds {
    /// When a connection to a server of this tier ends. Where the server stays open it goes on under the free
    /// plan's limits.
    pub(super) fn end_on(self, tier: i16) -> Option<DateTime<Utc>> {
        self.ends_at.filter(|_| tier > self.lasting_tier)
    }

    /// The same for a connection that is live.
    pub(super) fn end_of(self, spot: Spot) -> Option<DateTime<Utc>> {
        spot.tier.and_then(|tier| self.end_on(tier))
    }

    /// Whether one of them has a place that the plan does not have.
    pub(super) fn is_beyond(self, spots: &[Spot]) -> bool {
        spots
            .iter()
            .filter_map(|spot| spot.place)
            .any(|place| i32::from(place) > self.max_connections)
    }
}

/// The connections that the plan has no place for: those on servers that it does not open, then the latest of those
/// that are too many, and what is offered in place of one of these.
pub(super) fn unfit(spots: &[Spot], bounds: Bounds) -> Vec<ConnectionId> {
    let is_open = |spot: &&Spot| spot.tier.is_none_or(|tier| tier <= bounds.tier);
    let places = usize::try_from(bounds.max_connections).unwrap_or(0);
    let mut placed: Vec<_> = spots
        .iter()
        .filter(is_open)
        .filter(|spot| spot.place.is_some())
        .map(|spot| spot.connection)
        .collect();
    // By age: ids are in the order in which they were made.
    placed.sort_unstable();
    let too_many = placed.into_iter().skip(places);
    let closed = spots.iter().filter(|spot| !is_open(spot));
    let ending: HashSet<_> = closed.map(|spot| spot.connection).chain(too_many).collect();
    let ends = |spot: &&Spot| {
        let of = spot.offered_for;
        ending.contains(&spot.connection) || of.is_some_and(|of| ending.contains(&of))
    };
    let ending = spots.iter().filter(ends);
    ending.map(|spot| spot.connection).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> ConnectionId {
        ConnectionId(Uuid::from_u128(number))
    }

    fn spot(number: u128, tier: i16, place: i16) -> Spot {
        Spot {
            connection: id(number),
            tier: Some(tier),
            place: Some(place),
            offered_for: None,
        }
    }

    const fn bounds(tier: i16, max_connections: i32) -> Bounds {
        Bounds {
            tier,
            lasting_tier: 0,
            max_connections,
            ends_at: None,
        }
    }

    #[test]
    fn a_closed_server_and_a_missing_place_end_a_connection() {
        let live = [spot(1, 1, 1), spot(3, 0, 2), spot(2, 0, 3), spot(4, 0, 4)];
        assert_eq!(unfit(&live, bounds(1, 5)), []);
        assert_eq!(unfit(&live, bounds(0, 5)), [id(1)]);
        // Of those that the plan opens, the oldest stays.
        assert_eq!(unfit(&live, bounds(0, 1)), [id(1), id(3), id(4)]);
    }

    #[test]
    fn what_has_no_place_takes_none_and_an_offer_goes_with_what_it_is_for() {
        let leaving = Spot {
            place: None,
            ..spot(1, 0, 0)
        };
        let offer = Spot {
            place: None,
            offered_for: Some(id(3)),
            ..spot(4, 0, 0)
        };
        let live = [leaving, spot(2, 0, 1), spot(3, 0, 2), offer];
        assert_eq!(unfit(&live, bounds(0, 2)), []);
        assert_eq!(unfit(&live, bounds(0, 1)), [id(3), id(4)]);
    }

    #[test]
    fn a_plan_ends_a_connection_only_where_the_free_one_does_not_open_its_server() {
        let end = Some(DateTime::UNIX_EPOCH);
        let paid = Bounds {
            ends_at: end,
            ..bounds(2, 5)
        };
        assert_eq!(paid.end_on(0), None);
        assert_eq!(paid.end_on(1), end);
        assert_eq!(paid.end_of(spot(1, 1, 1)), end);
        let gone = Spot {
            tier: None,
            ..spot(1, 1, 1)
        };
        assert_eq!(paid.end_of(gone), None);
    }

    proptest! {
        #[test]
        fn what_stays_fits_and_nothing_else_ends(
            live in prop::collection::btree_map(0..40_u128, (0..3_i16, any::<bool>()), 0..12),
            tier in 0..3_i16,
            places in 1..6_i32,
        ) {
            let live: Vec<_> = live.into_iter().enumerate().map(|(n, (number, (tier, has_place)))| Spot {
                place: has_place.then(|| i16::try_from(n).expect("few")),
                ..spot(number, tier, 0)
            }).collect();
            let ending: HashSet<_> = unfit(&live, bounds(tier, places)).into_iter().collect();
            let stays: Vec<_> = live.iter().filter(|it| !ending.contains(&it.connection)).collect();
            prop_assert!(stays.iter().all(|it| it.tier <= Some(tier)));
            let placed = stays.iter().filter(|it| it.place.is_some()).count();
            let open = live.iter().filter(|it| it.place.is_some() && it.tier <= Some(tier)).count();
            prop_assert_eq!(placed, open.min(usize::try_from(places).expect("few")));
        }
    }
}
