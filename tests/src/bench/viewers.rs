//! People who watch their connection over a WebSocket, thousands of them, in as little time and memory
//! as that takes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use futures_util::stream::{TryStreamExt, iter};
use shared::ids::UserId;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::Samples;

/// Handshakes under way at once.
const AT_ONCE: usize = 32;
const EVERY_NANOS: i128 = 1_000_000_000;
const BUFFER: usize = 2048;

/// Open sockets. They close, without a goodbye, when the value is dropped.
#[derive(Debug)]
pub struct Viewers(Vec<Viewer>);

#[derive(Debug)]
struct Viewer {
    heard: Arc<Mutex<Heard>>,
    reading: JoinHandle<()>,
}

/// What came over a socket.
#[derive(Debug, Default)]
struct Heard {
    /// When each message of metrics came.
    at: Vec<Instant>,
    last: String,
}

impl Viewers {
    /// Opens a socket for everybody, at `address`, such as `127.0.0.1:8000`.
    pub async fn open(address: &str, people: &[(UserId, String)]) -> anyhow::Result<Self> {
        let opening = iter(people).map(|(user, token)| Viewer::open(address, *user, token));
        let viewers = opening.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(Self(viewers))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether everybody was told something.
    #[must_use]
    pub fn all_hear(&self) -> bool {
        self.0.iter().all(|viewer| !viewer.heard().at.is_empty())
    }

    /// How late the messages between two moments came. A socket's messages are due a second apart; of all
    /// such grids that one counts which none of its messages is ahead of, so a message that comes early
    /// makes the others late, and a pace slower than once a second adds up.
    pub fn lateness(&self, from: Instant, to: Instant) -> anyhow::Result<Samples> {
        let mut all = Samples::default();
        for viewer in &self.0 {
            ensure!(!viewer.reading.is_finished(), "a socket was closed");
            let heard = viewer.heard();
            let within = heard.at.iter().filter(|at| (from..to).contains(*at));
            lateness(within.map(|at| *at - from)).for_each(|late| all.push(late));
        }
        Ok(all)
    }

    /// Insists that everybody saw bytes move.
    pub fn ensure_told(&self) -> anyhow::Result<()> {
        for viewer in &self.0 {
            let heard = viewer.heard();
            let told: serde_json::Value = serde_json::from_str(&heard.last)?;
            let bytes = told.get("bytes_received").and_then(|it| it.as_u64());
            ensure!(bytes > Some(0), "nothing moved: {}", heard.last);
        }
        Ok(())
    }
}

/// Of messages that came so long after a moment.
fn lateness(came: impl Iterator<Item = Duration> + Clone) -> impl Iterator<Item = Duration> {
    // Nanoseconds beyond the message's second; negative for one that is ahead.
    let beyond = came.zip(0_i128..).map(|(came, number)| {
        let since = i128::try_from(came.as_nanos()).unwrap_or(i128::MAX);
        since - number * EVERY_NANOS
    });
    let grid = beyond.clone().min().unwrap_or_default();
    beyond.map(move |it| Duration::from_nanos(u64::try_from(it - grid).unwrap_or(u64::MAX)))
}

impl Viewer {
    async fn open(address: &str, user: UserId, token: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let url = format!("ws://{address}/api/v1/ws/connection/{user}?token={token}");
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(0);
        let (socket, _) = client_async_with_config(url, stream, Some(config))
            .await
            .context("a socket is refused")?;
        let heard = Arc::default();
        let reading = tokio::spawn(read(socket, Arc::clone(&heard)));
        Ok(Self { heard, reading })
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until the plane closes it; pings are answered on the way.
async fn read(mut socket: WebSocketStream<TcpStream>, heard: Arc<Mutex<Heard>>) {
    while let Some(Ok(message)) = socket.next().await {
        let at = Instant::now();
        if let Message::Text(text) = message
            && text.starts_with(r#"{"type":"metrics""#)
        {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.at.push(at);
            heard.last.clear();
            heard.last.push_str(&text);
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late(came: &[u64]) -> Vec<u128> {
        let came = came.iter().copied().map(Duration::from_millis);
        lateness(came).map(|late| late.as_millis()).collect()
    }

    #[test]
    fn lateness_is_against_the_earliest_grid() {
        assert_eq!(late(&[300, 1300, 2300]), [0, 0, 0]);
        assert_eq!(late(&[300, 1400, 2300]), [0, 100, 0]);
        assert_eq!(late(&[300, 1250, 2300]), [50, 0, 50]);
        assert_eq!(late(&[0, 1010, 2020, 3030]), [0, 10, 20, 30]);
        assert!(late(&[]).is_empty());
    }

    #[test]
    fn a_message_that_never_came_makes_the_later_ones_late() {
        assert_eq!(late(&[0, 2000, 3000]), [0, 1000, 1000]);
    }
}
