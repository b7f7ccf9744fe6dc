//! The application: what handlers share, and how it starts and stops.

mod dependencies;
mod metrics;
mod serve;
mod state;
mod tls;
mod upkeep;

pub use dependencies::{DependencyError, ping_postgres, ping_redis, reach_postgres, reach_redis};
pub use serve::{Application, RunningApp, StartError};
pub use state::{AppState, StateError};
pub use tls::{TlsError, check as check_tls};
