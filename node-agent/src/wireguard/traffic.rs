//! A peer's counters as a row of a table that is read again and again.
//!
//! What must hold: a row is of one size and has no secret in it, so that the table of ten thousand
//! peers is one allocation, which the next reading uses again.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use shared::protocol::Addresses;
use shared::wireguard::PublicKey;

use super::PeerStatus;

/// What a peer moved. The counters are the interface's: `rx_bytes` came from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    pub public_key: PublicKey,
    /// Tells whose traffic it is: a key may have had another holder with other addresses.
    pub hosts: Hosts,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Unix time in seconds of the last handshake; none before the first.
    pub last_handshake: Option<u64>,
}

impl Traffic {
    /// A peer that has not moved anything.
    pub(super) const fn of(public_key: PublicKey) -> Self {
        Self {
            public_key,
            hosts: Hosts {
                v4: None,
                v6: None,
                more: false,
            },
            rx_bytes: 0,
            tx_bytes: 0,
            last_handshake: None,
        }
    }
}

impl From<&PeerStatus> for Traffic {
    fn from(status: &PeerStatus) -> Self {
        Self {
            public_key: status.public_key,
            hosts: Hosts::of(&status.allowed_ips),
            rx_bytes: status.rx_bytes,
            tx_bytes: status.tx_bytes,
            last_handshake: status.last_handshake,
        }
    }
}

/// A peer's allowed IPs, as far as they are those of a client: one host of each family at most. Of
/// anything else only that there is more is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hosts {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    more: bool,
}

impl Hosts {
    pub(super) fn add(&mut self, network: IpNet) {
        self.more |= match network {
            IpNet::V4(net) if net.prefix_len() == 32 => self.v4.replace(net.addr()).is_some(),
            IpNet::V6(net) if net.prefix_len() == 128 => self.v6.replace(net.addr()).is_some(),
            _ => true,
        };
    }

    #[must_use]
    pub fn of(allowed_ips: &[IpNet]) -> Self {
        let mut hosts = Self::default();
        allowed_ips.iter().for_each(|it| hosts.add(*it));
        hosts
    }

    #[must_use]
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether these are exactly the allowed IPs.
    #[must_use]
    pub fn are(&self, addresses: Addresses) -> bool {
        !self.more && self.v4 == Some(addresses.v4) && self.v6 == addresses.v6
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn hosts(networks: &[&str]) -> Hosts {
        let mut hosts = Hosts::default();
        for network in networks {
            hosts.add(network.parse().unwrap());
        }
        hosts
    }

    #[rstest]
    #[case::both(&["10.8.0.2/32", "fd00::2/128"], true)]
    #[case::in_any_order(&["fd00::2/128", "10.8.0.2/32"], true)]
    #[case::one_is_missing(&["10.8.0.2/32"], false)]
    #[case::none(&[], false)]
    #[case::another(&["10.8.0.3/32", "fd00::2/128"], false)]
    #[case::one_more(&["10.8.0.2/32", "fd00::2/128", "10.8.0.3/32"], false)]
    #[case::one_before(&["10.8.0.3/32", "10.8.0.2/32", "fd00::2/128"], false)]
    #[case::a_network(&["10.8.0.2/32", "fd00::2/128", "10.9.0.0/16"], false)]
    fn only_the_very_addresses_are_a_holders(#[case] networks: &[&str], #[case] own: bool) {
        let addresses = Addresses {
            v4: [10, 8, 0, 2].into(),
            v6: Some("fd00::2".parse().unwrap()),
        };
        assert_eq!(hosts(networks).are(addresses), own);
    }

    #[test]
    fn a_holder_without_ipv6_has_one_host() {
        let addresses = Addresses {
            v4: [10, 8, 0, 2].into(),
            v6: None,
        };
        assert!(hosts(&["10.8.0.2/32"]).are(addresses));
        assert!(!hosts(&["10.8.0.2/32", "fd00::2/128"]).are(addresses));
    }

    #[test]
    fn a_row_is_small() {
        assert!(size_of::<Traffic>() <= 96, "{}", size_of::<Traffic>());
    }
}
