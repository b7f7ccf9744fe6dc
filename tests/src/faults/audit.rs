//! What a watcher of the nodes' interfaces remembers, and what it says of the bill. Pure.
//!
//! The interface counts a peer from zero each time it is put in. The watcher adds these runs up and
//! keeps the time of every reading, so that it can say how much had flowed at any moment.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use shared::wireguard::PublicKey;

use crate::lab::WgPeer;

/// A tunnel as an interface knows it: node, client address, key.
pub type TunnelId = (usize, String, PublicKey);

/// Bytes as the interface counts: what it received, the client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bytes {
    pub sent: u64,
    pub received: u64,
}

impl Bytes {
    #[must_use]
    pub fn of(peer: &WgPeer) -> Self {
        Self {
            sent: peer.received,
            received: peer.sent,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            received: self.received + other.received,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(other.sent),
            received: self.received.saturating_sub(other.received),
        }
    }

    fn is_at_least(self, other: Self) -> bool {
        self.sent >= other.sent && self.received >= other.received
    }
}

#[derive(Debug, Default)]
struct Meter {
    /// Of runs that are over.
    ended: Bytes,
    last: Bytes,
    readings: BTreeMap<DateTime<Utc>, Bytes>,
}

impl Meter {
    fn read(&mut self, at: DateTime<Utc>, now: Bytes) {
        if !now.is_at_least(self.last) {
            self.end();
        }
        self.last = now;
        self.readings.insert(at, self.ended.plus(now));
    }

    /// The run is over: whatever comes next began at zero.
    fn end(&mut self) {
        self.ended = self.ended.plus(self.last);
        self.last = Bytes::default();
    }

    fn until(&self, at: DateTime<Utc>) -> Bytes {
        let before = self.readings.range(..=at).next_back();
        before.map(|(_, bytes)| *bytes).unwrap_or_default()
    }
}

/// A connection as the plane's books have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booked {
    pub name: String,
    pub tunnel: TunnelId,
    pub started_at: DateTime<Utc>,
    /// When the node's acknowledgement was booked.
    pub connected_at: Option<DateTime<Utc>>,
    /// None while it lives.
    pub ended_at: Option<DateTime<Utc>>,
    pub bytes: Bytes,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub struct Audit {
    meters: HashMap<TunnelId, Meter>,
    /// What must never be.
    pub violations: Vec<String>,
    pub readings: usize,
}

impl Audit {
    /// Takes a dump of a node's interface in, which was complete at `at`.
    pub fn observe(&mut self, node: usize, at: DateTime<Utc>, peers: &[WgPeer]) {
        self.readings += 1;
        let held: HashSet<_> = peers.iter().map(|peer| peer.public_key).collect();
        for ((at, _, key), meter) in &mut self.meters {
            if *at == node && !held.contains(key) {
                meter.end();
            }
        }
        let mut holders: HashMap<&String, PublicKey> = HashMap::new();
        for peer in peers {
            let Some(first) = peer.allowed_ips.first().filter(|it| it.contains('/')) else {
                let key = peer.public_key;
                self.violate(at, format!("node {node}: {key} lost its addresses"));
                continue;
            };
            for address in &peer.allowed_ips {
                if let Some(other) = holders.insert(address, peer.public_key) {
                    let key = peer.public_key;
                    self.violate(
                        at,
                        format!("node {node}: {address} of {key} and of {other}"),
                    );
                }
            }
            let tunnel = (node, first.clone(), peer.public_key);
            let meter = self.meters.entry(tunnel).or_default();
            meter.read(at, Bytes::of(peer));
        }
    }

    pub fn violate(&mut self, at: DateTime<Utc>, what: String) {
        self.violations.push(format!("{at}: {what}"));
    }

    /// What the books must have at least (all that flowed while the connection lived) and at most
    /// (all that ever flowed through its tunnel).
    #[must_use]
    pub fn bounds(&self, booked: &Booked) -> (Bytes, Bytes) {
        let Some(meter) = self.meters.get(&booked.tunnel) else {
            return (Bytes::default(), Bytes::default());
        };
        let before = meter.until(booked.started_at);
        let at_end = booked.ended_at.map(|at| meter.until(at));
        let last = meter.ended.plus(meter.last);
        (at_end.unwrap_or(last).minus(before), last.minus(before))
    }

    /// Holds the books to what was seen. `unseen` is what may flow between two readings; while a
    /// connection lives there is nothing unseen.
    pub fn judge(&self, booked: &Booked, unseen: u64) -> Result<(), String> {
        let (least, most) = self.bounds(booked);
        let unseen = booked.ended_at.map_or(0, |_| unseen);
        let most = most.plus(Bytes {
            sent: unseen,
            received: unseen,
        });
        let (name, bytes) = (&booked.name, booked.bytes);
        if !bytes.is_at_least(least) {
            return Err(format!(
                "{name}: booked {bytes:?}, but {least:?} flowed while it lived"
            ));
        }
        if !most.is_at_least(bytes) {
            return Err(format!(
                "{name}: booked {bytes:?}, but at most {most:?} ever flowed"
            ));
        }
        Ok(())
    }

    /// Pairs of connections that had one address at one time, or one sooner after the other than the
    /// address must rest.
    #[must_use]
    pub fn shared_addresses(&self, booked: &[Booked], rest: chrono::TimeDelta) -> Vec<String> {
        let mut by_address: BTreeMap<(usize, &String), Vec<&Booked>> = BTreeMap::new();
        for it in booked {
            let (node, address, _) = &it.tunnel;
            by_address.entry((*node, address)).or_default().push(it);
        }
        let mut found = Vec::new();
        for ((node, address), mut holders) in by_address {
            holders.sort_by_key(|it| it.started_at);
            for (earlier, later) in holders.iter().zip(holders.iter().skip(1)) {
                let given = self.given_at(later);
                if earlier.ended_at.is_none_or(|end| end + rest > given) {
                    found.push(format!(
                        "node {node}: {address} of {} until {:?} and of {} since {given}",
                        earlier.name, earlier.ended_at, later.name
                    ));
                }
            }
        }
        found
    }

    /// When the connection was first seen with its address in the interface. It is booked before: while
    /// its node is away it waits without one. One that was never seen had it when the node said so, or
    /// else from the beginning.
    fn given_at(&self, booked: &Booked) -> DateTime<Utc> {
        let meter = self.meters.get(&booked.tunnel);
        let seen = meter.and_then(|it| it.readings.range(booked.started_at..).next());
        let seen = seen.map(|(at, _)| *at);
        seen.or(booked.connected_at).unwrap_or(booked.started_at)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use rstest::rstest;

    use super::*;

    const ADDRESS: &str = "10.8.0.9/32";

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("a time")
    }

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    fn peer(n: u8, addresses: &[&str], received: u64, sent: u64) -> WgPeer {
        WgPeer {
            public_key: key(n),
            allowed_ips: addresses.iter().map(ToString::to_string).collect(),
            last_handshake: 0,
            received,
            sent,
        }
    }

    fn booked(from: i64, to: Option<i64>, sent: u64, received: u64) -> Booked {
        Booked {
            name: format!("connection since {from}"),
            tunnel: (0, ADDRESS.to_owned(), key(1)),
            started_at: at(from),
            connected_at: None,
            ended_at: to.map(at),
            bytes: Bytes { sent, received },
        }
    }

    /// Seconds 10 to 12 in one run, from 13 on in another.
    fn seen() -> Audit {
        let mut audit = Audit::default();
        for (second, received, sent) in
            [(10, 0, 0), (11, 10, 1), (12, 20, 2), (13, 5, 1), (14, 9, 3)]
        {
            audit.observe(0, at(second), &[peer(1, &[ADDRESS], received, sent)]);
        }
        audit
    }

    #[rstest]
    #[case::exact(None, 29, 5, true)]
    #[case::lost(None, 28, 5, false)]
    #[case::twice(None, 58, 10, false)]
    #[case::received_lost(None, 29, 4, false)]
    #[case::ended_in_the_first_run(Some(12), 20, 2, true)]
    #[case::ended_and_lost(Some(12), 19, 2, false)]
    #[case::ended_and_a_little_more(Some(12), 29, 5, true)]
    #[case::ended_between_readings(Some(14), 30, 5, true)]
    #[case::ended_and_too_much(Some(14), 31, 5, false)]
    fn the_bill_is_what_flowed(
        #[case] end: Option<i64>,
        #[case] sent: u64,
        #[case] received: u64,
        #[case] right: bool,
    ) {
        let verdict = seen().judge(&booked(9, end, sent, received), 1);
        assert_eq!(verdict.is_ok(), right, "{verdict:?}");
    }

    #[test]
    fn an_earlier_tunnel_with_the_same_address_is_not_charged_again() {
        let audit = seen();
        assert_eq!(audit.judge(&booked(12, None, 9, 3), 0), Ok(()));
        assert!(audit.judge(&booked(12, None, 29, 5), 0).is_err());
    }

    #[test]
    fn a_tunnel_that_comes_back_larger_than_it_left_is_another_run() {
        let mut audit = Audit::default();
        audit.observe(0, at(10), &[peer(1, &[ADDRESS], 5, 1)]);
        audit.observe(0, at(11), &[]);
        audit.observe(0, at(13), &[peer(1, &[ADDRESS], 9, 3)]);
        assert_eq!(audit.judge(&booked(9, Some(11), 5, 1), 0), Ok(()));
        assert_eq!(audit.judge(&booked(12, None, 9, 3), 0), Ok(()));
    }

    #[test]
    fn an_address_of_two_peers_and_a_peer_without_any_are_seen() {
        let mut audit = Audit::default();
        audit.observe(
            0,
            at(1),
            &[peer(1, &[ADDRESS], 0, 0), peer(2, &["10.8.0.8/32"], 0, 0)],
        );
        assert!(audit.violations.is_empty());
        audit.observe(0, at(2), &[peer(1, &["(none)"], 0, 0)]);
        audit.observe(
            0,
            at(3),
            &[peer(1, &[ADDRESS], 0, 0), peer(2, &[ADDRESS], 0, 0)],
        );
        assert_eq!(audit.violations.len(), 2, "{:?}", audit.violations);
    }

    #[rstest]
    #[case::one_after_the_other(Some(20), 25, 0)]
    #[case::too_soon(Some(20), 24, 1)]
    #[case::at_the_same_time(Some(20), 15, 1)]
    #[case::the_first_still_lives(None, 30, 1)]
    fn addresses_rest(#[case] first_end: Option<i64>, #[case] second: i64, #[case] found: usize) {
        let both = [booked(second, None, 0, 0), booked(10, first_end, 0, 0)];
        let shared = Audit::default().shared_addresses(&both, TimeDelta::seconds(5));
        assert_eq!(shared.len(), found, "{shared:?}");
    }

    #[rstest]
    #[case::when_it_had_rested(25, 0)]
    #[case::too_soon(24, 1)]
    fn who_waits_for_a_node_has_no_address_yet(#[case] given: i64, #[case] found: usize) {
        let mut audit = Audit::default();
        audit.observe(0, at(given), &[peer(2, &[ADDRESS], 0, 0)]);
        let mut later = booked(21, None, 0, 0);
        later.tunnel.2 = key(2);
        let both = [booked(10, Some(20), 0, 0), later];
        let shared = audit.shared_addresses(&both, TimeDelta::seconds(5));
        assert_eq!(shared.len(), found, "{shared:?}");
    }
}
