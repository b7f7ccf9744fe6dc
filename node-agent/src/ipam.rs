//! The pool of addresses that clients get inside the tunnel.
//!
//! One host index names both of a client's addresses: the IPv6 address mirrors the IPv4 host part
//! inside the IPv6 subnet, so the two can never disagree. What must hold (design, invariant 5): an
//! index has at most one holder, a freed one is given out again only after its quarantine, and a
//! pool rebuilt from the ledger knows both.
//!
//! Indices are handed out in random order, so that an address says nothing about when its client
//! came. The order is a Fisher–Yates shuffle done lazily: only positions that were touched are
//! stored, so a /8 costs nothing up front, and allocating and freeing take constant time.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};

use chrono::{DateTime, TimeDelta, Utc};
use foldhash::fast::RandomState;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand::Rng;
use shared::protocol::Addresses;

/// Index 0 is the network, index 1 the node itself.
const FIRST_CLIENT: u32 = 2;

/// Why two subnets cannot be a pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    #[error("{0} is too small: a pool needs a prefix of /30 or shorter")]
    TooSmall(Ipv4Net),
    #[error("{0} is too large: a pool takes a prefix of /8 or longer")]
    TooLarge(Ipv4Net),
    #[error("{v6} has fewer host bits than {v4}; it takes a prefix of /{wanted} or shorter")]
    NoMirror {
        v4: Ipv4Net,
        v6: Ipv6Net,
        wanted: u8,
    },
}

/// Why no address could be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("every one of the pool's {capacity} addresses is in use or in quarantine")]
    Exhausted { capacity: u32 },
    #[error("{0} is not an address that this pool gives to clients")]
    Outside(Ipv4Addr),
    #[error("{0} already has a holder")]
    Taken(Ipv4Addr),
}

/// Who has which address. Time is passed in.
#[derive(Debug)]
pub struct Pool {
    v4: Ipv4Net,
    v6: Option<Ipv6Net>,
    quarantine: TimeDelta,
    order: Order,
    /// Freed indices that still wait, and until when.
    waiting: HashMap<u32, DateTime<Utc>, RandomState>,
    /// The same, soonest first.
    due: BTreeSet<(DateTime<Utc>, u32)>,
}

impl Pool {
    pub fn new(
        v4: Ipv4Net,
        v6: Option<Ipv6Net>,
        quarantine: TimeDelta,
    ) -> Result<Self, SubnetError> {
        let (v4, v6) = (v4.trunc(), v6.map(|net| net.trunc()));
        if v4.prefix_len() > 30 {
            return Err(SubnetError::TooSmall(v4));
        }
        if v4.prefix_len() < 8 {
            return Err(SubnetError::TooLarge(v4));
        }
        let wanted = 96 + v4.prefix_len();
        if let Some(v6) = v6.filter(|net| net.prefix_len() > wanted) {
            return Err(SubnetError::NoMirror { v4, v6, wanted });
        }
        let broadcast = u32::from(v4.broadcast()) - u32::from(v4.network());
        Ok(Self {
            v4,
            v6,
            quarantine,
            order: Order::new(broadcast - FIRST_CLIENT),
            waiting: HashMap::default(),
            due: BTreeSet::new(),
        })
    }

    /// How many clients the pool can hold.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.order.size
    }

    /// Addresses in use or in quarantine.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.order.size - self.order.free
    }

    /// The node's own addresses, with the pool's prefix lengths.
    #[must_use]
    pub fn node_addresses(&self) -> Vec<IpNet> {
        let own = self.at(FIRST_CLIENT - 1);
        let v4 = Ipv4Net::new(own.v4, self.v4.prefix_len()).map(IpNet::V4);
        let v6 = self
            .v6
            .zip(own.v6)
            .map(|(net, address)| Ipv6Net::new(address, net.prefix_len()).map(IpNet::V6));
        v4.into_iter().chain(v6.into_iter().flatten()).collect()
    }

    /// Makes room for so many more holders.
    pub fn make_room(&mut self, holders: usize) {
        // Each is noted where it was and where it went.
        self.order.slot_at.reserve(holders * 2);
        self.order.position_of.reserve(holders * 2);
    }

    /// A free address, chosen at random.
    pub fn allocate(
        &mut self,
        now: DateTime<Utc>,
        rng: &mut impl Rng,
    ) -> Result<Addresses, PoolError> {
        self.end_quarantines(now);
        let slot = self.order.take_random(rng).ok_or(PoolError::Exhausted {
            capacity: self.capacity(),
        })?;
        Ok(self.at(slot + FIRST_CLIENT))
    }

    /// Gives certain addresses to a holder that is known from the ledger or the plane. They may be
    /// in quarantine: who names them has had them. Returns what the holder gets: an IPv6 address
    /// only where this pool still has them.
    pub fn reserve(&mut self, addresses: Addresses) -> Result<Addresses, PoolError> {
        let index = self.index(addresses)?;
        if let Some(until) = self.waiting.remove(&index) {
            self.due.remove(&(until, index));
        } else if !self.order.take(index - FIRST_CLIENT) {
            return Err(PoolError::Taken(addresses.v4));
        }
        Ok(Addresses {
            v4: addresses.v4,
            v6: addresses.v6.filter(|_| self.v6.is_some()),
        })
    }

    /// Takes the address back from its holder. Returns when the quarantine ends.
    pub fn release(
        &mut self,
        addresses: Addresses,
        now: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, PoolError> {
        let index = self.index(addresses)?;
        let until = now + self.quarantine;
        self.wait(index, until);
        Ok(until)
    }

    /// Puts an address into quarantine that no one holds: what the ledger remembers at a start.
    pub fn quarantine(&mut self, v4: Ipv4Addr, until: DateTime<Utc>) -> Result<(), PoolError> {
        let addresses = Addresses { v4, v6: None };
        self.reserve(addresses)?;
        let index = self.index(addresses)?;
        self.wait(index, until);
        Ok(())
    }

    fn wait(&mut self, index: u32, until: DateTime<Utc>) {
        if let Some(earlier) = self.waiting.insert(index, until) {
            self.due.remove(&(earlier, index));
        }
        self.due.insert((until, index));
    }

    fn end_quarantines(&mut self, now: DateTime<Utc>) {
        while let Some((until, index)) =
            self.due.first().copied().filter(|(until, _)| *until <= now)
        {
            self.due.remove(&(until, index));
            self.waiting.remove(&index);
            self.order.give_back(index - FIRST_CLIENT);
        }
    }

    fn at(&self, index: u32) -> Addresses {
        Addresses {
            v4: Ipv4Addr::from(u32::from(self.v4.network()) | index),
            v6: self
                .v6
                .map(|net| Ipv6Addr::from(u128::from(net.network()) | u128::from(index))),
        }
    }

    /// The index of a client's addresses; the IPv6 one, where both sides have it, must mirror.
    fn index(&self, addresses: Addresses) -> Result<u32, PoolError> {
        let outside = PoolError::Outside(addresses.v4);
        let index = u32::from(addresses.v4)
            .checked_sub(u32::from(self.v4.network()))
            .ok_or(outside)?;
        let own = self.at(index);
        let mirrors = addresses.v6.is_none() || self.v6.is_none() || addresses.v6 == own.v6;
        if self.v4.contains(&addresses.v4)
            && index >= FIRST_CLIENT
            && index - FIRST_CLIENT < self.order.size
            && mirrors
        {
            Ok(index)
        } else {
            Err(outside)
        }
    }
}

/// A permutation of `0..size` whose first `free` positions hold the free slots. Positions and slots
/// that are equal are not stored.
#[derive(Debug)]
struct Order {
    size: u32,
    free: u32,
    slot_at: HashMap<u32, u32, RandomState>,
    position_of: HashMap<u32, u32, RandomState>,
}

impl Order {
    fn new(size: u32) -> Self {
        Self {
            size,
            free: size,
            slot_at: HashMap::default(),
            position_of: HashMap::default(),
        }
    }

    fn take_random(&mut self, rng: &mut impl Rng) -> Option<u32> {
        if self.free == 0 {
            return None;
        }
        let slot = self.slot(rng.random_range(0..self.free));
        self.take(slot).then_some(slot)
    }

    /// False when the slot is taken already.
    fn take(&mut self, slot: u32) -> bool {
        let position = self.position(slot);
        if position >= self.free {
            return false;
        }
        self.free -= 1;
        self.swap(position, self.free);
        true
    }

    fn give_back(&mut self, slot: u32) {
        let position = self.position(slot);
        if position >= self.free {
            self.swap(position, self.free);
            self.free += 1;
        }
    }

    fn slot(&self, position: u32) -> u32 {
        self.slot_at.get(&position).copied().unwrap_or(position)
    }

    fn position(&self, slot: u32) -> u32 {
        self.position_of.get(&slot).copied().unwrap_or(slot)
    }

    fn swap(&mut self, one: u32, other: u32) {
        let (a, b) = (self.slot(one), self.slot(other));
        self.put(one, b);
        self.put(other, a);
    }

    fn put(&mut self, position: u32, slot: u32) {
        if position == slot {
            self.slot_at.remove(&position);
            self.position_of.remove(&slot);
        } else {
            self.slot_at.insert(position, slot);
            self.position_of.insert(slot, position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use rstest::rstest;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
    }

    fn pool(v4: &str, v6: Option<&str>) -> Pool {
        Pool::new(
            v4.parse().expect("v4"),
            v6.map(|net| net.parse().expect("v6")),
            TimeDelta::seconds(120),
        )
        .expect("valid")
    }

    #[test]
    fn a_pool_gives_every_address_once_and_none_that_is_reserved() {
        let mut pool = pool("10.8.0.0/24", Some("fd00::/120"));
        let mut rng = StdRng::seed_from_u64(1);
        let given: BTreeSet<_> = (0..pool.capacity())
            .map(|_| pool.allocate(at(0), &mut rng).expect("free").v4.octets()[3])
            .collect();
        assert_eq!(given, (2..=254).collect());
        assert_eq!(
            pool.allocate(at(0), &mut rng),
            Err(PoolError::Exhausted { capacity: 253 })
        );
    }

    #[test]
    fn one_index_names_both_addresses() {
        let mut pool = pool("10.8.0.0/16", Some("fd00:1::/112"));
        pool.reserve(Addresses {
            v4: "10.8.1.2".parse().expect("v4"),
            v6: Some("fd00:1::102".parse().expect("v6")),
        })
        .expect("mirrors");
        assert!(matches!(
            pool.reserve(Addresses {
                v4: "10.8.1.3".parse().expect("v4"),
                v6: Some("fd00:1::102".parse().expect("v6")),
            }),
            Err(PoolError::Outside(_))
        ));
        let own: Vec<_> = pool
            .node_addresses()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(own, ["10.8.0.1/16", "fd00:1::1/112"]);
    }

    #[rstest]
    #[case::before("10.7.255.255")]
    #[case::network("10.8.0.0")]
    #[case::node("10.8.0.1")]
    #[case::broadcast("10.8.0.255")]
    #[case::behind("10.8.1.0")]
    fn what_clients_cannot_have_is_refused(#[case] address: &str) {
        let v4 = address.parse().expect("address");
        assert_eq!(
            pool("10.8.0.0/24", None).reserve(Addresses { v4, v6: None }),
            Err(PoolError::Outside(v4))
        );
    }

    #[test]
    fn subnets_that_cannot_be_a_pool_are_refused() {
        let new = |v4: &str, v6: Option<&str>| {
            Pool::new(
                v4.parse().expect("v4"),
                v6.map(|net| net.parse().expect("v6")),
                TimeDelta::zero(),
            )
            .expect_err("refused")
        };
        assert!(matches!(new("10.0.0.0/31", None), SubnetError::TooSmall(_)));
        assert!(matches!(new("10.0.0.0/32", None), SubnetError::TooSmall(_)));
        assert!(matches!(new("10.0.0.0/7", None), SubnetError::TooLarge(_)));
        assert!(matches!(new("0.0.0.0/0", None), SubnetError::TooLarge(_)));
        assert!(matches!(
            new("10.8.0.0/16", Some("fd00::/120")),
            SubnetError::NoMirror { wanted: 112, .. }
        ));
    }

    #[rstest]
    #[case("10.8.0.0/30", "fd00::/126", 1, "10.8.0.2", "fd00::2")]
    #[case("10.8.0.4/30", "fd00::4/126", 1, "10.8.0.6", "fd00::6")]
    #[case("10.8.0.252/30", "fd00::/64", 1, "10.8.0.254", "fd00::2")]
    #[case("10.8.0.0/29", "fd00::/125", 5, "10.8.0.6", "fd00::6")]
    #[case("10.8.0.0/28", "fd00::/124", 13, "10.8.0.14", "fd00::e")]
    #[case("10.8.0.0/24", "fd00::/120", 253, "10.8.0.254", "fd00::fe")]
    #[case("10.8.0.0/16", "fd00::/112", 65_533, "10.8.255.254", "fd00::fffe")]
    #[case(
        "10.0.0.0/8",
        "fd00::/104",
        16_777_213,
        "10.255.255.254",
        "fd00::ff:fffe"
    )]
    fn the_last_address_of_a_range_is_a_clients(
        #[case] v4: &str,
        #[case] v6: &str,
        #[case] capacity: u32,
        #[case] last: &str,
        #[case] last_v6: &str,
    ) {
        let mut pool = pool(v4, Some(v6));
        assert_eq!(pool.capacity(), capacity);
        let last = Addresses {
            v4: last.parse().expect("v4"),
            v6: last_v6.parse().ok(),
        };
        assert_eq!(pool.reserve(last), Ok(last));
        let beyond = Ipv4Addr::from(u32::from(last.v4) + 1);
        let beyond = Addresses {
            v4: beyond,
            v6: None,
        };
        assert_eq!(pool.reserve(beyond), Err(PoolError::Outside(beyond.v4)));
    }

    #[test]
    fn the_smallest_pool_has_one_client_at_a_time() {
        let mut pool = pool("10.8.0.0/30", Some("fd00::/126"));
        let mut rng = StdRng::seed_from_u64(1);
        let only = pool.allocate(at(0), &mut rng).expect("free");
        assert_eq!(only.v4.octets()[3], 2);
        let exhausted = Err(PoolError::Exhausted { capacity: 1 });
        assert_eq!(pool.allocate(at(0), &mut rng), exhausted);
        pool.release(only, at(10)).expect("held");
        assert_eq!(pool.allocate(at(129), &mut rng), exhausted);
        assert_eq!(pool.allocate(at(130), &mut rng), Ok(only));
    }

    #[test]
    fn the_largest_pool_stores_nothing_up_front() {
        let mut pool = pool("10.0.0.0/8", None);
        assert_eq!(pool.capacity(), (1 << 24) - 3);
        let mut rng = StdRng::seed_from_u64(1);
        pool.allocate(at(0), &mut rng).expect("free");
        assert!(pool.order.slot_at.len() <= 2);
    }

    #[test]
    fn quarantine_ends_on_time() {
        let mut pool = pool("10.8.0.0/29", None);
        let mut rng = StdRng::seed_from_u64(1);
        let all: Vec<_> = (0..5)
            .map(|_| pool.allocate(at(0), &mut rng).expect("free"))
            .collect();
        assert_eq!(pool.release(all[0], at(10)), Ok(at(130)));
        assert!(pool.allocate(at(129), &mut rng).is_err());
        assert_eq!(pool.allocate(at(130), &mut rng), Ok(all[0]));
    }

    /// What the ledger would hold: holders, and freed addresses with the end of their quarantine.
    #[derive(Debug, Default)]
    struct Model {
        held: Vec<Addresses>,
        waiting: HashMap<Ipv4Addr, DateTime<Utc>>,
    }

    proptest! {
        #[test]
        fn no_address_twice_none_lost_across_restarts(
            seed in any::<u64>(),
            steps in proptest::collection::vec((0..4_u8, any::<prop::sample::Index>(), 0..90_i64), 1..200),
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut pool = pool("10.8.0.0/27", Some("fd00::/64"));
            let mut model = Model::default();
            let mut now = 0;
            for (step, pick, wait) in steps {
                match step {
                    0 | 1 => if let Ok(given) = pool.allocate(at(now), &mut rng) {
                        prop_assert!(!model.held.contains(&given), "two holders");
                        let quarantined = model.waiting.remove(&given.v4);
                        prop_assert!(quarantined.is_none_or(|until| until <= at(now)), "too early");
                        model.held.push(given);
                    } else {
                        let waiting = model.waiting.values().filter(|until| **until > at(now)).count();
                        prop_assert_eq!(model.held.len() + waiting, 29, "exhausted too early");
                    },
                    2 if !model.held.is_empty() => {
                        let given = model.held.swap_remove(pick.index(model.held.len()));
                        let until = pool.release(given, at(now)).expect("held");
                        model.waiting.insert(given.v4, until);
                    }
                    3 => {
                        now += wait;
                        pool = self::pool("10.8.0.0/27", Some("fd00::/64"));
                        for given in &model.held {
                            pool.reserve(*given).expect("restored");
                        }
                        for (v4, until) in &model.waiting {
                            pool.quarantine(*v4, *until).expect("restored");
                        }
                    }
                    _ => now += wait,
                }
                let used = usize::try_from(pool.used()).expect("small");
                prop_assert!(used >= model.held.len());
                prop_assert!(used <= model.held.len() + model.waiting.len());
                for given in &model.held {
                    prop_assert_eq!(pool.reserve(*given), Err(PoolError::Taken(given.v4)));
                }
            }
        }
    }
}
