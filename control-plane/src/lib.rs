//! The control plane: users, plans, the fleet, the choice of server and live metrics.

pub mod db;
pub mod error;
pub mod fleet;
