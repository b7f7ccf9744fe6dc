//! The kernel's answer to a dump, message by message.
//!
//! A peer whose allowed IPs do not fit goes on in the next message, named by its key and without
//! its other attributes, so fragments are merged and never overwrite. The attributes are walked
//! here and not decoded into a tree: it takes a third of the time, and a client's endpoint is
//! passed over unread.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::DecodeError;
use shared::wireguard::{KEY_LEN, PresharedKey, PublicKey};
use zeroize::Zeroizing;

use crate::netlink::{attributes as each, exactly, find};
use crate::wireguard::{PeerStatus, Traffic};

// <linux/wireguard.h>
const WGDEVICE_A_PUBLIC_KEY: u16 = 4;
const WGDEVICE_A_LISTEN_PORT: u16 = 6;
const WGDEVICE_A_PEERS: u16 = 8;
const WGPEER_A_PUBLIC_KEY: u16 = 1;
const WGPEER_A_PRESHARED_KEY: u16 = 2;
const WGPEER_A_LAST_HANDSHAKE_TIME: u16 = 6;
const WGPEER_A_RX_BYTES: u16 = 7;
const WGPEER_A_TX_BYTES: u16 = 8;
const WGPEER_A_ALLOWEDIPS: u16 = 9;
const WGALLOWEDIP_A_IPADDR: u16 = 2;
const WGALLOWEDIP_A_CIDR_MASK: u16 = 3;

/// The interface itself, which only a dump's first message tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// None where no private key is set.
    pub(super) public_key: Option<PublicKey>,
    pub(super) listen_port: u16,
}

impl Head {
    /// Reads the first message's attributes.
    pub(super) fn read(attributes: &[u8]) -> Result<Self, DecodeError> {
        let mut head = Self::default();
        for attribute in each(attributes) {
            let (kind, value) = attribute?;
            match kind {
                WGDEVICE_A_PUBLIC_KEY => {
                    head.public_key = Some(PublicKey::from_bytes(exactly(value)?));
                }
                WGDEVICE_A_LISTEN_PORT => {
                    head.listen_port = u16::from_ne_bytes(exactly(value)?);
                }
                _ => {}
            }
        }
        Ok(head)
    }
}

/// The interface's peers, as far as their dump has been read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dump {
    peers: Vec<PeerStatus>,
}

impl Dump {
    /// Reads one message's attributes.
    pub(super) fn read(&mut self, attributes: &[u8]) -> Result<(), DecodeError> {
        each_peer(attributes, |peer| self.read_peer(peer))
    }

    /// The dump is over: every peer's allowed IPs are there and are put in order.
    pub(super) fn finish(mut self) -> Vec<PeerStatus> {
        for peer in &mut self.peers {
            peer.allowed_ips.sort_unstable();
        }
        self.peers
    }

    fn read_peer(&mut self, attributes: &[u8]) -> Result<(), DecodeError> {
        // The peer that was read last may go on here.
        let public_key = public_key(attributes)?;
        if self.peers.last().map(|last| last.public_key) != Some(public_key) {
            self.peers.push(blank(public_key));
        }
        let Some(peer) = self.peers.last_mut() else {
            return Ok(());
        };
        for attribute in each(attributes) {
            let (kind, value) = attribute?;
            match kind {
                WGPEER_A_PRESHARED_KEY => {
                    let key = Zeroizing::new(exactly::<KEY_LEN>(value)?);
                    peer.preshared_key =
                        (*key != [0; KEY_LEN]).then(|| PresharedKey::from_bytes(*key));
                }
                WGPEER_A_LAST_HANDSHAKE_TIME => peer.last_handshake = handshake(value)?,
                WGPEER_A_RX_BYTES => peer.rx_bytes = u64::from_ne_bytes(exactly(value)?),
                WGPEER_A_TX_BYTES => peer.tx_bytes = u64::from_ne_bytes(exactly(value)?),
                WGPEER_A_ALLOWEDIPS => {
                    for network in each(value) {
                        peer.allowed_ips.push(allowed_ip(network?.1)?);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn blank(public_key: PublicKey) -> PeerStatus {
    PeerStatus {
        public_key,
        preshared_key: None,
        // One host of each family.
        allowed_ips: Vec::with_capacity(2),
        rx_bytes: 0,
        tx_bytes: 0,
        last_handshake: None,
    }
}

/// The peers' counters, as far as their dump has been read, in a table whose room is used again.
#[derive(Debug)]
pub(super) struct Counters {
    table: Vec<Traffic>,
}

impl Counters {
    pub(super) fn into_table(mut table: Vec<Traffic>) -> Self {
        table.clear();
        Self { table }
    }

    /// Reads one message's attributes.
    pub(super) fn read(&mut self, attributes: &[u8]) -> Result<(), DecodeError> {
        each_peer(attributes, |peer| self.read_peer(peer))
    }

    pub(super) fn finish(self) -> Vec<Traffic> {
        self.table
    }

    fn read_peer(&mut self, attributes: &[u8]) -> Result<(), DecodeError> {
        let public_key = public_key(attributes)?;
        if self.table.last().map(|last| last.public_key) != Some(public_key) {
            self.table.push(Traffic::of(public_key));
        }
        let Some(row) = self.table.last_mut() else {
            return Ok(());
        };
        for attribute in each(attributes) {
            let (kind, value) = attribute?;
            match kind {
                WGPEER_A_LAST_HANDSHAKE_TIME => row.last_handshake = handshake(value)?,
                WGPEER_A_RX_BYTES => row.rx_bytes = u64::from_ne_bytes(exactly(value)?),
                WGPEER_A_TX_BYTES => row.tx_bytes = u64::from_ne_bytes(exactly(value)?),
                WGPEER_A_ALLOWEDIPS => {
                    for network in each(value) {
                        row.hosts.add(allowed_ip(network?.1)?);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn each_peer(
    attributes: &[u8],
    mut read: impl FnMut(&[u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    for attribute in each(attributes) {
        let (kind, value) = attribute?;
        if kind == WGDEVICE_A_PEERS {
            for peer in each(value) {
                read(peer?.1)?;
            }
        }
    }
    Ok(())
}

/// None before the first.
fn handshake(value: &[u8]) -> Result<Option<u64>, DecodeError> {
    let (seconds, _) = value
        .split_first_chunk()
        .ok_or_else(|| DecodeError::from("a short time"))?;
    let seconds = u64::try_from(i64::from_ne_bytes(*seconds)).ok();
    Ok(seconds.filter(|seconds| *seconds > 0))
}

fn public_key(attributes: &[u8]) -> Result<PublicKey, DecodeError> {
    let key = find(attributes, WGPEER_A_PUBLIC_KEY)?;
    let key = key.ok_or_else(|| DecodeError::from("a peer without a public key"))?;
    exactly(key).map(PublicKey::from_bytes)
}

fn allowed_ip(attributes: &[u8]) -> Result<IpNet, DecodeError> {
    let mut address = None;
    let mut prefix = None;
    for attribute in each(attributes) {
        let (kind, value) = attribute?;
        match kind {
            WGALLOWEDIP_A_IPADDR => address = Some(ip_address(value)?),
            WGALLOWEDIP_A_CIDR_MASK => prefix = Some(u8::from_ne_bytes(exactly(value)?)),
            _ => {}
        }
    }
    let network = address.zip(prefix);
    network
        .and_then(|(address, prefix)| IpNet::new(address, prefix).ok())
        .ok_or_else(|| DecodeError::from("an allowed IP that is no network"))
}

fn ip_address(value: &[u8]) -> Result<IpAddr, DecodeError> {
    if value.len() == 4 {
        Ok(Ipv4Addr::from(exactly::<4>(value)?).into())
    } else {
        Ok(Ipv6Addr::from(exactly::<16>(value)?).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::Emitable;
    use netlink_packet_wireguard::{
        WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardPeer,
        WireguardPeerAttribute, WireguardTimeSpec,
    };
    use proptest::prelude::*;

    fn encode(attributes: &[WireguardAttribute]) -> Vec<u8> {
        let mut bytes = vec![0; attributes.buffer_len()];
        attributes.emit(&mut bytes);
        bytes
    }

    fn networks(range: std::ops::Range<u8>) -> WireguardPeerAttribute {
        let network = |i: u8| {
            let (address, prefix): (IpAddr, u8) = if i.is_multiple_of(2) {
                (Ipv4Addr::new(10, 8, 0, i).into(), 32)
            } else {
                (
                    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, i.into()).into(),
                    128,
                )
            };
            WireguardAllowedIp(vec![
                WireguardAllowedIpAttr::Cidr(prefix),
                WireguardAllowedIpAttr::IpAddr(address),
            ])
        };
        WireguardPeerAttribute::AllowedIps(range.map(network).collect())
    }

    /// A peer's first part, as the kernel writes it.
    fn head(key: u8, addresses: std::ops::Range<u8>) -> WireguardPeer {
        WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey([key; KEY_LEN]),
            WireguardPeerAttribute::PresharedKey([key; KEY_LEN]),
            WireguardPeerAttribute::LastHandshake(WireguardTimeSpec {
                seconds: 1_769_415_834,
                nano_seconds: 5,
            }),
            WireguardPeerAttribute::PersistentKeepalive(0),
            WireguardPeerAttribute::TxBytes(u64::from(key) * 1000),
            WireguardPeerAttribute::RxBytes(u64::from(key) * 10),
            WireguardPeerAttribute::ProtocolVersion(1),
            WireguardPeerAttribute::Endpoint("192.0.2.7:4711".parse().unwrap()),
            networks(addresses),
        ])
    }

    /// A peer's further part: nothing but its key and more addresses.
    fn tail(key: u8, addresses: std::ops::Range<u8>) -> WireguardPeer {
        WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey([key; KEY_LEN]),
            networks(addresses),
        ])
    }

    /// As the kernel tells it: the interface itself in the first message alone.
    fn tell(messages: &[Vec<WireguardPeer>]) -> Vec<Vec<u8>> {
        let told = messages.iter().enumerate().map(|(index, peers)| {
            let mut attributes = vec![WireguardAttribute::Peers(peers.clone())];
            if index == 0 {
                attributes.insert(0, WireguardAttribute::ListenPort(51820));
                attributes.insert(1, WireguardAttribute::PrivateKey([3; KEY_LEN]));
                attributes.insert(2, WireguardAttribute::PublicKey([4; KEY_LEN]));
            }
            encode(&attributes)
        });
        told.collect()
    }

    fn read(messages: &[Vec<WireguardPeer>]) -> Vec<PeerStatus> {
        let mut dump = Dump::default();
        for message in tell(messages) {
            dump.read(&message).unwrap();
        }
        dump.finish()
    }

    fn count(messages: &[Vec<WireguardPeer>], table: Vec<Traffic>) -> Vec<Traffic> {
        let mut counters = Counters::into_table(table);
        for message in tell(messages) {
            counters.read(&message).unwrap();
        }
        counters.finish()
    }

    #[test]
    fn a_peer_split_over_messages_keeps_its_counters() {
        let peers = read(&[
            vec![head(1, 0..2), head(2, 0..5)],
            vec![tail(2, 5..9)],
            vec![tail(2, 9..12), head(3, 0..1)],
        ]);
        let keys: Vec<_> = peers.iter().map(|it| it.public_key.as_bytes()[0]).collect();
        assert_eq!(keys, [1, 2, 3]);
        let split = &peers[1];
        assert_eq!((split.rx_bytes, split.tx_bytes), (20, 2000));
        assert_eq!(split.last_handshake, Some(1_769_415_834));
        assert_eq!(
            split.preshared_key,
            Some(PresharedKey::from_bytes([2; KEY_LEN]))
        );
        assert_eq!(split.allowed_ips.len(), 12);
        assert!(split.allowed_ips.is_sorted());
    }

    #[test]
    fn zeros_mean_nothing() {
        let silent = WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey([1; KEY_LEN]),
            WireguardPeerAttribute::PresharedKey([0; KEY_LEN]),
            WireguardPeerAttribute::LastHandshake(WireguardTimeSpec::default()),
        ]);
        let peers = read(&[vec![silent]]);
        assert_eq!(peers[0].preshared_key, None);
        assert_eq!(peers[0].last_handshake, None);
    }

    #[test]
    fn the_first_message_tells_key_and_port() {
        let told = tell(&[vec![head(1, 0..2)], vec![tail(1, 2..3)]]);
        let expected = Head {
            public_key: Some(PublicKey::from_bytes([4; KEY_LEN])),
            listen_port: 51820,
        };
        assert_eq!(Head::read(&told[0]).unwrap(), expected);
        let keyless = encode(&[WireguardAttribute::ListenPort(1)]);
        let head = Head::read(&keyless).unwrap();
        assert_eq!((head.public_key, head.listen_port), (None, 1));
    }

    #[test]
    fn counters_are_read_again_into_the_same_table() {
        let first = count(
            &[vec![head(1, 0..2), head(2, 0..2), head(3, 0..2)]],
            Vec::new(),
        );
        let place = first.as_ptr();
        let second = count(
            &[vec![head(2, 0..1)], vec![tail(2, 1..2), head(4, 0..2)]],
            first,
        );
        assert_eq!(second.as_ptr(), place);
        let rows: Vec<_> = second
            .iter()
            .map(|row| (row.rx_bytes, row.tx_bytes))
            .collect();
        assert_eq!(rows, [(20, 2000), (40, 4000)]);
    }

    #[test]
    fn a_peer_without_a_key_is_refused() {
        let nameless = WireguardPeer(vec![WireguardPeerAttribute::RxBytes(1)]);
        let bytes = encode(&[WireguardAttribute::Peers(vec![nameless])]);
        assert!(Dump::default().read(&bytes).is_err());
        assert!(Counters::into_table(Vec::new()).read(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn wherever_the_messages_are_cut_the_peers_are_the_same(
            sizes in prop::collection::vec(0_u8..40, 1..20),
            cuts in prop::collection::vec(1_u8..9, 1..40),
        ) {
            let whole: Vec<_> = (1..).zip(&sizes).map(|(key, size)| head(key, 0..*size)).collect();
            let mut cuts = cuts.iter().cycle();
            let mut messages = vec![Vec::new()];
            for (key, size) in (1..).zip(&sizes) {
                let mut at = (*cuts.next().unwrap()).min(*size);
                messages.last_mut().unwrap().push(head(key, 0..at));
                while at < *size {
                    let next = at.saturating_add(*cuts.next().unwrap()).min(*size);
                    messages.push(vec![tail(key, at..next)]);
                    at = next;
                }
            }
            let peers = read(&messages);
            let traffic: Vec<_> = peers.iter().map(Traffic::from).collect();
            prop_assert_eq!(count(&messages, Vec::new()), traffic);
            prop_assert_eq!(peers, read(&[whole]));
        }

        #[test]
        fn garbage_is_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Dump::default().read(&bytes);
            let _ = Counters::into_table(Vec::new()).read(&bytes);
            let _ = Head::read(&bytes);
        }

        #[test]
        fn a_torn_message_is_never_a_panic(length in 0_usize..400) {
            let bytes = encode(&[WireguardAttribute::Peers(vec![head(1, 0..4), head(2, 0..4)])]);
            let _ = Dump::default().read(bytes.get(..length).unwrap_or(&bytes));
        }
    }
}
