//! A table in memory that takes only what the kernel's would take, and fails when it is told to.
//!
//! For tests and for simulated nodes. Clones share one table.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use shared::ids::PeerId;

use super::{Change, Consumed, Content, Found, Kind, Object, Table, TableError};

/// A table in memory.
#[derive(Debug, Clone, Default)]
pub struct FakeTable {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    content: Option<Content>,
    changes: Vec<Change>,
    broken: bool,
    failing_changes: u32,
    reads: u32,
}

impl FakeTable {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the table holds; none where there is none.
    #[must_use]
    pub fn content(&self) -> Option<Content> {
        self.lock().content.clone()
    }

    /// The changes carried out since the last call.
    #[must_use]
    pub fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.lock().changes)
    }

    /// How often the whole table or its quotas were read.
    #[must_use]
    pub fn reads(&self) -> u32 {
        self.lock().reads
    }

    /// Every call fails from now on, or works again.
    pub fn set_broken(&self, broken: bool) {
        self.lock().broken = broken;
    }

    /// The next `calls` changes fail and change nothing.
    pub fn fail_changes(&self, calls: u32) {
        self.lock().failing_changes = calls;
    }

    /// Somebody deletes the table, or the host was started again.
    pub fn vanish(&self) {
        self.lock().content = None;
    }

    /// The client with this address moves bytes. Returns whether its quota lets them pass.
    pub fn transfer(&self, address: IpAddr, bytes: u64) -> bool {
        let mut state = self.lock();
        let Some(content) = &mut state.content else {
            return true;
        };
        let Some(Some(peer)) = content.owner(Kind::Quota, address) else {
            return true;
        };
        let Some(Object::Quota {
            bytes: size,
            consumed,
        }) = content.object(Kind::Quota, peer)
        else {
            return true;
        };
        let after = consumed.saturating_add(bytes);
        content.observe(&[(peer, after.min(size))]);
        after <= size
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self) -> Result<MutexGuard<'_, State>, TableError> {
        let state = self.lock();
        if state.broken {
            return Err(refused("told to fail"));
        }
        Ok(state)
    }
}

#[async_trait]
impl Table for FakeTable {
    async fn read(&self) -> Result<Option<Found>, TableError> {
        let mut state = self.call()?;
        state.reads += 1;
        let content = state.content.clone();
        Ok(content.map(|content| Found {
            content,
            intact: true,
        }))
    }

    async fn make(&self) -> Result<(), TableError> {
        self.call()?.content.get_or_insert_default();
        Ok(())
    }

    async fn change(&self, peers: &[Vec<Change>]) -> Result<(), TableError> {
        let mut state = self.call()?;
        if state.failing_changes > 0 {
            state.failing_changes -= 1;
            return Err(refused("told to fail"));
        }
        for changes in peers {
            let mut content = state.content.clone().ok_or_else(|| refused("no table"))?;
            for change in changes {
                check(&content, change)?;
                content.carry_out(change);
            }
            state.content = Some(content);
            state.changes.extend_from_slice(changes);
        }
        Ok(())
    }

    async fn quotas(&self) -> Result<Vec<Consumed>, TableError> {
        let mut state = self.call()?;
        state.reads += 1;
        let content = state.content.iter();
        Ok(content.flat_map(Content::quotas).collect())
    }

    async fn quotas_of(&self, peers: &[PeerId]) -> Result<Vec<Consumed>, TableError> {
        let state = self.call()?;
        let quotas = state.content.iter().flat_map(Content::quotas);
        Ok(quotas.filter(|(peer, _)| peers.contains(peer)).collect())
    }

    async fn remove(&self) -> Result<(), TableError> {
        self.call()?.content = None;
        Ok(())
    }
}

/// What the kernel refuses.
fn check(content: &Content, change: &Change) -> Result<(), TableError> {
    let fits = match *change {
        Change::RemoveElement(kind, address) => content.owner(kind, address).is_some(),
        Change::RemoveObject(kind, peer) => {
            content.object(kind, peer).is_some()
                && content.addresses(kind, Some(peer)).next().is_none()
        }
        Change::AddObject(kind, peer, object) => {
            let startable = match object {
                Object::Quota { bytes, consumed } => consumed <= bytes,
                Object::Rate {
                    bytes_per_second, ..
                } => bytes_per_second > 0,
            };
            startable && content.object(kind, peer).is_none()
        }
        Change::SetAllowance(peer, _) => content.object(Kind::Quota, peer).is_some(),
        Change::AddElement(kind, address, peer) => {
            content.owner(kind, address).is_none() && content.object(kind, peer).is_some()
        }
    };
    if fits {
        Ok(())
    } else {
        Err(refused(&format!("{change:?} does not fit")))
    }
}

fn refused(why: &str) -> TableError {
    crate::netfilter::Error::from(std::io::Error::other(why.to_owned())).into()
}
