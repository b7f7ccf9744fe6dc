//! Whose round trip through the tunnel somebody looks at: every replica says it of its own sockets, and
//! the replica that holds the node's session tells the node. What is said ages, so that a replica that
//! dies is looked for no longer.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use shared::ids::{PeerId, ServerId};
use shared::protocol::{MAX_WATCHED, RoundTrips};
use uuid::Uuid;

use super::bus::{Channel, Notice};
use super::{Fleet, lock};

/// What a replica said counts for so long.
const LIFE: Duration = Duration::from_secs(6);
/// How often it is said again while nothing changes.
const REPEAT: Duration = Duration::from_secs(2);

/// The peers of nodes that replicas look at.
#[derive(Debug, Default)]
pub(super) struct Attention {
    /// Of the nodes whose session is here, what each replica looks at.
    looked_at: Mutex<HashMap<ServerId, HashMap<Uuid, Look>>>,
    /// What this replica told others, and when.
    told: Mutex<HashMap<ServerId, Look>>,
}

#[derive(Debug)]
struct Look {
    peers: BTreeSet<PeerId>,
    at: Instant,
}

impl Attention {
    fn put(&self, server: ServerId, replica: Uuid, peers: Vec<PeerId>, now: Instant) {
        let peers = peers.into_iter().take(MAX_WATCHED).collect();
        let mut looked_at = lock(&self.looked_at);
        let replicas = looked_at.entry(server).or_default();
        replicas.insert(replica, Look { peers, at: now });
    }

    fn forget_old(&self, now: Instant) {
        lock(&self.looked_at).retain(|_, replicas| {
            replicas.retain(|_, look| now.saturating_duration_since(look.at) < LIFE);
            !replicas.is_empty()
        });
        lock(&self.told).retain(|_, look| now.saturating_duration_since(look.at) < LIFE);
    }

    /// What a node shall look at: at most as much as it takes.
    fn of(&self, server: ServerId) -> Vec<PeerId> {
        let looked_at = lock(&self.looked_at);
        let looks = looked_at.get(&server).into_iter().flat_map(HashMap::values);
        let all: BTreeSet<_> = looks.flat_map(|look| &look.peers).copied().collect();
        all.into_iter().take(MAX_WATCHED).collect()
    }

    /// Each replica with those of a node's round trips that it looks at.
    fn shares(&self, server: ServerId, trips: &RoundTrips) -> Vec<(Uuid, RoundTrips)> {
        let looked_at = lock(&self.looked_at);
        let replicas = looked_at.get(&server).into_iter().flatten();
        replicas
            .map(|(replica, look)| {
                let wanted = trips.peers.iter();
                let wanted = wanted.filter(|(peer, _)| look.peers.contains(peer));
                let peers = wanted.copied().collect();
                (*replica, RoundTrips { peers })
            })
            .filter(|(_, share)| !share.peers.is_empty())
            .collect()
    }

    /// Whether another replica has to be told now.
    fn is_news(&self, server: ServerId, peers: &[PeerId], now: Instant) -> bool {
        let peers: BTreeSet<_> = peers.iter().copied().collect();
        let mut told = lock(&self.told);
        let known = told.get(&server).is_some_and(|look| {
            look.peers == peers && now.saturating_duration_since(look.at) < REPEAT
        });
        if !known {
            told.insert(server, Look { peers, at: now });
        }
        !known
    }
}

impl Fleet {
    /// Says what the sockets of this replica look at; to be called every second. Nodes whose session is
    /// here are told what any replica looks at.
    pub fn look_at(&self, wanted: HashMap<ServerId, Vec<PeerId>>) {
        let now = Instant::now();
        self.attention.forget_old(now);
        for (server, peers) in wanted {
            if self.sessions.has(server) {
                self.attention.put(server, self.replica, peers, now);
            } else if self.attention.is_news(server, &peers, now) {
                let holder = self.view().get(server).and_then(|it| it.live().replica);
                let channel = holder.map_or(Channel::Everyone, Channel::Replica);
                let replica = self.replica;
                self.bus.publish(
                    channel,
                    Notice::LookedAt {
                        server,
                        replica,
                        peers,
                    },
                );
            }
        }
        for session in self.sessions.all() {
            session.look_at(self.attention.of(session.server));
        }
    }

    /// Another replica looks at peers of a node.
    pub(super) fn looked_at(&self, server: ServerId, replica: Uuid, peers: Vec<PeerId>) {
        if self.sessions.has(server) && replica != self.replica {
            self.attention.put(server, replica, peers, Instant::now());
        }
    }

    /// A node measured: whoever looks gets what it looks at.
    pub(super) fn round_trips(&self, server: ServerId, trips: &RoundTrips) {
        for (replica, share) in self.attention.shares(server, trips) {
            if replica == self.replica {
                self.counters.round_trips(server, &share);
            } else {
                let notice = Notice::RoundTrips {
                    server,
                    trips: share,
                };
                self.bus.publish(Channel::Replica(replica), notice);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: ServerId = ServerId(Uuid::from_u128(1));
    const HERE: Uuid = Uuid::from_u128(2);
    const THERE: Uuid = Uuid::from_u128(3);

    fn peers(numbers: &[u64]) -> Vec<PeerId> {
        numbers.iter().copied().map(PeerId).collect()
    }

    #[test]
    fn a_node_is_told_what_any_replica_looks_at() {
        let (attention, now) = (Attention::default(), Instant::now());
        attention.put(SERVER, HERE, peers(&[1, 2]), now);
        attention.put(SERVER, THERE, peers(&[2, 3]), now);
        assert_eq!(attention.of(SERVER), peers(&[1, 2, 3]));
        attention.put(SERVER, HERE, peers(&[4]), now);
        assert_eq!(attention.of(SERVER), peers(&[2, 3, 4]));
        assert!(attention.of(ServerId(Uuid::nil())).is_empty());
    }

    #[test]
    fn a_replica_that_says_nothing_any_more_looks_no_more() {
        let (attention, now) = (Attention::default(), Instant::now());
        attention.put(SERVER, HERE, peers(&[1]), now);
        attention.put(SERVER, THERE, peers(&[2]), now + LIFE / 2);
        attention.forget_old(now + LIFE);
        assert_eq!(attention.of(SERVER), peers(&[2]));
        attention.forget_old(now + LIFE * 2);
        assert!(lock(&attention.looked_at).is_empty());
    }

    #[test]
    fn no_node_is_told_more_than_it_takes() {
        let (attention, now) = (Attention::default(), Instant::now());
        for (replica, first) in [(HERE, 0), (THERE, 5_000)] {
            let many = (first..first + 2_000).map(PeerId).collect();
            attention.put(SERVER, replica, many, now);
        }
        assert_eq!(attention.of(SERVER).len(), MAX_WATCHED);
    }

    #[test]
    fn each_replica_gets_its_own_round_trips() {
        let (attention, now) = (Attention::default(), Instant::now());
        attention.put(SERVER, HERE, peers(&[1, 2]), now);
        attention.put(SERVER, THERE, peers(&[2]), now);
        let trips = RoundTrips {
            peers: vec![(PeerId(1), 10), (PeerId(9), 30)],
        };
        let own = RoundTrips {
            peers: vec![(PeerId(1), 10)],
        };
        assert_eq!(attention.shares(SERVER, &trips), [(HERE, own)]);
    }

    #[test]
    fn others_are_told_at_once_and_then_now_and_again() {
        let (attention, now) = (Attention::default(), Instant::now());
        assert!(attention.is_news(SERVER, &peers(&[1]), now));
        assert!(!attention.is_news(SERVER, &peers(&[1]), now + REPEAT / 2));
        assert!(attention.is_news(SERVER, &peers(&[1, 2]), now + REPEAT / 2));
        assert!(attention.is_news(SERVER, &peers(&[1, 2]), now + REPEAT * 2));
    }
}
