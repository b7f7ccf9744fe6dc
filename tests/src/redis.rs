//! Redis for tests: the shared one, or a server of the test's own that it may kill.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::wait_until;

/// The Redis that all tests share. Its channels and keys carry random ids, so that no test needs a
/// corner of its own.
#[must_use]
pub fn shared_url() -> String {
    std::env::var("TEST_REDIS_URL")
        .expect("TEST_REDIS_URL must name a Redis, such as redis://127.0.0.1:6379")
}

/// A Redis process of this test alone, killed with this value.
#[derive(Debug)]
pub struct TestRedis {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl TestRedis {
    pub async fn start() -> Self {
        Self::start_at(free_port()).await
    }

    pub async fn start_at(port: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--port", &port.to_string()])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let redis = Self {
            process,
            port,
            _folder: folder,
        };
        let client = redis::Client::open(redis.url()).expect("the URL is valid");
        wait_until(
            "redis-server answers",
            Duration::from_secs(30),
            async || client.get_multiplexed_async_connection().await.is_ok(),
        )
        .await;
        redis
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Forgets everything.
    pub async fn flush(&self) {
        let client = redis::Client::open(self.url()).expect("the URL is valid");
        let connection = client.get_multiplexed_async_connection().await;
        redis::cmd("FLUSHALL")
            .query_async::<()>(&mut connection.expect("it answers"))
            .await
            .expect("it forgets");
    }

    /// How many keys it has.
    pub async fn keys(&self) -> u64 {
        let client = redis::Client::open(self.url()).expect("the URL is valid");
        let connection = client.get_multiplexed_async_connection().await;
        redis::cmd("DBSIZE")
            .query_async(&mut connection.expect("it answers"))
            .await
            .expect("it counts")
    }

    /// Ends the server without a goodbye.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A TCP port that was free a moment ago.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("a port is free")
        .port()
}
