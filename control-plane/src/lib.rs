//! The control plane: users, plans, the fleet, the choice of server and live metrics.

pub mod accounts;
pub mod analytics;
pub mod app;
pub mod audit;
pub mod billing;
pub mod cli;
pub mod config;
pub mod db;
pub mod error;
mod files;
pub mod fleet;
pub mod guard;
pub mod health;
pub mod http;
pub mod jobs;
pub mod listener;
pub mod mail;
pub mod oauth;
pub mod operators;
pub mod overview;
pub mod router;
pub mod secrets;
pub mod tunnels;
pub mod usage;
