//! Brings the interface to the desired state and keeps it there.
//!
//! One task, the [`Node`], owns peers, addresses, counters, ledger and device; everything else talks
//! to it through a [`NodeHandle`] over a bounded channel. So there is no lock, and every message is
//! carried out whole before the next: memory, then ledger, then interface, then the answer.
//!
//! What must hold: the interface is never ahead of the ledger; a restart with nothing changed issues
//! no peer operation; a difference between ledger and interface is repaired within one period; the
//! interface outlives the agent.

mod ahead;
mod converge;
mod handle;
mod limits;
mod node;
pub mod plan;
mod rotation;
mod scrub;
mod state;
#[cfg(test)]
mod tests;

pub use ahead::Ahead;
pub use handle::{
    Command, Desired, DrainedBy, Held, NodeGone, NodeHandle, NodeStatus, Operations, Outgoing,
    Report, Standing,
};
pub use node::{Node, NodeConfig, NodeError};
pub use scrub::SCRUB_AFTER;
