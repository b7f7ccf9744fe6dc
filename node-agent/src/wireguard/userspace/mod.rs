//! WireGuard in a `wireguard-go` process, for hosts whose kernel has none.
//!
//! The process owns the interface and outlives the agent: an agent that starts finds it by its
//! socket and leaves it as it is. When it has died, calls say [`DeviceError::Missing`], and
//! [`Device::ensure`] starts it again. The protocol is spoken here and not through a library:
//! what there is recreates a vanished interface behind the caller's back and cannot say "update,
//! do not add".

mod process;
#[cfg(test)]
mod tests;
mod uapi;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use self::process::Process;
use super::link::{Link, Links};
use super::{
    Device, DeviceError, InterfaceName, InterfaceSetup, InterfaceStatus, PeerOp, PeerStatus,
};

/// Longest wait for the interface to come with its process, or to go.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// Most operations in one request, so that its answer comes in time.
const MAX_OPERATIONS: usize = 1000;

/// An interface of a supervised `wireguard-go`.
#[derive(Debug)]
pub(super) struct UserspaceDevice {
    name: InterfaceName,
    links: Links,
    /// One call at a time, so that two never start two processes.
    process: Mutex<Process>,
}

/// Whether `wireguard-go` and the kernel's TUN device are there.
pub async fn available(program: &Path) -> Result<(), DeviceError> {
    process::available(program).await
}

/// Whether a process serves this interface already.
pub(super) async fn is_running(name: &InterfaceName) -> bool {
    let process = Process::new(name.clone(), PathBuf::new());
    process.ask(uapi::GET).await.is_ok()
}

impl UserspaceDevice {
    pub(super) fn open(name: InterfaceName, program: PathBuf) -> Result<Self, DeviceError> {
        Ok(Self {
            links: Links::open()?,
            process: Mutex::new(Process::new(name.clone(), program)),
            name,
        })
    }

    /// Waits until the interface is there, or is not, as `wanted` says.
    async fn wait_for(&self, wanted: bool) -> Result<Option<Link>, DeviceError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let link = self.links.find(&self.name).await?;
            if link.is_some() == wanted || Instant::now() > deadline {
                return Ok(link);
            }
            sleep(POLL).await;
        }
    }
}

#[async_trait]
impl Device for UserspaceDevice {
    fn backend(&self) -> &'static str {
        "userspace"
    }

    async fn ensure(&self, setup: &InterfaceSetup) -> Result<InterfaceStatus, DeviceError> {
        let process = self.process.lock().await;
        let actual = match process.ask(uapi::GET).await {
            Err(DeviceError::Missing) => {
                process.start().await?;
                process.ask(uapi::GET).await?
            }
            other => other?,
        };
        // Sockets are the machine's and interfaces a namespace's: it may be somebody else's.
        let link = self.wait_for(true).await?.ok_or(DeviceError::Missing)?;
        let public_key = Some(setup.private_key.public_key());
        let key = (actual.public_key != public_key).then_some(&setup.private_key);
        let port = (actual.listen_port != setup.listen_port).then_some(setup.listen_port);
        if key.is_some() || port.is_some() {
            process.ask(&uapi::set(key, port)).await?;
        }
        self.links.configure(&link, setup).await?;
        Ok(InterfaceStatus {
            index: link.index,
            public_key,
            listen_port: setup.listen_port,
        })
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, DeviceError> {
        let process = self.process.lock().await;
        Ok(process.ask(uapi::GET).await?.peers)
    }

    async fn apply(&self, operations: &[PeerOp]) -> Result<(), DeviceError> {
        let process = self.process.lock().await;
        for some in operations.chunks(MAX_OPERATIONS) {
            process.ask(&uapi::program(some)).await?;
        }
        Ok(())
    }

    async fn teardown(&self) -> Result<(), DeviceError> {
        let process = self.process.lock().await;
        process.stop()?;
        if let Some(link) = self.wait_for(false).await? {
            self.links.delete(&link).await?;
        }
        Ok(())
    }
}
