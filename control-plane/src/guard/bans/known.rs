//! The bans in force, as this process knows them: what every request is checked against.

use std::collections::BTreeSet;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use foldhash::HashMap;
use ipnet::IpNet;

use super::Ban;

#[derive(Debug, Default)]
pub(super) struct Known {
    by_network: HashMap<IpNet, Ban>,
    /// The prefix lengths that occur: a network is found by trying these.
    v4: Vec<u8>,
    v6: Vec<u8>,
}

impl Known {
    /// The ban that an address is under. The shortest prefix speaks.
    pub(super) fn find(&self, address: IpAddr, now: DateTime<Utc>) -> Option<&Ban> {
        let lengths = if address.is_ipv6() {
            &self.v6
        } else {
            &self.v4
        };
        lengths.iter().find_map(|length| {
            let network = IpNet::new(address, *length).ok()?.trunc();
            let ban = self.by_network.get(&network)?;
            ban.is_in_force(now).then_some(ban)
        })
    }

    pub(super) fn get(&self, network: &IpNet) -> Option<&Ban> {
        self.by_network.get(network)
    }

    pub(super) fn put(&mut self, ban: Ban) {
        let length = ban.network.prefix_len();
        let lengths = match ban.network {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        };
        if let Err(place) = lengths.binary_search(&length) {
            lengths.insert(place, length);
        }
        self.by_network.insert(ban.network, ban);
    }

    pub(super) fn remove(&mut self, network: &IpNet) {
        self.by_network.remove(network);
    }

    /// Forgets all others.
    pub(super) fn retain(&mut self, keep: impl Fn(&Ban) -> bool) {
        self.by_network.retain(|_, ban| keep(ban));
        let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
        for network in self.by_network.keys() {
            match network {
                IpNet::V4(network) => v4.insert(network.prefix_len()),
                IpNet::V6(network) => v6.insert(network.prefix_len()),
            };
        }
        (self.v4, self.v6) = (v4.into_iter().collect(), v6.into_iter().collect());
    }

    pub(super) fn len(&self) -> usize {
        self.by_network.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Ban> {
        self.by_network.values()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use rstest::rstest;
    use uuid::Uuid;

    use super::*;
    use crate::guard::bans::Reason;

    fn ban(network: &str, expires_at: Option<DateTime<Utc>>) -> Ban {
        Ban {
            id: Uuid::nil(),
            network: network.parse().unwrap(),
            reason: Reason::Manual,
            note: None,
            made_by: "cli".to_owned(),
            created_at: Utc::now(),
            expires_at,
        }
    }

    #[rstest]
    #[case("203.0.113.9/32", "203.0.113.9", true)]
    #[case("203.0.113.9/32", "203.0.113.8", false)]
    #[case("203.0.113.0/24", "203.0.113.8", true)]
    #[case("203.0.113.0/24", "203.0.114.8", false)]
    #[case("2001:db8::/64", "2001:db8::1234", true)]
    #[case("2001:db8::/64", "2001:db8:0:1::1", false)]
    #[case("0.0.0.0/0", "203.0.113.8", true)]
    #[case("0.0.0.0/0", "2001:db8::1", false)]
    fn a_network_is_banned_as_a_whole(
        #[case] network: &str,
        #[case] address: IpAddr,
        #[case] banned: bool,
    ) {
        let mut known = Known::default();
        known.put(ban(network, None));
        known.put(ban("198.51.100.0/28", None));
        assert_eq!(known.find(address, Utc::now()).is_some(), banned);
        known.remove(&network.parse().unwrap());
        assert!(known.find(address, Utc::now()).is_none());
    }

    #[test]
    fn a_ban_runs_out() {
        let (mut known, now) = (Known::default(), Utc::now());
        known.put(ban("203.0.113.9/32", Some(now + TimeDelta::seconds(5))));
        let at = |seconds| {
            known.find(
                "203.0.113.9".parse().unwrap(),
                now + TimeDelta::seconds(seconds),
            )
        };
        assert!(at(4).is_some());
        assert!(at(5).is_none());
        known.retain(|ban| ban.is_in_force(now + TimeDelta::seconds(6)));
        assert_eq!((known.len(), known.v4.len()), (0, 0));
    }
}
