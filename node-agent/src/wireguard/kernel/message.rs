//! Requests to the kernel, as values.
//!
//! An attribute's length is 16 bits wide, so peers are packed by bytes into messages well under
//! that, and a peer with very many allowed IPs is spread over several entries.

use ipnet::IpNet;
use netlink_packet_core::Nla;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute,
    WireguardCmd, WireguardDeviceFlags, WireguardMessage, WireguardPeer, WireguardPeerAttribute,
    WireguardPeerFlags,
};
use shared::wireguard::{KEY_LEN, PrivateKey};
use zeroize::Zeroize;

use crate::wireguard::{InterfaceName, PeerOp, PeerSpec};

/// Longest list of peers in a message.
pub(super) const MAX_PEERS_BYTES: usize = 32 * 1024;

/// Most allowed IPs in one entry: at up to 40 bytes each, well under [`MAX_PEERS_BYTES`].
const MAX_ALLOWED_IPS: usize = 512;

/// Bytes of a nested attribute's header.
const HEADER_BYTES: usize = 4;

/// Asks for the interface and all its peers.
pub(super) fn get(name: &InterfaceName) -> WireguardMessage {
    WireguardMessage {
        cmd: WireguardCmd::GetDevice,
        attributes: vec![WireguardAttribute::IfName(name.to_string())],
    }
}

/// Sets the key, the port or both. Peers stay.
pub(super) fn set(
    name: &InterfaceName,
    private_key: Option<&PrivateKey>,
    listen_port: Option<u16>,
) -> WireguardMessage {
    let key = private_key.map(|key| WireguardAttribute::PrivateKey(*key.expose_bytes()));
    let port = listen_port.map(WireguardAttribute::ListenPort);
    set_device(name, key.into_iter().chain(port))
}

/// Removes every peer at once. For teardown only.
pub(super) fn flush(name: &InterfaceName) -> WireguardMessage {
    let flags = WireguardAttribute::Flags(WireguardDeviceFlags::ReplacePeers);
    set_device(name, [flags])
}

/// The operations in order, in as few messages as their bytes allow.
pub(super) fn pack<'a>(
    name: &'a InterfaceName,
    operations: &'a [PeerOp],
) -> impl Iterator<Item = WireguardMessage> + 'a {
    let mut entries = operations.iter().flat_map(entries).peekable();
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let mut peers = Vec::new();
        while let Some(entry) = entries
            .next_if(|entry| peers.is_empty() || bytes + entry_bytes(entry) <= MAX_PEERS_BYTES)
        {
            bytes += entry_bytes(&entry);
            peers.push(entry);
        }
        (!peers.is_empty()).then(|| set_device(name, [WireguardAttribute::Peers(peers)]))
    })
}

/// Overwrites the keys in a request that has been sent.
pub(super) fn wipe(message: &mut WireguardMessage) {
    for attribute in &mut message.attributes {
        match attribute {
            WireguardAttribute::PrivateKey(key) => key.zeroize(),
            WireguardAttribute::Peers(peers) => {
                for attribute in peers.iter_mut().flat_map(|peer| &mut peer.0) {
                    if let WireguardPeerAttribute::PresharedKey(key) = attribute {
                        key.zeroize();
                    }
                }
            }
            _ => {}
        }
    }
}

fn set_device(
    name: &InterfaceName,
    attributes: impl IntoIterator<Item = WireguardAttribute>,
) -> WireguardMessage {
    let name = WireguardAttribute::IfName(name.to_string());
    WireguardMessage {
        cmd: WireguardCmd::SetDevice,
        attributes: std::iter::once(name).chain(attributes).collect(),
    }
}

fn entry_bytes(entry: &WireguardPeer) -> usize {
    HEADER_BYTES + entry.value_len()
}

/// One operation as entries of a list of peers; more than one only for very many allowed IPs.
fn entries(operation: &PeerOp) -> Vec<WireguardPeer> {
    match operation {
        PeerOp::Add(spec) => put(spec, WireguardPeerFlags::ReplaceAllowedIps),
        PeerOp::Update(spec) => put(
            spec,
            WireguardPeerFlags::UpdateOnly | WireguardPeerFlags::ReplaceAllowedIps,
        ),
        PeerOp::Remove(key) => vec![WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey(*key.as_bytes()),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe),
        ])],
    }
}

fn put(spec: &PeerSpec, flags: WireguardPeerFlags) -> Vec<WireguardPeer> {
    // A key of zeros is how the kernel is told that there is none.
    let preshared_key = spec
        .preshared_key
        .as_ref()
        .map_or([0; KEY_LEN], |key| *key.expose_bytes());
    let (head, rest) = spec
        .allowed_ips
        .split_at(spec.allowed_ips.len().min(MAX_ALLOWED_IPS));
    let public_key = WireguardPeerAttribute::PublicKey(*spec.public_key.as_bytes());
    let head = WireguardPeer(vec![
        public_key.clone(),
        WireguardPeerAttribute::PresharedKey(preshared_key),
        WireguardPeerAttribute::Flags(flags),
        allowed_ips(head),
    ]);
    let rest = rest.chunks(MAX_ALLOWED_IPS).map(|more| {
        WireguardPeer(vec![
            public_key.clone(),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::UpdateOnly),
            allowed_ips(more),
        ])
    });
    std::iter::once(head).chain(rest).collect()
}

fn allowed_ips(networks: &[IpNet]) -> WireguardPeerAttribute {
    let networks = networks.iter().map(|network| {
        let family = match network {
            IpNet::V4(_) => WireguardAddressFamily::Ipv4,
            IpNet::V6(_) => WireguardAddressFamily::Ipv6,
        };
        WireguardAllowedIp(vec![
            WireguardAllowedIpAttr::Family(family),
            WireguardAllowedIpAttr::IpAddr(network.addr()),
            WireguardAllowedIpAttr::Cidr(network.prefix_len()),
        ])
    });
    WireguardPeerAttribute::AllowedIps(networks.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::Emitable;
    use netlink_packet_core::ParseableParametrized;
    use netlink_packet_generic::GenlHeader;
    use proptest::prelude::*;
    use shared::wireguard::{PresharedKey, PublicKey};

    fn name() -> InterfaceName {
        "wg0".parse().unwrap()
    }

    fn spec(seed: u32, allowed_ips: u32) -> PeerSpec {
        let mut key = [7; KEY_LEN];
        key[..4].copy_from_slice(&seed.to_be_bytes());
        let v4 = |i: u32| IpNet::new((0x0a00_0000 + i).to_be_bytes().into(), 32).unwrap();
        let v6 = |i: u32| {
            let address = (0xfd00_u128 << 112) + u128::from(i);
            IpNet::new(std::net::Ipv6Addr::from(address).into(), 128).unwrap()
        };
        PeerSpec {
            public_key: PublicKey::from_bytes(key),
            preshared_key: Some(PresharedKey::from_bytes([9; KEY_LEN])),
            allowed_ips: (0..allowed_ips)
                .map(|i| if i.is_multiple_of(2) { v4(i) } else { v6(i) })
                .collect(),
        }
    }

    fn operation(kind: u8, seed: u32, allowed_ips: u32) -> PeerOp {
        match kind % 3 {
            0 => PeerOp::Add(spec(seed, allowed_ips)),
            1 => PeerOp::Update(spec(seed, allowed_ips)),
            _ => PeerOp::Remove(spec(seed, 0).public_key),
        }
    }

    fn peers(message: &WireguardMessage) -> &[WireguardPeer] {
        match message.attributes.as_slice() {
            [
                WireguardAttribute::IfName(_),
                WireguardAttribute::Peers(peers),
            ] => peers,
            other => panic!("unexpected attributes: {other:?}"),
        }
    }

    fn flags(peer: &WireguardPeer) -> WireguardPeerFlags {
        let find = peer.iter().find_map(|attribute| match attribute {
            WireguardPeerAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
        find.unwrap()
    }

    fn key(peer: &WireguardPeer) -> [u8; KEY_LEN] {
        match peer.first() {
            Some(WireguardPeerAttribute::PublicKey(key)) => *key,
            other => panic!("the key comes first, not {other:?}"),
        }
    }

    #[test]
    fn each_operation_has_its_flags() {
        let operations = [operation(0, 1, 2), operation(1, 2, 2), operation(2, 3, 0)];
        let name = name();
        let messages: Vec<_> = pack(&name, &operations).collect();
        assert_eq!(messages.len(), 1);
        let flags: Vec<_> = peers(&messages[0]).iter().map(flags).collect();
        let update = WireguardPeerFlags::UpdateOnly | WireguardPeerFlags::ReplaceAllowedIps;
        let expected = [
            WireguardPeerFlags::ReplaceAllowedIps,
            update,
            WireguardPeerFlags::RemoveMe,
        ];
        assert_eq!(flags, expected);
    }

    #[test]
    fn no_preshared_key_is_said_as_zeros() {
        let mut without = spec(1, 1);
        without.preshared_key = None;
        let zeros = WireguardPeerAttribute::PresharedKey([0; KEY_LEN]);
        let name = name();
        for operation in [PeerOp::Add(without.clone()), PeerOp::Update(without)] {
            let message = pack(&name, &[operation]).next().unwrap();
            assert!(peers(&message)[0].contains(&zeros));
        }
    }

    #[test]
    fn nothing_to_do_is_no_message() {
        assert_eq!(pack(&name(), &[]).count(), 0);
    }

    #[test]
    fn only_a_flush_replaces_peers() {
        let replaces = |message: &WireguardMessage| {
            let flags = WireguardAttribute::Flags(WireguardDeviceFlags::ReplacePeers);
            message.attributes.contains(&flags)
        };
        let name = name();
        assert!(replaces(&flush(&name)));
        assert!(!replaces(&set(
            &name,
            Some(&PrivateKey::generate()),
            Some(1)
        )));
        assert!(pack(&name, &[operation(0, 1, 1)]).all(|it| !replaces(&it)));
    }

    #[test]
    fn wiping_leaves_no_key() {
        let name = name();
        let mut setup = set(&name, Some(&PrivateKey::from_bytes([9; KEY_LEN])), None);
        let mut program = pack(&name, &[operation(0, 1, 1)]).next().unwrap();
        for message in [&mut setup, &mut program] {
            assert!(format!("{message:?}").contains("9, 9, 9"));
            wipe(message);
            assert!(!format!("{message:?}").contains("9, 9, 9"));
        }
    }

    #[test]
    fn ten_thousand_dual_stack_peers_fill_their_messages() {
        let operations: Vec<_> = (0..10_000).map(|i| operation(0, i, 2)).collect();
        let name = name();
        let messages: Vec<_> = pack(&name, &operations).collect();
        // 156 bytes each: 210 fit.
        assert_eq!(messages.len(), 48);
        assert_eq!(peers(&messages[0]).len(), 210);
    }

    proptest! {
        #[test]
        fn packing_keeps_order_bounds_and_every_address(
            kinds in prop::collection::vec((any::<u8>(), prop_oneof![9 => 0_u32..4, 1 => 500_u32..1100]), 0..40),
        ) {
            let operations: Vec<_> = (0..)
                .zip(&kinds)
                .map(|(seed, (kind, allowed_ips))| operation(*kind, seed, *allowed_ips))
                .collect();
            let name = name();
            let mut keys = Vec::new();
            let mut addresses = 0;
            for message in pack(&name, &operations) {
                let entries = peers(&message);
                prop_assert!(entries.iter().map(entry_bytes).sum::<usize>() <= MAX_PEERS_BYTES);
                keys.extend(entries.iter().map(key));
                addresses += entries.iter().flat_map(|it| it.iter()).map(|it| match it {
                    WireguardPeerAttribute::AllowedIps(ips) => ips.len(),
                    _ => 0,
                }).sum::<usize>();
                // The whole message survives its own encoding.
                let mut bytes = vec![0; message.buffer_len()];
                message.emit(&mut bytes);
                let header = GenlHeader { cmd: message.cmd.into(), version: 1 };
                let parsed = WireguardMessage::parse_with_param(bytes.as_slice(), header);
                prop_assert_eq!(parsed.unwrap(), message);
            }
            keys.dedup();
            let expected: Vec<_> = operations.iter().map(|it| match it {
                PeerOp::Add(spec) | PeerOp::Update(spec) => *spec.public_key.as_bytes(),
                PeerOp::Remove(key) => *key.as_bytes(),
            }).collect();
            prop_assert_eq!(keys, expected);
            let named: usize = operations.iter().map(|it| match it {
                PeerOp::Add(spec) | PeerOp::Update(spec) => spec.allowed_ips.len(),
                PeerOp::Remove(_) => 0,
            }).sum();
            prop_assert_eq!(addresses, named);
        }
    }
}
