//! Redis: a wire between replicas and a cache, never the truth.

use secrecy::SecretString;

use super::reader::{REDACTED, Reader};

#[derive(Debug, Clone)]
pub struct RedisConfig {
    pub url: SecretString,
    pub pool_size: u32,
}

impl RedisConfig {
    /// `REDIS_URL`, or else `REDIS_HOST` and `REDIS_PORT`.
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let url = match reader.given("REDIS_URL") {
            Some(url) => {
                if bb8_redis::RedisConnectionManager::new(url).is_err() {
                    reader.problem("REDIS_URL", "takes redis://[user:password@]host:6379/0");
                }
                reader.note("REDIS_URL", REDACTED);
                url.to_owned()
            }
            None => {
                let host = reader.text("REDIS_HOST", "127.0.0.1");
                let port = reader.parse("REDIS_PORT", 6379_u16, "a port number");
                format!("redis://{host}:{port}/0")
            }
        };
        Self {
            url: SecretString::from(url),
            pool_size: reader.count("REDIS_POOL_SIZE", 10),
        }
    }
}
