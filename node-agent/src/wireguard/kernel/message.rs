//! Requests to the kernel, as bytes.
//!
//! Attributes are written straight into the buffer that is sent, which is reserved at once, so that
//! no copy of a key stays behind, and overwritten when it is dropped. One buffer serves all messages of a
//! batch: a byte is overwritten at a time, which is a part of the cost of ten thousand new peers. A tree of attributes, as
//! `netlink-packet-wireguard` has it, takes a dozen allocations a peer; that crate reads in the tests
//! what is written here.
//!
//! An attribute's length is 16 bits wide, so peers are packed by bytes into messages well under
//! that, and a peer with very many allowed IPs is spread over several entries.

use std::iter::Peekable;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::NLA_F_NESTED;
use shared::wireguard::{KEY_LEN, PresharedKey, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::wireguard::{InterfaceName, PeerOp, PeerSpec};

/// Longest list of peers in a message.
pub(super) const MAX_PEERS_BYTES: usize = 32 * 1024;

/// Most allowed IPs in one entry: at up to 40 bytes each, well under [`MAX_PEERS_BYTES`].
const MAX_ALLOWED_IPS: usize = 512;

/// Bytes of the headers of netlink and of generic netlink, which the socket fills in.
pub(super) const HEADERS_BYTES: usize = 20;

/// Bytes of an attribute's header.
const HEADER_BYTES: usize = 4;

// <linux/genetlink.h>
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

// <linux/wireguard.h>
const FAMILY: &str = "wireguard";
const WG_CMD_GET_DEVICE: u8 = 0;
const WG_CMD_SET_DEVICE: u8 = 1;
const WGDEVICE_A_IFNAME: u16 = 2;
const WGDEVICE_A_PRIVATE_KEY: u16 = 3;
const WGDEVICE_A_FLAGS: u16 = 5;
const WGDEVICE_A_LISTEN_PORT: u16 = 6;
const WGDEVICE_A_PEERS: u16 = 8;
const WGDEVICE_F_REPLACE_PEERS: u32 = 1;
const WGPEER_A_PUBLIC_KEY: u16 = 1;
const WGPEER_A_PRESHARED_KEY: u16 = 2;
const WGPEER_A_FLAGS: u16 = 3;
const WGPEER_A_ALLOWEDIPS: u16 = 9;
const WGPEER_F_REMOVE_ME: u32 = 1;
const WGPEER_F_REPLACE_ALLOWEDIPS: u32 = 2;
const WGPEER_F_UPDATE_ONLY: u32 = 4;
const WGALLOWEDIP_A_FAMILY: u16 = 1;
const WGALLOWEDIP_A_IPADDR: u16 = 2;
const WGALLOWEDIP_A_CIDR_MASK: u16 = 3;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// One message, with room for its headers.
pub(super) struct Request {
    pub(super) command: u8,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

/// Asks generic netlink for WireGuard's number.
pub(super) fn family() -> Request {
    let mut request = Request::new(CTRL_CMD_GETFAMILY, 32);
    request.text(CTRL_ATTR_FAMILY_NAME, FAMILY);
    request
}

/// Asks for the interface and all its peers.
pub(super) fn get(name: &InterfaceName) -> Request {
    Request::about(name, WG_CMD_GET_DEVICE, 0)
}

/// Sets the key, the port or both. Peers stay.
pub(super) fn set(
    name: &InterfaceName,
    private_key: Option<&PrivateKey>,
    listen_port: Option<u16>,
) -> Request {
    let mut request = Request::about(name, WG_CMD_SET_DEVICE, 64);
    if let Some(key) = private_key {
        request.attribute(WGDEVICE_A_PRIVATE_KEY, key.expose_bytes());
    }
    if let Some(port) = listen_port {
        request.attribute(WGDEVICE_A_LISTEN_PORT, &port.to_ne_bytes());
    }
    request
}

/// Removes every peer at once. For teardown only.
pub(super) fn flush(name: &InterfaceName) -> Request {
    let mut request = Request::about(name, WG_CMD_SET_DEVICE, 16);
    request.attribute(WGDEVICE_A_FLAGS, &WGDEVICE_F_REPLACE_PEERS.to_ne_bytes());
    request
}

/// The operations in order, in as few messages as their bytes allow.
pub(super) struct Packing<'a, E: Iterator<Item = Entry<'a>>> {
    name: &'a InterfaceName,
    entries: Peekable<E>,
}

pub(super) fn pack<'a>(
    name: &'a InterfaceName,
    operations: &'a [PeerOp],
) -> Packing<'a, impl Iterator<Item = Entry<'a>> + Send> {
    Packing {
        name,
        entries: operations.iter().flat_map(entries).peekable(),
    }
}

impl<'a, E: Iterator<Item = Entry<'a>>> Packing<'a, E> {
    /// The next message, in the buffer of the one before, where there was one.
    pub(super) fn next(&mut self, before: Option<Request>) -> Option<Request> {
        let (some, bytes) = self.take();
        if some.is_empty() {
            return None;
        }
        let is_last = self.entries.peek().is_none();
        let room = HEADER_BYTES + if is_last { bytes } else { MAX_PEERS_BYTES };
        let mut request = match before {
            Some(before) => before.again(self.name),
            None => Request::about(self.name, WG_CMD_SET_DEVICE, room),
        };
        request.nested(WGDEVICE_A_PEERS, |request| {
            some.iter().for_each(|entry| request.peer(entry));
        });
        Some(request)
    }

    /// As many entries as fit into a message, and their bytes.
    fn take(&mut self) -> (Vec<Entry<'a>>, usize) {
        let mut bytes = 0;
        let mut some = Vec::new();
        while let Some(entry) = (self.entries)
            .next_if(|entry| some.is_empty() || bytes + entry.bytes() <= MAX_PEERS_BYTES)
        {
            bytes += entry.bytes();
            some.push(entry);
        }
        (some, bytes)
    }
}

/// One entry of a list of peers.
pub(super) struct Entry<'a> {
    public_key: &'a PublicKey,
    /// The key to set, zeros where there shall be none; absent where it stays.
    preshared_key: Option<&'a [u8; KEY_LEN]>,
    flags: u32,
    allowed_ips: Option<&'a [IpNet]>,
}

impl Entry<'_> {
    fn bytes(&self) -> usize {
        let key = HEADER_BYTES + KEY_LEN;
        let addresses = self.allowed_ips.map_or(0, |networks| {
            HEADER_BYTES + networks.iter().map(allowed_ip_bytes).sum::<usize>()
        });
        let preshared_key = self.preshared_key.map_or(0, |_| key);
        HEADER_BYTES + key + preshared_key + (HEADER_BYTES + 4) + addresses
    }
}

fn allowed_ip_bytes(network: &IpNet) -> usize {
    let address = match network {
        IpNet::V4(_) => 4,
        IpNet::V6(_) => 16,
    };
    HEADER_BYTES + (HEADER_BYTES + 4) + (HEADER_BYTES + address) + (HEADER_BYTES + 4)
}

/// One operation as entries; more than one only for very many allowed IPs.
fn entries(operation: &PeerOp) -> impl Iterator<Item = Entry<'_>> + Send {
    let (head, rest, public_key) = match operation {
        PeerOp::Add(spec) => put(spec, WGPEER_F_REPLACE_ALLOWEDIPS),
        PeerOp::Update(spec) => put(spec, WGPEER_F_UPDATE_ONLY | WGPEER_F_REPLACE_ALLOWEDIPS),
        PeerOp::Remove(public_key) => {
            let head = Entry {
                public_key,
                preshared_key: None,
                flags: WGPEER_F_REMOVE_ME,
                allowed_ips: None,
            };
            (head, &[][..], public_key)
        }
    };
    let rest = rest.chunks(MAX_ALLOWED_IPS).map(move |more| Entry {
        public_key,
        preshared_key: None,
        flags: WGPEER_F_UPDATE_ONLY,
        allowed_ips: Some(more),
    });
    std::iter::once(head).chain(rest)
}

fn put(spec: &PeerSpec, flags: u32) -> (Entry<'_>, &[IpNet], &PublicKey) {
    // A key of zeros is how the kernel is told that there is none.
    const NONE: &[u8; KEY_LEN] = &[0; KEY_LEN];
    let preshared_key = spec.preshared_key.as_ref();
    let (first, rest) = spec
        .allowed_ips
        .split_at(spec.allowed_ips.len().min(MAX_ALLOWED_IPS));
    let head = Entry {
        public_key: &spec.public_key,
        preshared_key: Some(preshared_key.map_or(NONE, PresharedKey::expose_bytes)),
        flags,
        allowed_ips: Some(first),
    };
    (head, rest, &spec.public_key)
}

impl Request {
    /// Room for attributes of so many bytes.
    fn new(command: u8, bytes: usize) -> Self {
        let mut request = Self {
            command,
            bytes: Zeroizing::new(Vec::with_capacity(HEADERS_BYTES + bytes)),
        };
        request.bytes.resize(HEADERS_BYTES, 0);
        request
    }

    fn about(name: &InterfaceName, command: u8, bytes: usize) -> Self {
        let mut request = Self::new(command, bytes + HEADER_BYTES + name.as_str().len() + 4);
        request.text(WGDEVICE_A_IFNAME, name.as_str());
        request
    }

    /// The same command about the interface, with the attributes to come.
    fn again(mut self, name: &InterfaceName) -> Self {
        self.bytes.truncate(HEADERS_BYTES);
        self.text(WGDEVICE_A_IFNAME, name.as_str());
        self
    }

    fn peer(&mut self, entry: &Entry<'_>) {
        self.nested(0, |request| {
            request.attribute(WGPEER_A_PUBLIC_KEY, entry.public_key.as_bytes());
            if let Some(key) = entry.preshared_key {
                request.attribute(WGPEER_A_PRESHARED_KEY, key);
            }
            request.attribute(WGPEER_A_FLAGS, &entry.flags.to_ne_bytes());
            if let Some(networks) = entry.allowed_ips {
                request.nested(WGPEER_A_ALLOWEDIPS, |request| {
                    networks.iter().for_each(|it| request.allowed_ip(it));
                });
            }
        });
    }

    fn allowed_ip(&mut self, network: &IpNet) {
        self.nested(0, |request| {
            let family = match network {
                IpNet::V4(_) => AF_INET,
                IpNet::V6(_) => AF_INET6,
            };
            request.attribute(WGALLOWEDIP_A_FAMILY, &family.to_ne_bytes());
            match network.addr() {
                IpAddr::V4(it) => request.attribute(WGALLOWEDIP_A_IPADDR, &it.octets()),
                IpAddr::V6(it) => request.attribute(WGALLOWEDIP_A_IPADDR, &it.octets()),
            }
            request.attribute(WGALLOWEDIP_A_CIDR_MASK, &[network.prefix_len()]);
        });
    }

    fn text(&mut self, kind: u16, text: &str) {
        let at = self.begin(kind);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.end(at);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let at = self.begin(kind);
        self.bytes.extend_from_slice(value);
        self.end(at);
    }

    fn nested(&mut self, kind: u16, content: impl FnOnce(&mut Self)) {
        let at = self.begin(kind | NLA_F_NESTED);
        content(self);
        self.end(at);
    }

    /// Writes an attribute's header; its length follows in [`Request::end`].
    fn begin(&mut self, kind: u16) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        at
    }

    fn end(&mut self, at: usize) {
        let length = self.bytes.len() - at;
        // Bounded by `MAX_PEERS_BYTES` and an attribute around it.
        let length = u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes();
        if let Some((header, _)) = self
            .bytes
            .get_mut(at..)
            .and_then(<[u8]>::split_first_chunk_mut)
        {
            *header = length;
        }
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("command", &self.command)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::{Nla, ParseableParametrized};
    use netlink_packet_generic::GenlHeader;
    use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
    use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
    use netlink_packet_wireguard::{
        WireguardAttribute, WireguardCmd, WireguardDeviceFlags, WireguardMessage, WireguardPeer,
        WireguardPeerAttribute, WireguardPeerFlags,
    };
    use proptest::prelude::*;

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

    /// What another implementation reads.
    fn read(request: &Request) -> WireguardMessage {
        assert_eq!(request.bytes[..HEADERS_BYTES], [0; HEADERS_BYTES]);
        let header = GenlHeader {
            cmd: request.command,
            version: 1,
        };
        let parsed = WireguardMessage::parse_with_param(&request.bytes[HEADERS_BYTES..], header);
        parsed.unwrap()
    }

    fn packed(operations: &[PeerOp]) -> Vec<WireguardMessage> {
        let name = name();
        let (mut packing, mut before, mut messages) = (pack(&name, operations), None, Vec::new());
        while let Some(request) = packing.next(before.take()) {
            messages.push(read(&request));
            before = Some(request);
        }
        messages
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
    fn questions_are_read_as_what_they_are() {
        let question = read(&get(&name()));
        assert_eq!(question.cmd, WireguardCmd::GetDevice);
        let names = [WireguardAttribute::IfName("wg0".to_owned())];
        assert_eq!(question.attributes, names);
        let question = family();
        let header = GenlHeader {
            cmd: question.command,
            version: 1,
        };
        let read = GenlCtrl::parse_with_param(&question.bytes[HEADERS_BYTES..], header).unwrap();
        assert_eq!(read.cmd, GenlCtrlCmd::GetFamily);
        let names = [GenlCtrlAttrs::FamilyName("wireguard".to_owned())];
        assert_eq!(read.nlas, names);
    }

    #[test]
    fn only_what_differs_is_set() {
        let key = PrivateKey::from_bytes([9; KEY_LEN]);
        let both = read(&set(&name(), Some(&key), Some(51820)));
        assert_eq!(both.cmd, WireguardCmd::SetDevice);
        let expected = [
            WireguardAttribute::IfName("wg0".to_owned()),
            WireguardAttribute::PrivateKey([9; KEY_LEN]),
            WireguardAttribute::ListenPort(51820),
        ];
        assert_eq!(both.attributes, expected);
        assert_eq!(read(&set(&name(), None, Some(1))).attributes.len(), 2);
    }

    #[test]
    fn each_operation_has_its_flags() {
        let operations = [operation(0, 1, 2), operation(1, 2, 2), operation(2, 3, 0)];
        let messages = packed(&operations);
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
        for operation in [PeerOp::Add(without.clone()), PeerOp::Update(without)] {
            assert!(peers(&packed(&[operation])[0])[0].contains(&zeros));
        }
    }

    #[test]
    fn nothing_to_do_is_no_message() {
        assert_eq!(packed(&[]), []);
    }

    fn replaces_all(message: &WireguardMessage) -> bool {
        message
            .attributes
            .iter()
            .any(|it| matches!(it, WireguardAttribute::Flags(flags) if *flags == WireguardDeviceFlags::ReplacePeers))
    }

    #[test]
    fn only_a_flush_replaces_peers() {
        assert!(replaces_all(&read(&flush(&name()))));
        let setup = set(&name(), Some(&PrivateKey::generate()), Some(1));
        assert!(!replaces_all(&read(&setup)));
    }

    #[test]
    fn a_request_does_not_print_its_keys() {
        let setup = set(&name(), Some(&PrivateKey::from_bytes([9; KEY_LEN])), None);
        assert!(!format!("{setup:?}").contains("9, 9"));
    }

    #[test]
    fn ten_thousand_dual_stack_peers_fill_their_messages() {
        let operations: Vec<_> = (0..10_000).map(|i| operation(0, i, 2)).collect();
        let messages = packed(&operations);
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
            let (mut packing, mut before, mut place) = (pack(&name, &operations), None, None);
            while let Some(request) = packing.next(before.take()) {
                // The buffer never moves: no copy of a key is left behind.
                prop_assert_eq!(*place.get_or_insert(request.bytes.as_ptr()), request.bytes.as_ptr());
                prop_assert!(request.bytes.capacity() < HEADERS_BYTES + MAX_PEERS_BYTES + 64);
                let message = read(&request);
                prop_assert!(!replaces_all(&message));
                let entries = peers(&message);
                let bytes: usize = entries.iter().map(|it| HEADER_BYTES + it.value_len()).sum();
                prop_assert!(bytes <= MAX_PEERS_BYTES);
                // Room was reserved for just this much.
                prop_assert_eq!(bytes, request.bytes.len() - HEADERS_BYTES - 8 - HEADER_BYTES);
                keys.extend(entries.iter().map(key));
                addresses += entries.iter().flat_map(|it| it.iter()).map(|it| match it {
                    WireguardPeerAttribute::AllowedIps(ips) => ips.len(),
                    _ => 0,
                }).sum::<usize>();
                before = Some(request);
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
