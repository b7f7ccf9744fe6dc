//! The kernel's own WireGuard, over generic netlink.
//!
//! One socket is kept open and used by one call at a time, so that our own changes never interrupt
//! our own dumps. The kernel works while a request is being sent, several milliseconds for a
//! message full of new peers, hence the blocking threads.

mod dump;
mod message;
mod socket;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use self::dump::Dump;
use self::socket::{Connection, Ended};
use super::link::{Link, Links};
use super::{
    Device, DeviceError, InterfaceName, InterfaceSetup, InterfaceStatus, PeerOp, PeerStatus,
};

/// How often a dump that somebody else's change interrupted is begun again.
const DUMP_ATTEMPTS: usize = 8;

/// An interface of the kernel's module.
#[derive(Debug)]
pub(super) struct KernelDevice {
    name: InterfaceName,
    links: Links,
    connection: Arc<Mutex<Connection>>,
}

/// Whether this kernel has WireGuard. Loads the module if that is possible.
pub async fn available() -> Result<(), DeviceError> {
    tokio::task::spawn_blocking(|| Connection::open().map(|_| ()))
        .await
        .map_err(interrupted)?
}

/// How many peers the messages of a dump have, none where they are malformed: the fuzzer's way in.
#[doc(hidden)]
#[must_use]
pub fn peers_in_dump(messages: &[&[u8]]) -> Option<usize> {
    let mut dump = Dump::default();
    messages.iter().try_for_each(|it| dump.read(it)).ok()?;
    Some(dump.finish().peers.len())
}

impl KernelDevice {
    pub(super) fn open(name: InterfaceName) -> Result<Self, DeviceError> {
        Ok(Self {
            name,
            links: Links::open()?,
            connection: Arc::new(Mutex::new(Connection::open()?)),
        })
    }

    /// Does `work` with the socket on a blocking thread.
    async fn with_socket<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &InterfaceName) -> Result<T, DeviceError> + Send + 'static,
    ) -> Result<T, DeviceError> {
        let connection = Arc::clone(&self.connection);
        let name = self.name.clone();
        tokio::task::spawn_blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection, &name)
        })
        .await
        .map_err(interrupted)?
    }

    async fn find_or_add(&self) -> Result<Link, DeviceError> {
        if let Some(link) = self.links.find(&self.name).await? {
            return Ok(link);
        }
        match self.links.add_wireguard(&self.name).await {
            Err(DeviceError::Unavailable(..)) => return Err(no_module()),
            other => other?,
        }
        let link = self.links.find(&self.name).await?;
        link.ok_or(DeviceError::Missing)
    }

    fn must_be_wireguard(&self, link: &Link) -> Result<(), DeviceError> {
        if link.is_wireguard {
            return Ok(());
        }
        let reason = format!("{} exists and is not WireGuard's", self.name);
        Err(DeviceError::Unavailable("the interface's name", reason))
    }
}

#[async_trait]
impl Device for KernelDevice {
    fn backend(&self) -> &'static str {
        "kernel"
    }

    async fn ensure(&self, setup: &InterfaceSetup) -> Result<InterfaceStatus, DeviceError> {
        let link = self.find_or_add().await?;
        self.must_be_wireguard(&link)?;
        let wanted = setup.clone();
        let status = self
            .with_socket(move |connection, name| configure(connection, name, &wanted))
            .await?;
        self.links.configure(&link, setup).await?;
        Ok(InterfaceStatus {
            index: link.index,
            ..status
        })
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, DeviceError> {
        let dump = self.with_socket(dump).await?;
        Ok(dump.peers)
    }

    async fn apply(&self, operations: &[PeerOp]) -> Result<(), DeviceError> {
        if operations.is_empty() {
            return Ok(());
        }
        let operations = operations.to_vec();
        self.with_socket(move |connection, name| {
            message::pack(name, &operations).try_for_each(|it| connection.change(it))
        })
        .await
    }

    async fn teardown(&self) -> Result<(), DeviceError> {
        let Some(link) = self.links.find(&self.name).await? else {
            return Ok(());
        };
        self.must_be_wireguard(&link)?;
        // Deleting an interface with its peers waits for each of them in turn.
        let flushed = self
            .with_socket(|connection, name| connection.change(message::flush(name)))
            .await;
        match flushed {
            Err(DeviceError::Missing) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.links.delete(&link).await,
        }
    }
}

/// Sets key and port where they differ. A key is never set again: with many peers that costs
/// seconds, and every session.
fn configure(
    connection: &mut Connection,
    name: &InterfaceName,
    setup: &InterfaceSetup,
) -> Result<InterfaceStatus, DeviceError> {
    let actual = dump(connection, name)?;
    let public_key = Some(setup.private_key.public_key());
    let key = (actual.public_key != public_key).then_some(&setup.private_key);
    let port = (actual.listen_port != setup.listen_port).then_some(setup.listen_port);
    if key.is_some() || port.is_some() {
        connection.change(message::set(name, key, port))?;
    }
    Ok(InterfaceStatus {
        index: 0,
        public_key,
        listen_port: setup.listen_port,
    })
}

fn dump(connection: &mut Connection, name: &InterfaceName) -> Result<Dump, DeviceError> {
    for _ in 0..DUMP_ATTEMPTS {
        let mut dump = Dump::default();
        match connection.dump(message::get(name), |attributes| dump.read(attributes))? {
            Ended::Complete => return Ok(dump.finish()),
            Ended::Interrupted => {}
        }
    }
    let reason = format!("{name} changed during each of {DUMP_ATTEMPTS} dumps");
    Err(DeviceError::Netlink(reason))
}

fn no_module() -> DeviceError {
    DeviceError::Unavailable(
        "the kernel's WireGuard",
        "load it with `modprobe wireguard` (Linux 5.6 or later)".to_owned(),
    )
}

fn interrupted(error: tokio::task::JoinError) -> DeviceError {
    DeviceError::Netlink(error.to_string())
}
