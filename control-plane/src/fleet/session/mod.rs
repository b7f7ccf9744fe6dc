//! Sessions of nodes held by this process.

mod registry;

pub(super) use registry::Sessions;
