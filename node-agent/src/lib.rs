//! The agent of a VPN host: owns one WireGuard interface and does what the plane asks of it.

pub mod cli;
pub mod config;
pub mod control;
pub mod counters;
pub mod firewall;
pub mod host;
pub mod ipam;
pub mod ledger;
pub mod limits;
pub mod link;
pub mod netfilter;
mod netlink;
pub mod preflight;
pub mod probe;
pub mod reconcile;
pub mod wireguard;
