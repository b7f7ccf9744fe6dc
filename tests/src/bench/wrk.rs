//! Load from `wrk`, pinned to a core of its own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;

/// What one run is made of.
#[derive(Debug, Clone)]
pub struct Wrk {
    pub connections: usize,
    pub length: Duration,
    /// The core that it runs on, where there are several.
    pub core: Option<usize>,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Target {
    pub url: String,
    pub headers: Vec<String>,
    /// Makes requests that differ.
    pub script: Option<PathBuf>,
    /// Whether it is refused, which is no fault then.
    pub refused: bool,
}

/// What one run gave.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub requests: f64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

impl Wrk {
    pub async fn run(&self, target: &Target) -> anyhow::Result<Load> {
        let mut command = match self.core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string(), "wrk"]);
                command
            }
            None => Command::new("wrk"),
        };
        command
            .args(["--threads", "1", "--latency"])
            .args(["--connections", &self.connections.to_string()])
            .args(["--duration", &format!("{}s", self.length.as_secs())]);
        for header in &target.headers {
            command.args(["--header", header]);
        }
        if let Some(script) = &target.script {
            command.arg("--script").arg(script);
        }
        let output = command
            .arg(&target.url)
            .output()
            .await
            .context("wrk cannot be run: scripts/setup bench")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk: {text}");
        let all_refused = text.contains("Non-2xx");
        ensure!(target.refused == all_refused, "{}: {text}", target.url);
        ensure!(!text.contains("Socket errors"), "{}: {text}", target.url);
        parse(&text).with_context(|| format!("wrk said: {text}"))
    }
}

fn parse(text: &str) -> Option<Load> {
    let after = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(name))?;
        line.trim_start()
            .strip_prefix(name)?
            .split_whitespace()
            .next()
    };
    let requests = text.lines().find(|line| line.contains(" requests in "))?;
    Some(Load {
        requests: requests.split_whitespace().next()?.parse().ok()?,
        per_second: after("Requests/sec:")?.parse().ok()?,
        p50_ms: milliseconds(after("50%")?)?,
        p99_ms: milliseconds(after("99%")?)?,
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.strip_prefix(digits)? {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1000.0,
        _ => return None,
    };
    digits.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_read() {
        let said = "Running 2s test @ http://127.0.0.1:1/\n  1 threads and 16 connections\n  \
            Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency   158.27us   35.12us   1.02ms\n  \
            Latency Distribution\n     50%  154.00us\n     99%    1.30ms\n  \
            196012 requests in 2.00s, 24.11MB read\nRequests/sec:  97999.12\nTransfer/sec:     12.05MB\n";
        let load = parse(said).expect("it is complete");
        assert_eq!(load.requests, 196_012.0);
        assert_eq!(load.per_second, 97_999.12);
        assert_eq!((load.p50_ms, load.p99_ms), (0.154, 1.3));
        assert!(parse("unable to connect").is_none());
    }
}
