//! The choice of server. Pure: the view and the time come in, a ranking comes out.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::iter;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use shared::ids::ServerId;

use super::view::{FleetView, Live, Server, ServerStatus};

/// Least load that one client on its way adds, in points of 100. Without it a burst would fill a
/// large server that is a hair less loaded than the others before its next report.
const MIN_ASSIGNMENT_LOAD: f64 = 0.1;

/// The first version of the protocol in which nodes know plans' limits.
const LIMITS_SINCE: u16 = 2;

/// What a client may use and asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Criteria {
    /// This server and no other.
    pub server: Option<ServerId>,
    /// Location, country, ISO code or city.
    pub location: Option<String>,
    /// The plan's tier: servers up to this one.
    pub tier: i16,
    /// The plan limits what the client may use: only nodes that know limits.
    pub limits: bool,
    /// Every one of these.
    pub features: Vec<String>,
}

/// The servers that may take the client now, best first: by load with what is on its way, then
/// ping, then id. Only those that are taken are put in order: few of many are ever asked.
pub fn rank<'view>(
    view: &'view FleetView,
    criteria: &Criteria,
    now: DateTime<Utc>,
) -> impl Iterator<Item = &'view Arc<Server>> + use<'view> {
    let named = criteria.server.map(|named| view.get(named));
    let among = match (&named, &criteria.location) {
        (Some(server), _) => server.map(std::slice::from_ref).unwrap_or_default(),
        (None, Some(place)) => view.at(place),
        (None, None) => view.servers(),
    };
    let eligible = among.iter().filter_map(|server| {
        let live = server.live();
        is_eligible(server, &live, criteria, now).then(|| Candidate {
            load: expected_load(server, &live),
            ping: live.ping,
            server,
        })
    });
    let mut ranked: BinaryHeap<_> = eligible.map(Reverse).collect();
    iter::from_fn(move || ranked.pop().map(|Reverse(best)| best.server))
}

/// A server that may take the client; the better one is less.
#[derive(Debug)]
struct Candidate<'view> {
    load: f64,
    ping: u32,
    server: &'view Arc<Server>,
}

impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.load
            .total_cmp(&other.load)
            .then(self.ping.cmp(&other.ping))
            .then_with(|| self.server.id.cmp(&other.server.id))
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate<'_> {}

/// Whether a server takes clients at all now.
#[must_use]
pub fn is_available(server: &Server, live: &Live, now: DateTime<Utc>) -> bool {
    server.status == ServerStatus::Active
        && !server.is_drained
        && !live.draining
        && live.is_online(now)
        && live.pool_used.saturating_add(live.pending) < server.capacity
}

fn is_eligible(server: &Server, live: &Live, criteria: &Criteria, now: DateTime<Utc>) -> bool {
    let has = |feature: &String| {
        let mut features = server.features.iter();
        features.any(|known| known.eq_ignore_ascii_case(feature))
    };
    server.tier <= criteria.tier
        && criteria
            .location
            .as_deref()
            .is_none_or(|place| server.is_at(place))
        && criteria.features.iter().all(has)
        && (!criteria.limits || live.protocol >= LIMITS_SINCE)
        && is_available(server, live, now)
}

/// The reported load and what the clients on their way will add.
fn expected_load(server: &Server, live: &Live) -> f64 {
    let share = 100.0 / f64::from(server.capacity.max(1));
    live.load + f64::from(live.pending) * share.max(MIN_ASSIGNMENT_LOAD)
}

#[cfg(test)]
mod tests {
    use chrono::Duration;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::super::view::Profile;
    use super::super::view::tests::{online, profile};
    use super::*;

    type Tweak = fn(&mut Profile, &mut Live);

    const FILTERS: &[(&str, Tweak, bool)] = &[
        ("nothing wrong", |_, _| (), true),
        (
            "maintenance",
            |profile, _| profile.status = ServerStatus::Maintenance,
            false,
        ),
        (
            "switched off",
            |profile, _| profile.status = ServerStatus::Offline,
            false,
        ),
        ("draining", |_, live| live.draining = true, false),
        ("drained", |profile, _| profile.is_drained = true, false),
        ("never seen", |_, live| live.last_seen = None, false),
        ("seen just in time", |_, live| age(live, 15), true),
        ("silent", |_, live| age(live, 16), false),
        ("no session", |_, live| live.replica = None, false),
        ("last place", |_, live| live.pool_used = 999, true),
        ("full", |_, live| live.pool_used = 1000, false),
        ("tier of the plan", |profile, _| profile.tier = 1, true),
        ("tier above the plan", |profile, _| profile.tier = 2, false),
        (
            "missing feature",
            |profile, _| profile.features.clear(),
            false,
        ),
        ("an old agent", |_, live| live.protocol = 1, false),
        ("loaded to the brim", |_, live| live.load = 100.0, true),
    ];

    fn ranked(view: &FleetView, criteria: &Criteria, now: DateTime<Utc>) -> Vec<Arc<Server>> {
        rank(view, criteria, now).map(Arc::clone).collect()
    }

    #[test]
    fn filters() {
        let now = Utc::now();
        let criteria = Criteria {
            tier: 1,
            limits: true,
            features: vec!["P2P".to_owned()],
            ..Criteria::default()
        };
        for (name, tweak, eligible) in FILTERS {
            let (mut profile, mut live) = (profile(1), online(now));
            profile.features = vec!["p2p".to_owned()];
            tweak(&mut profile, &mut live);
            let view = FleetView::new(vec![Server::new(profile, live)]);
            assert_eq!(
                !ranked(&view, &criteria, now).is_empty(),
                *eligible,
                "{name}"
            );
        }
    }

    fn age(live: &mut Live, seconds: i64) {
        live.last_seen = live.last_seen.map(|seen| seen - Duration::seconds(seconds));
    }

    #[test]
    fn an_old_agent_takes_whom_nothing_limits() {
        let now = Utc::now();
        let live = Live {
            protocol: 1,
            ..online(now)
        };
        let view = FleetView::new(vec![Server::new(profile(1), live)]);
        assert_eq!(ranked(&view, &Criteria::default(), now).len(), 1);
    }

    #[rstest]
    #[case::anywhere(None, true)]
    #[case::label(Some("EU-Central"), true)]
    #[case::country(Some("germany"), true)]
    #[case::iso_code(Some("de"), true)]
    #[case::city(Some("FRANKFURT"), true)]
    #[case::elsewhere(Some("us-east"), false)]
    #[case::part_of_a_name(Some("frank"), false)]
    fn matches_places(#[case] place: Option<&str>, #[case] found: bool) {
        let now = Utc::now();
        let view = FleetView::new(vec![Server::new(profile(1), online(now))]);
        let criteria = Criteria {
            location: place.map(ToOwned::to_owned),
            ..Criteria::default()
        };
        assert_eq!(!ranked(&view, &criteria, now).is_empty(), found);
    }

    #[test]
    fn a_named_server_is_the_only_candidate() {
        let now = Utc::now();
        let servers = (1..=3).map(|number| Server::new(profile(number), online(now)));
        let view = FleetView::new(servers.collect());
        let criteria = Criteria {
            server: Some(profile(2).id),
            ..Criteria::default()
        };
        assert_eq!(ids(&ranked(&view, &criteria, now)), [profile(2).id]);
    }

    #[test]
    fn clients_on_their_way_fill_a_server() {
        let now = Utc::now();
        let mut small = profile(1);
        small.capacity = 1;
        let view = FleetView::new(vec![Server::new(small, online(now))]);
        let first = ranked(&view, &Criteria::default(), now);
        let assignment = first[0].assign();
        assert!(ranked(&view, &Criteria::default(), now).is_empty());
        assignment.release();
        assert_eq!(ranked(&view, &Criteria::default(), now).len(), 1);
    }

    fn ids(servers: &[Arc<Server>]) -> Vec<ServerId> {
        servers.iter().map(|server| server.id).collect()
    }

    fn any_server() -> impl Strategy<Value = (i16, u32, f64, u32, bool, i64)> {
        (
            0..3_i16,
            0..4_u32,
            0.0..100.0_f64,
            0..4_u32,
            any::<bool>(),
            0..30_i64,
        )
    }

    proptest! {
        #[test]
        fn ranks_only_the_eligible_and_in_order(
            fleet in proptest::collection::vec(any_server(), 0..20),
            tier in 0..3_i16,
        ) {
            let now = Utc::now();
            let servers = fleet.iter().zip(1..).map(|(figures, number)| {
                let (tier, used, load, ping, draining, seen) = *figures;
                let (mut profile, mut live) = (profile(number), online(now));
                (profile.tier, profile.capacity) = (tier, 3);
                (live.pool_used, live.load, live.ping, live.draining) = (used, load, ping, draining);
                age(&mut live, seen);
                Server::new(profile, live)
            });
            let view = FleetView::new(servers.collect());
            let ranked = ranked(&view, &Criteria { tier, ..Criteria::default() }, now);
            for server in &ranked {
                prop_assert!(server.tier <= tier && is_available(server, &server.live(), now));
            }
            let keys: Vec<_> = ranked.iter().map(|s| (s.live().load, s.live().ping, s.id)).collect();
            prop_assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
            let eligible = view.servers().iter()
                .filter(|s| s.tier <= tier && is_available(s, &s.live(), now)).count();
            prop_assert_eq!(ranked.len(), eligible);
        }

        #[test]
        fn a_burst_spreads_evenly(count in 1..8_u128, burst in 0..200_usize, load in 0.0..90.0_f64) {
            let now = Utc::now();
            let servers = (1..=count)
                .map(|number| Server::new(profile(number), Live { load, ..online(now) }));
            let view = FleetView::new(servers.collect());
            for _ in 0..burst {
                drop(ranked(&view, &Criteria::default(), now)[0].assign());
            }
            let shares = view.servers().iter().map(|server| server.live().pending);
            let (least, most) = (shares.clone().min(), shares.max());
            prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1));
        }
    }
}
