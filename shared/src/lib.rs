//! The vocabulary between the control plane and the node agent.
//!
//! Both daemons depend on this crate and on nothing of each other. It holds values and their
//! encodings only: no runtime, no HTTP, no storage.

pub mod ids;
pub mod protocol;
mod text;
pub mod wireguard;
