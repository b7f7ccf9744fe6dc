//! Connections to Redis, pooled.

use std::time::Duration;

use bb8_redis::redis::{Client, RedisError, RedisResult, cmd};
use bb8_redis::{RedisConnectionManager, bb8};

pub type RedisPool = bb8::Pool<RedisConnectionManager>;
/// Why the pool gave no connection.
pub type RedisPoolError = bb8::RunError<RedisError>;

/// Short: whoever needs Redis has a way to go on without it.
const CHECKOUT_TIMEOUT: Duration = Duration::from_millis(500);

/// A pool of at most `size` connections. Opens none yet: Redis may still be starting.
pub fn connect_redis(url: &str, size: u32) -> RedisResult<RedisPool> {
    Ok(bb8::Pool::builder()
        .max_size(size)
        .connection_timeout(CHECKOUT_TIMEOUT)
        // A connection that died shows at its first use; a ping a checkout would double the round trips.
        .test_on_check_out(false)
        .build_unchecked(RedisConnectionManager::new(url)?))
}

/// Whether Redis can be reached. Tells the reason, which the pool keeps to itself.
pub async fn reach_redis(url: &str) -> RedisResult<()> {
    let mut connection = Client::open(url)?
        .get_multiplexed_async_connection()
        .await?;
    cmd("PING").query_async(&mut connection).await
}
