//! The pools of Postgres and Redis, the migrations and the schema. Queries live in each domain's
//! `store`.

pub mod schema;

mod migrations;
mod pool;
mod redis;
mod statement;

pub use migrations::{MigrationError, pending, revert, run};
pub use pool::{Conn, Pool, PoolError, connect, reach};
pub use redis::{RedisPool, RedisPoolError, connect_redis, reach_redis};
pub use statement::{Statement, forget, statement};
