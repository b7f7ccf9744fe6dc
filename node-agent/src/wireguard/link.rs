//! The interface as the kernel's network stack sees it: index, addresses, MTU, up or down.
//!
//! One rtnetlink connection is kept open. It belongs to the network namespace of the thread that
//! opened it.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use futures_util::{Stream, StreamExt, pin_mut};
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{Handle, LinkUnspec, LinkWireguard};

use super::{DeviceError, InterfaceName, InterfaceSetup};

/// An interface that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    /// Made by the kernel's WireGuard.
    pub(super) is_wireguard: bool,
    mtu: Option<u32>,
    up: bool,
}

/// Reads and changes interfaces.
#[derive(Debug, Clone)]
pub(super) struct Links {
    handle: Handle,
}

impl Links {
    /// Opens the connection; its task ends when the last clone is dropped.
    pub(super) fn open() -> Result<Self, DeviceError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| DeviceError::from_io("opening rtnetlink", source))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub(super) async fn find(&self, name: &InterfaceName) -> Result<Option<Link>, DeviceError> {
        let request = self.handle.link().get().match_name(name.to_string());
        match first(request.execute()).await {
            Ok(message) => Ok(message.as_ref().map(describe)),
            Err(error) => match failure("looking the interface up", error) {
                DeviceError::Missing => Ok(None),
                other => Err(other),
            },
        }
    }

    /// Makes a WireGuard interface, which the kernel's module must be there for.
    pub(super) async fn add_wireguard(&self, name: &InterfaceName) -> Result<(), DeviceError> {
        let link = LinkWireguard::new(name.as_str()).build();
        let added = self.handle.link().add(link).execute().await;
        added.map_err(|error| failure("making the interface", error))
    }

    pub(super) async fn delete(&self, link: &Link) -> Result<(), DeviceError> {
        let deleted = self.handle.link().del(link.index).execute().await;
        match deleted.map_err(|error| failure("deleting the interface", error)) {
            Err(DeviceError::Missing) => Ok(()),
            other => other,
        }
    }

    /// Brings addresses, MTU and state to `setup`, changing only what differs.
    pub(super) async fn configure(
        &self,
        link: &Link,
        setup: &InterfaceSetup,
    ) -> Result<(), DeviceError> {
        self.set_addresses(link.index, &setup.addresses).await?;
        if link.up && link.mtu == Some(setup.mtu) {
            return Ok(());
        }
        let change = LinkUnspec::new_with_index(link.index)
            .mtu(setup.mtu)
            .up()
            .build();
        let changed = self.handle.link().change(change).execute().await;
        changed.map_err(|error| failure("setting MTU and bringing the interface up", error))
    }

    async fn set_addresses(&self, index: u32, wanted: &[IpNet]) -> Result<(), DeviceError> {
        let mut missing: BTreeSet<IpNet> = wanted.iter().copied().collect();
        let request = self.handle.address().get().set_link_index_filter(index);
        let present = request.execute();
        pin_mut!(present);
        let mut surplus = Vec::new();
        while let Some(message) = present.next().await {
            let message = message.map_err(|error| failure("reading addresses", error))?;
            // The kernel gives link-local addresses by itself.
            let ours = address_of(&message).filter(|it| !is_link_local(it.addr()));
            if let Some(address) = ours
                && message.header.index == index
                && !missing.remove(&address)
            {
                surplus.push(message);
            }
        }
        for message in surplus {
            let removed = self.handle.address().del(message).execute().await;
            removed.map_err(|error| failure("removing an address", error))?;
        }
        for address in missing {
            let (addr, prefix) = (address.addr(), address.prefix_len());
            let added = self.handle.address().add(index, addr, prefix).execute();
            let added = added.await;
            added.map_err(|error| failure("adding an address", error))?;
        }
        Ok(())
    }
}

fn describe(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        is_wireguard: false,
        mtu: None,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => link.mtu = Some(*mtu),
            LinkAttribute::LinkInfo(info) => {
                link.is_wireguard = info.contains(&LinkInfo::Kind(InfoKind::Wireguard));
            }
            _ => {}
        }
    }
    link
}

/// On a point-to-point interface `Local` is the own address and `Address` the other end's.
fn address_of(message: &AddressMessage) -> Option<IpNet> {
    let local = message.attributes.iter().find_map(|it| match it {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = message.attributes.iter().find_map(|it| match it {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    IpNet::new(local.or(address)?, message.header.prefix_len).ok()
}

const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

async fn first<T>(
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Option<T>, rtnetlink::Error> {
    pin_mut!(stream);
    stream.next().await.transpose()
}

fn failure(context: &'static str, error: rtnetlink::Error) -> DeviceError {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            DeviceError::from_io(context, io::Error::from(message))
        }
        other => DeviceError::Netlink(format!("{context}: {other}")),
    }
}
