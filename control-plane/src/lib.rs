//! The control plane: users, plans, the fleet, the choice of server and live metrics.

pub mod accounts;
pub mod app;
pub mod cli;
pub mod config;
pub mod db;
pub mod error;
pub mod fleet;
pub mod health;
pub mod http;
pub mod router;
pub mod tunnels;
pub mod usage;
