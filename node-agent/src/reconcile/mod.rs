//! Brings the interface to the desired state and keeps it there.
pub mod plan;
