//! Sessions of nodes: each is a [`machine::Machine`] without IO and a thin shell around it.
//!
//! A session owns its node by a fenced lease. It ends when the node falls silent or breaks the
//! protocol, when a newer session takes the lease, or when this process stops; in no case does a
//! tunnel end with it.

mod greeting;
mod liveness;
mod lookout;
mod machine;
mod opening;
mod registry;
mod settings;
mod shell;
mod wire;

#[cfg(test)]
mod machine_properties;
#[cfg(test)]
mod machine_tests;

pub(super) use registry::{Ending, Handle, Sessions, Vitals};
pub(super) use shell::run;
