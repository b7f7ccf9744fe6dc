//! The harness: what a test needs to run the real plane against real or simulated nodes.
//!
//! A test gets its own database ([`TestDb`]), one or more replicas of the plane in this process
//! ([`TestApp`]), clients that speak the public API ([`api::Client`]) and nodes that speak the
//! session protocol without a kernel ([`SimNode`]). `lab` builds the world of namespaces, processes
//! and WireGuard clients in which the two daemons run as they are shipped.
//!
//! What must hold: no test sees another's data, nothing that a test made outlives it, and nobody
//! sleeps in hope: [`wait`] knows a condition and a deadline.
#![expect(
    clippy::expect_used,
    reason = "the harness is test code: it fails by panicking, at the place that failed"
)]

pub mod api;
mod app;
pub mod bench;
pub mod command;
pub mod db;
pub mod events;
pub mod faults;
pub mod lab;
pub mod mail;
pub mod mmdb;
pub mod redis;
pub mod sim;
pub mod stripe;
pub mod wait;

pub use app::{Place, TestApp, variables};
pub use db::TestDb;
pub use sim::SimNode;
pub use wait::{wait_for, wait_until};

/// Installs the process's TLS provider. Every entry point of the harness calls it first.
pub fn init() {
    // A second call finds the provider there, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
