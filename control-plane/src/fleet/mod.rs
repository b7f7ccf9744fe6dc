//! The fleet: servers, the nodes that run them, their sessions, and the choice among them.

pub mod desired;
