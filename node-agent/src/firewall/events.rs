//! Word from the kernel of changes to nftables.
//!
//! Every transaction on a ruleset is told to whoever listens, message by message, each with the name
//! of the table that it is about; and every transaction counts the ruleset's generation up by one.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use nix::errno::Errno;

use crate::netfilter::{Connection, Error, HEADERS_BYTES, NFTA_TABLE, Question};
use crate::netlink::{exactly, find, text};

// <linux/netfilter/nfnetlink.h>, <linux/netfilter/nf_tables.h>
const NFNLGRP_NFTABLES: u32 = 7;
const NFTA_GEN_ID: u16 = 1;

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
pub(super) fn generation() -> Result<u32, Error> {
    let mut id = None;
    Connection::open()?.ask(&Question::generation(), |_, message| {
        id = find(message, NFTA_GEN_ID)?.map(exactly).transpose()?;
        Ok(())
    })?;
    let id = id.map(u32::from_be_bytes);
    id.ok_or_else(|| Error::Malformed("no generation".to_owned()))
}

/// Whether a datagram has word of `table`. One that is not understood may have.
fn names(datagram: &[u8], table: &str) -> bool {
    messages(datagram).any(|message| match message {
        None => true,
        Some(message) => match find(message, NFTA_TABLE) {
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
        let attributes = datagram.get(HEADERS_BYTES..length);
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
