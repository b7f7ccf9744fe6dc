//! The Postgres pool, its migrations and the schema. Queries live in each domain's `store`.

pub mod schema;

mod migrations;
mod pool;

pub use migrations::{MigrationError, pending, revert, run};
pub use pool::{Conn, Pool, PoolError, connect};
