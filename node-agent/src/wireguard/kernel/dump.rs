//! The kernel's answer to a dump, message by message.
//!
//! A peer whose allowed IPs do not fit goes on in the next message, named by its key and without
//! its other attributes, so fragments are merged and never overwrite. The attributes are walked
//! here and not decoded into a tree: it takes a third of the time, and a client's endpoint is
//! passed over unread.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{DecodeError, NlaBuffer, NlasIterator};
use shared::wireguard::{KEY_LEN, PresharedKey, PublicKey};
use zeroize::Zeroizing;

use crate::wireguard::PeerStatus;

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

/// An interface, as far as its dump has been read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dump {
    /// None where no private key is set.
    pub(super) public_key: Option<PublicKey>,
    pub(super) listen_port: u16,
    pub(super) peers: Vec<PeerStatus>,
}

impl Dump {
    /// Reads one message's attributes.
    pub(super) fn read(&mut self, attributes: &[u8]) -> Result<(), DecodeError> {
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            match attribute.kind() {
                WGDEVICE_A_PUBLIC_KEY => {
                    self.public_key = Some(PublicKey::from_bytes(bytes(&attribute)?));
                }
                WGDEVICE_A_LISTEN_PORT => {
                    self.listen_port = u16::from_ne_bytes(bytes(&attribute)?);
                }
                WGDEVICE_A_PEERS => {
                    for peer in NlasIterator::new(attribute.value()) {
                        self.read_peer(peer?.value())?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The dump is over: every peer's allowed IPs are there and are put in order.
    pub(super) fn finish(mut self) -> Self {
        for peer in &mut self.peers {
            peer.allowed_ips.sort_unstable();
        }
        self
    }

    fn read_peer(&mut self, attributes: &[u8]) -> Result<(), DecodeError> {
        let mut peer = self.continued_or_new(public_key(attributes)?);
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            match attribute.kind() {
                WGPEER_A_PRESHARED_KEY => {
                    let key = Zeroizing::new(bytes::<KEY_LEN>(&attribute)?);
                    peer.preshared_key =
                        (*key != [0; KEY_LEN]).then(|| PresharedKey::from_bytes(*key));
                }
                WGPEER_A_LAST_HANDSHAKE_TIME => {
                    let (seconds, _) = attribute
                        .value()
                        .split_first_chunk()
                        .ok_or_else(|| DecodeError::from("a short time"))?;
                    let seconds = u64::try_from(i64::from_ne_bytes(*seconds)).ok();
                    peer.last_handshake = seconds.filter(|seconds| *seconds > 0);
                }
                WGPEER_A_RX_BYTES => peer.rx_bytes = u64::from_ne_bytes(bytes(&attribute)?),
                WGPEER_A_TX_BYTES => peer.tx_bytes = u64::from_ne_bytes(bytes(&attribute)?),
                WGPEER_A_ALLOWEDIPS => {
                    for network in NlasIterator::new(attribute.value()) {
                        peer.allowed_ips.push(allowed_ip(network?.value())?);
                    }
                }
                _ => {}
            }
        }
        self.peers.push(peer);
        Ok(())
    }

    /// The peer that was read last when this is its continuation, else a new one.
    fn continued_or_new(&mut self, public_key: PublicKey) -> PeerStatus {
        let last = self.peers.pop_if(|last| last.public_key == public_key);
        last.unwrap_or(PeerStatus {
            public_key,
            preshared_key: None,
            allowed_ips: Vec::new(),
            rx_bytes: 0,
            tx_bytes: 0,
            last_handshake: None,
        })
    }
}

fn public_key(attributes: &[u8]) -> Result<PublicKey, DecodeError> {
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        if attribute.kind() == WGPEER_A_PUBLIC_KEY {
            return bytes(&attribute).map(PublicKey::from_bytes);
        }
    }
    Err("a peer without a public key".into())
}

fn allowed_ip(attributes: &[u8]) -> Result<IpNet, DecodeError> {
    let mut address = None;
    let mut prefix = None;
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            WGALLOWEDIP_A_IPADDR => address = Some(ip_address(&attribute)?),
            WGALLOWEDIP_A_CIDR_MASK => prefix = Some(u8::from_ne_bytes(bytes(&attribute)?)),
            _ => {}
        }
    }
    let network = address.zip(prefix);
    network
        .and_then(|(address, prefix)| IpNet::new(address, prefix).ok())
        .ok_or_else(|| DecodeError::from("an allowed IP that is no network"))
}

fn ip_address(attribute: &NlaBuffer<&[u8]>) -> Result<IpAddr, DecodeError> {
    if attribute.value().len() == 4 {
        Ok(Ipv4Addr::from(bytes::<4>(attribute)?).into())
    } else {
        Ok(Ipv6Addr::from(bytes::<16>(attribute)?).into())
    }
}

fn bytes<const N: usize>(attribute: &NlaBuffer<&[u8]>) -> Result<[u8; N], DecodeError> {
    let value = attribute.value();
    value.try_into().map_err(|_| {
        let kind = attribute.kind();
        DecodeError::from(format!(
            "attribute {kind} of {} bytes, not {N}",
            value.len()
        ))
    })
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

    fn read(messages: &[Vec<WireguardPeer>]) -> Dump {
        let mut dump = Dump::default();
        for (index, peers) in messages.iter().enumerate() {
            let mut attributes = vec![WireguardAttribute::Peers(peers.clone())];
            if index == 0 {
                attributes.insert(0, WireguardAttribute::ListenPort(51820));
                attributes.insert(1, WireguardAttribute::PrivateKey([3; KEY_LEN]));
                attributes.insert(2, WireguardAttribute::PublicKey([4; KEY_LEN]));
            }
            dump.read(&encode(&attributes)).unwrap();
        }
        dump.finish()
    }

    #[test]
    fn a_peer_split_over_messages_keeps_its_counters() {
        let dump = read(&[
            vec![head(1, 0..2), head(2, 0..5)],
            vec![tail(2, 5..9)],
            vec![tail(2, 9..12), head(3, 0..1)],
        ]);
        let keys: Vec<_> = dump
            .peers
            .iter()
            .map(|it| it.public_key.as_bytes()[0])
            .collect();
        assert_eq!(keys, [1, 2, 3]);
        let split = &dump.peers[1];
        assert_eq!((split.rx_bytes, split.tx_bytes), (20, 2000));
        assert_eq!(split.last_handshake, Some(1_769_415_834));
        assert_eq!(
            split.preshared_key,
            Some(PresharedKey::from_bytes([2; KEY_LEN]))
        );
        assert_eq!(split.allowed_ips.len(), 12);
        assert!(split.allowed_ips.is_sorted());
        assert_eq!(dump.listen_port, 51820);
        assert_eq!(dump.public_key, Some(PublicKey::from_bytes([4; KEY_LEN])));
    }

    #[test]
    fn zeros_mean_nothing() {
        let silent = WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey([1; KEY_LEN]),
            WireguardPeerAttribute::PresharedKey([0; KEY_LEN]),
            WireguardPeerAttribute::LastHandshake(WireguardTimeSpec::default()),
        ]);
        let dump = read(&[vec![silent]]);
        assert_eq!(dump.peers[0].preshared_key, None);
        assert_eq!(dump.peers[0].last_handshake, None);
    }

    #[test]
    fn an_interface_without_key_and_peers_is_read() {
        let mut dump = Dump::default();
        dump.read(&encode(&[WireguardAttribute::ListenPort(1)]))
            .unwrap();
        assert_eq!(
            dump.finish(),
            Dump {
                listen_port: 1,
                ..Dump::default()
            }
        );
    }

    #[test]
    fn a_peer_without_a_key_is_refused() {
        let nameless = WireguardPeer(vec![WireguardPeerAttribute::RxBytes(1)]);
        let bytes = encode(&[WireguardAttribute::Peers(vec![nameless])]);
        assert!(Dump::default().read(&bytes).is_err());
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
            prop_assert_eq!(read(&messages), read(&[whole]));
        }

        #[test]
        fn garbage_is_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Dump::default().read(&bytes);
        }

        #[test]
        fn a_torn_message_is_never_a_panic(length in 0_usize..400) {
            let bytes = encode(&[WireguardAttribute::Peers(vec![head(1, 0..4), head(2, 0..4)])]);
            let _ = Dump::default().read(bytes.get(..length).unwrap_or(&bytes));
        }
    }
}
