//! Requests at a fixed rate, whatever the answers take: an open loop.
//!
//! Each request has its time, and its latency begins there. One that has to wait for the answer before
//! it on its connection, or for this program, was late to whoever asked, so that wait counts too. The
//! clock's grain, a millisecond, is part of every sample.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::Samples;

/// Room for the longest answer's first part; it grows by itself.
const BUFFER: usize = 64 * 1024;

/// What one run is made of.
#[derive(Debug, Clone, Copy)]
pub struct Paced {
    /// Requests a second, over all connections.
    pub rate: u32,
    pub connections: u32,
    pub length: Duration,
}

/// What one run gave.
#[derive(Debug, Default)]
pub struct Run {
    pub latency: Samples,
    /// Of all answers, without heads.
    pub bytes: usize,
}

impl Paced {
    /// Asks the plane at `address`, such as `127.0.0.1:8000`, for `request(n)`, a whole request's bytes, one
    /// after the other. All are answered, by 200.
    pub async fn run(
        &self,
        address: &str,
        request: impl Fn(u32) -> Vec<u8>,
    ) -> anyhow::Result<Run> {
        let began = Instant::now() + Duration::from_millis(100);
        let connections = (0..self.connections).map(|at| self.ask(address, at, began, &request));
        let mut whole = Run::default();
        for run in try_join_all(connections).await? {
            whole.latency.extend(run.latency);
            whole.bytes += run.bytes;
        }
        Ok(whole)
    }

    /// What is due on one connection: one request of so many.
    async fn ask(
        &self,
        address: &str,
        first: u32,
        began: Instant,
        request: &impl Fn(u32) -> Vec<u8>,
    ) -> anyhow::Result<Run> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut run, mut buffer) = (Run::default(), Vec::with_capacity(BUFFER));
        for number in (first..).step_by(usize::try_from(self.connections)?) {
            let after = Duration::from_secs(1) * number / self.rate;
            if after >= self.length {
                break;
            }
            let due = began + after;
            sleep_until(due).await;
            stream.write_all(&request(number)).await?;
            run.bytes += answer(&mut stream, &mut buffer).await?;
            run.latency.push(due.elapsed());
        }
        Ok(run)
    }
}

/// Reads one answer; the length of its body.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<usize> {
    buffer.clear();
    let mut whole = None;
    while whole.is_none_or(|(head, body)| buffer.len() < head + body) {
        let read = stream.read_buf(buffer).await?;
        ensure!(read > 0, "the plane hung up");
        if whole.is_none() {
            whole = head(buffer)?;
        }
    }
    Ok(whole.map_or(0, |(_, body)| body))
}

/// The length of the head and of the body behind it, once the head is there.
fn head(bytes: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(at) = bytes.windows(END.len()).position(|it| it == END) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(bytes.get(..at).unwrap_or_default()).into_owned();
    ensure!(text.starts_with("HTTP/1.1 200 "), "{text}");
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>())
    });
    let length = length.with_context(|| format!("no length: {text}"))??;
    Ok(Some((at + END.len(), length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_head_says() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{\"a\":";
        assert_eq!(head(bytes).expect("200"), Some((38, 5)));
        assert_eq!(head(&bytes[..30]).expect("not there yet"), None);
        assert!(head(b"HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\n").is_err());
        assert!(head(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").is_err());
    }
}
