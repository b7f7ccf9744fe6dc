//! The kernel's own WireGuard, over generic netlink.
//!
//! Two sockets are kept open, each used by one call at a time: one for changes and one for readings,
//! so that no change waits until ten thousand peers are read. The kernel locks the interface for one
//! message of either. It marks a reading that a change came into: counters are right all the same, and
//! are taken as they are after a second try, so that a busy node's readings end; a comparison is begun
//! again.
//!
//! The kernel works while a request is being sent, several milliseconds for a message full of new
//! peers, hence the blocking threads. A few peers take it less than a thread would take to wake.

mod dump;
mod message;
mod socket;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use self::dump::{Counters, Dump, Head};
use self::message::Request;
use self::socket::{Connection, Ended};
use super::link::{Link, Links};
use super::{
    Device, DeviceError, InterfaceName, InterfaceSetup, InterfaceStatus, PeerOp, PeerStatus,
    Traffic,
};

/// How often a dump that a change interrupted is begun again.
const DUMP_ATTEMPTS: usize = 8;
/// How often counters are read before they are taken as they are.
const COUNTERS_ATTEMPTS: usize = 2;
/// Most bytes of a request that is sent without a blocking thread: up to three peers.
const SMALL_REQUEST_BYTES: usize = 512;

/// An interface of the kernel's module.
#[derive(Debug)]
pub(super) struct KernelDevice {
    name: InterfaceName,
    links: Links,
    changes: Arc<Mutex<Connection>>,
    readings: Arc<Mutex<Connection>>,
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
    Some(dump.finish().len())
}

impl KernelDevice {
    pub(super) fn open(name: InterfaceName) -> Result<Self, DeviceError> {
        Ok(Self {
            name,
            links: Links::open()?,
            changes: Arc::new(Mutex::new(Connection::open()?)),
            readings: Arc::new(Mutex::new(Connection::open()?)),
        })
    }

    /// Hands the request back, for the next one.
    async fn change(&self, mut request: Request) -> Result<Request, DeviceError> {
        if request.bytes.len() <= SMALL_REQUEST_BYTES
            && let Ok(mut connection) = self.changes.try_lock()
        {
            connection.change(&mut request)?;
            return Ok(request);
        }
        self.change_beside(request).await
    }

    /// For what takes long whatever its size.
    async fn change_beside(&self, mut request: Request) -> Result<Request, DeviceError> {
        on_a_thread(&self.changes, move |connection| {
            connection.change(&mut request)?;
            Ok(request)
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &InterfaceName) -> Result<T, DeviceError> + Send + 'static,
    ) -> Result<T, DeviceError> {
        let name = self.name.clone();
        on_a_thread(&self.readings, move |connection| work(connection, &name)).await
    }

    /// Sets key and port where they differ. A key is never set again: with many peers that costs
    /// seconds, and every session.
    async fn set(&self, setup: &InterfaceSetup) -> Result<InterfaceStatus, DeviceError> {
        let actual = self.read(head).await?;
        let public_key = Some(setup.private_key.public_key());
        let key = (actual.public_key != public_key).then_some(&setup.private_key);
        let port = (actual.listen_port != setup.listen_port).then_some(setup.listen_port);
        if key.is_some() || port.is_some() {
            self.change_beside(message::set(&self.name, key, port))
                .await?;
        }
        Ok(InterfaceStatus {
            index: 0,
            public_key,
            listen_port: setup.listen_port,
        })
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
        let status = self.set(setup).await?;
        self.links.configure(&link, setup).await?;
        Ok(InterfaceStatus {
            index: link.index,
            ..status
        })
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, DeviceError> {
        self.read(dump).await
    }

    async fn counters(&self, table: Vec<Traffic>) -> Result<Vec<Traffic>, DeviceError> {
        self.read(|connection, name| counters(connection, name, table))
            .await
    }

    async fn apply(&self, operations: &[PeerOp]) -> Result<(), DeviceError> {
        let (mut packing, mut before) = (message::pack(&self.name, operations), None);
        while let Some(request) = packing.next(before.take()) {
            before = Some(self.change(request).await?);
        }
        Ok(())
    }

    async fn teardown(&self) -> Result<(), DeviceError> {
        let Some(link) = self.links.find(&self.name).await? else {
            return Ok(());
        };
        self.must_be_wireguard(&link)?;
        // Deleting an interface with its peers waits for each of them in turn.
        match self.change_beside(message::flush(&self.name)).await {
            Err(DeviceError::Missing) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => self.links.delete(&link).await,
        }
    }
}

/// Does `work` with the socket on a blocking thread.
async fn on_a_thread<T: Send + 'static>(
    connection: &Arc<Mutex<Connection>>,
    work: impl FnOnce(&mut Connection) -> Result<T, DeviceError> + Send + 'static,
) -> Result<T, DeviceError> {
    let connection = Arc::clone(connection);
    tokio::task::spawn_blocking(move || {
        work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))
    })
    .await
    .map_err(interrupted)?
}

fn head(connection: &mut Connection, name: &InterfaceName) -> Result<Head, DeviceError> {
    let mut head = Head::default();
    connection.first(message::get(name), |attributes| {
        head = Head::read(attributes)?;
        Ok(())
    })?;
    Ok(head)
}

fn dump(connection: &mut Connection, name: &InterfaceName) -> Result<Vec<PeerStatus>, DeviceError> {
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

fn counters(
    connection: &mut Connection,
    name: &InterfaceName,
    mut table: Vec<Traffic>,
) -> Result<Vec<Traffic>, DeviceError> {
    for _ in 0..COUNTERS_ATTEMPTS {
        let mut counters = Counters::into_table(table);
        let ended = connection.dump(message::get(name), |attributes| counters.read(attributes))?;
        table = counters.finish();
        if ended == Ended::Complete {
            break;
        }
    }
    Ok(table)
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
