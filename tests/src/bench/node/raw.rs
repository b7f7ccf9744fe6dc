//! The least that adding a peer can cost: one message over a socket that is open.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlMessage};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute,
    WireguardCmd, WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use shared::protocol::Peer;
use shared::wireguard::PresharedKey;

/// A socket of generic netlink.
#[derive(Debug)]
pub struct RawSocket {
    socket: Socket,
    family: u16,
}

impl RawSocket {
    pub fn open() -> anyhow::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let question = GenlMessage::from_payload(GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(
                WireguardMessage::family_name().to_owned(),
            )],
        });
        socket.send(&bytes(question, NLM_F_REQUEST), 0)?;
        let mut answer = Vec::with_capacity(8192);
        socket.recv(&mut answer, 0)?;
        let answer = NetlinkMessage::<GenlMessage<GenlCtrl>>::deserialize(&answer)?;
        let NetlinkPayload::InnerMessage(answer) = answer.payload else {
            bail!("the kernel has no WireGuard");
        };
        let family = answer.payload.nlas.iter().find_map(|it| match it {
            GenlCtrlAttrs::FamilyId(id) => Some(*id),
            _ => None,
        });
        Ok(Self {
            socket,
            family: family.context("no family")?,
        })
    }

    /// Adds a peer with two addresses; the message is made before, the time is the kernel's.
    pub fn add(&self, interface: &str, peer: &Peer, host: u32) -> anyhow::Result<Duration> {
        let psk = peer.preshared_key.as_ref().map(PresharedKey::expose_bytes);
        let v4 = Ipv4Addr::from(0x0a08_0000 + host).into();
        let v6 = Ipv6Addr::from((0xfd08_u128 << 112) + u128::from(host)).into();
        let network = |family, address, prefix| {
            WireguardAllowedIp(vec![
                WireguardAllowedIpAttr::Family(family),
                WireguardAllowedIpAttr::IpAddr(address),
                WireguardAllowedIpAttr::Cidr(prefix),
            ])
        };
        let entry = WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey(*peer.public_key.as_bytes()),
            WireguardPeerAttribute::PresharedKey(*psk.context("with a preshared key")?),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps),
            WireguardPeerAttribute::AllowedIps(vec![
                network(WireguardAddressFamily::Ipv4, v4, 32),
                network(WireguardAddressFamily::Ipv6, v6, 128),
            ]),
        ]);
        let mut request = GenlMessage::from_payload(WireguardMessage {
            cmd: WireguardCmd::SetDevice,
            attributes: vec![
                WireguardAttribute::IfName(interface.to_owned()),
                WireguardAttribute::Peers(vec![entry]),
            ],
        });
        request.set_resolved_family_id(self.family);
        let request = bytes(request, NLM_F_REQUEST | NLM_F_ACK);
        let mut answer = Vec::with_capacity(8192);
        let began = Instant::now();
        self.socket.send(&request, 0)?;
        self.socket.recv(&mut answer, 0)?;
        let took = began.elapsed();
        let answer = NetlinkBuffer::new_checked(answer.as_slice())?;
        let code = answer
            .payload()
            .first_chunk()
            .map(|it| i32::from_ne_bytes(*it));
        if code == Some(0) {
            Ok(took)
        } else {
            bail!("the kernel refused: {code:?}")
        }
    }
}

fn bytes<M: NetlinkSerializable>(message: M, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
