//! Word from the kernel of changes to nftables.
//!
//! Every transaction on a ruleset is told to whoever listens, message by message, each with the name
//! of the table that it is about; and every transaction counts the ruleset's generation up by one.

use std::io;

use netlink_packet_core::NLM_F_REQUEST;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use nix::errno::Errno;

use crate::netlink::{find, text};

// <linux/netfilter/nfnetlink.h>, <linux/netfilter/nf_tables.h>
const NFNLGRP_NFTABLES: u32 = 7;
const NFNL_SUBSYS_NFTABLES: u8 = 10;
const NFT_MSG_GETGEN: u8 = 16;
const NFTA_GEN_ID: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// In every message that is about a table or a part of one.
const NFTA_TABLE_NAME: u16 = 1;

const NETLINK_HEADER_BYTES: usize = 16;
/// Family, version and resource.
const NETFILTER_HEADER_BYTES: usize = 4;
/// More than the kernel ever puts into one datagram.
const READ_BYTES: usize = 64 * 1024;

/// Tells of changes to one table.
pub(super) struct Changes {
    socket: TokioSocket,
    buffer: Vec<u8>,
    table: String,
}

impl Changes {
    /// Listens from here on.
    pub(super) fn open(table: String) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_mut().add_membership(NFNLGRP_NFTABLES)?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(READ_BYTES),
            table,
        })
    }

    /// Until the table was changed, by whomever, or word of a change may have been lost.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer).await {
                Ok(()) if names(&self.buffer, &self.table) => return Ok(()),
                Ok(()) => {}
                // More happened than the socket could hold.
                Err(error) if is_overflow(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_overflow(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw) == Some(Errno::ENOBUFS)
}

/// The number of the ruleset's present state.
pub(super) fn generation() -> io::Result<u32> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&get_generation(), 0)?;
    let mut answer = Vec::with_capacity(READ_BYTES);
    socket.recv(&mut answer, 0)?;
    refusal(&answer)?;
    messages(&answer)
        .flatten()
        .find_map(|message| find(message, NFTA_GEN_ID).ok()??.try_into().ok())
        .map(u32::from_be_bytes)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// An answer that is an error has its number, negative, in the place of a body.
fn refusal(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|it| it.try_into().ok());
    let number = answer
        .get(NETLINK_HEADER_BYTES..)
        .and_then(<[u8]>::first_chunk);
    match (kind.map(u16::from_ne_bytes), number) {
        (Some(NLMSG_ERROR), Some(number)) => {
            let number = i32::from_ne_bytes(*number).saturating_neg();
            Err(io::Error::from_raw_os_error(number))
        }
        _ => Ok(()),
    }
}

fn get_generation() -> [u8; NETLINK_HEADER_BYTES + NETFILTER_HEADER_BYTES] {
    let mut request = [0; NETLINK_HEADER_BYTES + NETFILTER_HEADER_BYTES];
    let length = u32::try_from(request.len()).unwrap_or_default();
    let kind = u16::from_be_bytes([NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN]);
    let header = [
        length.to_ne_bytes().as_slice(),
        &kind.to_ne_bytes(),
        &NLM_F_REQUEST.to_ne_bytes(),
    ]
    .concat();
    for (byte, value) in request.iter_mut().zip(header) {
        *byte = value;
    }
    request
}

/// Whether a datagram has word of `table`. One that is not understood may have.
fn names(datagram: &[u8], table: &str) -> bool {
    messages(datagram).any(|message| match message {
        None => true,
        Some(message) => match find(message, NFTA_TABLE_NAME) {
            Ok(name) => name.is_some_and(|name| text(name) == table),
            Err(_) => true,
        },
    })
}

/// The attributes of each of a datagram's messages; none for the part that is not a message.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        let (length, _) = datagram.split_first_chunk()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        let attributes = datagram.get(NETLINK_HEADER_BYTES + NETFILTER_HEADER_BYTES..length);
        // An answer without a body, or a length that cannot be: nothing can follow it.
        datagram = match attributes {
            Some(_) => datagram
                .get(length.next_multiple_of(4)..)
                .unwrap_or_default(),
            None => &[],
        };
        Some(attributes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netns::{in_private_netns, run};
    use proptest::prelude::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_change_of_the_table_is_told_and_of_another_is_not() {
        in_private_netns(async || {
            let mut changes = Changes::open("ours".into()).unwrap();
            run("nft add table inet ours2");
            run("nft add chain inet ours2 c");
            let heard = timeout(Duration::from_millis(200), changes.next()).await;
            assert!(heard.is_err(), "of another table");
            for line in [
                "nft add table inet ours",
                "nft add chain inet ours c",
                "nft add rule inet ours c drop",
                "nft flush chain inet ours c",
                "nft flush ruleset",
            ] {
                run(line);
                let heard = timeout(SOON, changes.next()).await;
                heard.unwrap_or_else(|_| panic!("{line}")).unwrap();
            }
        });
    }

    #[test]
    fn each_transaction_is_one_generation() {
        in_private_netns(async || {
            let before = generation().unwrap();
            run("nft add table inet one");
            assert_eq!(generation().unwrap(), before + 1);
            run("nft list ruleset");
            assert_eq!(generation().unwrap(), before + 1);
        });
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = names(&bytes, "ours");
        }
    }
}
