//! What each client may use: its rates and its quota, enforced by the kernel.
//!
//! A second nftables table of our own, beside the isolation table. It has state (how full a client's
//! bucket is, how much of a quota was used), so it is never replaced as a whole: it is made where it
//! is absent and then changed element by element. A packet costs one hash lookup for each kind of
//! limit, however many clients there are; a client without limits is in no map.
//!
//! [`Book`] is what shall hold and what was used, [`Content`] is what the table holds, [`plan`] is the
//! way from one to the other: pure all three. [`Limiter`] carries plans out on a [`Table`]: `nft`
//! drives the kernel's, `fake` keeps one in memory for tests.
//!
//! What must hold: what a client has used never goes back, whatever becomes of table, agent or host;
//! a change of limits is one transaction a client, so there is no moment without them; nothing here
//! touches the WireGuard peer.

mod book;
mod content;
pub mod fake;
mod limiter;
mod nft;
mod plan;

use async_trait::async_trait;
use shared::ids::PeerId;

use crate::firewall::FirewallError;
use crate::netfilter;

pub use self::book::Book;
pub use self::content::{Change, Content, Kind, Object};
pub use self::limiter::Limiter;
pub use self::nft::NftTable;
pub use self::plan::{Wanted, plan};

/// What a peer has used of its allowance, in bytes.
pub type Consumed = (PeerId, u64);

/// A table as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    pub content: Content,
    /// Every map and every rule is there. Where they are not, [`Table::make`] brings them.
    pub intact: bool,
}

/// Why the table could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error(transparent)]
    Nft(#[from] FirewallError),
    #[error(transparent)]
    Netlink(#[from] netfilter::Error),
    #[error("a blocking task ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The table of limits of one interface.
#[async_trait]
pub trait Table: Send + Sync + std::fmt::Debug {
    /// Everything that is in the table; none where there is no table.
    async fn read(&self) -> Result<Option<Found>, TableError>;

    /// Makes the table, or what it lacks. Limits that are there stay, with what was used of them.
    async fn make(&self) -> Result<(), TableError>;

    /// Carries the changes out in order. Those of one peer are one transaction: after an error the
    /// peers before it may have been changed.
    async fn change(&self, peers: &[Vec<Change>]) -> Result<(), TableError>;

    /// What was used of every quota, by one question.
    async fn quotas(&self) -> Result<Vec<Consumed>, TableError>;

    /// What was used of these peers' quotas. Those without one are left out.
    async fn quotas_of(&self, peers: &[PeerId]) -> Result<Vec<Consumed>, TableError>;

    /// Removes the table. Succeeds where there is none.
    async fn remove(&self) -> Result<(), TableError>;
}
