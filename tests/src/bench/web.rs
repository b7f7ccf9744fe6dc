//! What benchmarks of the API share: processes on cores of their own, and what requests cost besides time.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::bare::{self, BareSettings};
use super::process::cpu_seconds;
use super::wrk::Load;
use crate::api::Client;
use crate::lab::Process;
use crate::redis::shared_url;
use crate::{TestDb, wait_until};

/// Runs of each; what is compared takes turns.
pub const ROUNDS: usize = 11;
/// A share of the requests by which what is counted beside them may differ: the plane's own upkeep asks
/// Postgres a few times a second meanwhile, and what is under way when a run ends is not among its answers.
pub const TOLERANCE: f64 = 0.02;

/// The benchmark, or the bare server that it started.
pub fn main(run: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    if let Ok(settings) = std::env::var(bare::VARIABLE) {
        let serving = bare::serve(serde_json::from_str(&settings)?);
        actix_web::rt::System::new().block_on(serving)?;
        return Ok(ExitCode::SUCCESS);
    }
    tokio::runtime::Runtime::new()?.block_on(run)
}

/// What the plane spent, by those who were asked.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counted {
    queries: f64,
    commands: f64,
    scripts: f64,
    cpu_seconds: f64,
    requests: f64,
}

impl Counted {
    pub async fn now(db: &TestDb, plane: Pid) -> anyhow::Result<Self> {
        let queries = db
            .number(
                "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
                 WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND query NOT LIKE '%pg_stat_statements%'",
            )
            .await;
        let (commands, scripts) = redis_commands().await?;
        Ok(Self {
            queries: f64::from(u32::try_from(queries)?),
            commands,
            scripts,
            cpu_seconds: cpu_seconds(plane)?,
            requests: 0.0,
        })
    }

    pub fn add(&mut self, before: &Self, after: &Self, requests: f64) {
        self.queries += after.queries - before.queries;
        self.commands += after.commands - before.commands;
        self.scripts += after.scripts - before.scripts;
        self.cpu_seconds += after.cpu_seconds - before.cpu_seconds;
        self.requests += requests;
    }

    #[must_use]
    pub fn queries(&self) -> f64 {
        self.queries / self.requests
    }

    #[must_use]
    pub fn commands(&self) -> f64 {
        self.commands / self.requests
    }

    /// Scripts of Redis, each of which is one round trip whatever it does there.
    #[must_use]
    pub fn scripts(&self) -> f64 {
        self.scripts / self.requests
    }

    #[must_use]
    pub fn cpu_microseconds(&self) -> f64 {
        self.cpu_seconds / self.requests * 1e6
    }
}

/// All commands so far, and how many of them were scripts by their hash.
async fn redis_commands() -> anyhow::Result<(f64, f64)> {
    let client = redis::Client::open(shared_url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let info: String = redis::cmd("INFO")
        .arg("all")
        .query_async(&mut connection)
        .await?;
    let after = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
    let all = after("total_commands_processed:").context("Redis counts commands")?;
    let scripts = after("cmdstat_evalsha:calls=").and_then(|it| it.split(',').next());
    Ok((all.trim().parse()?, scripts.unwrap_or("0").parse()?))
}

/// The middle one by its rate.
#[must_use]
pub fn median(mut runs: Vec<Load>) -> Load {
    runs.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    runs.swap_remove(runs.len() / 2)
}

/// Of each run of ours beside the run of the limit that followed it.
#[must_use]
pub fn median_share(ours: &[Load], limit: &[Load]) -> f64 {
    let pairs = ours.iter().zip(limit);
    let mut shares: Vec<_> = pairs
        .map(|(ours, limit)| ours.per_second / limit.per_second)
        .collect();
    shares.sort_by(f64::total_cmp);
    shares.get(shares.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Keeps every thread of the process on one core.
pub fn pin(process: Pid, core: usize) -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let id: i32 = thread?.file_name().to_string_lossy().parse()?;
        sched_setaffinity(Pid::from_raw(id), &cores)?;
    }
    Ok(())
}

/// This program again, as the bare server.
pub async fn bare_process(
    folder: &Path,
    settings: &BareSettings,
) -> anyhow::Result<(Process, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(bare::VARIABLE, serde_json::to_string(settings)?);
    let mut process = Process::spawn("bare", folder, &mut command);
    let url = format!("http://127.0.0.1:{}", settings.port);
    let client = Client::new(&url);
    wait_until(
        "the bare server answers",
        Duration::from_secs(10),
        async || {
            assert!(process.is_running(), "it ended: {}", process.output());
            client
                .request(reqwest::Method::GET, "/ready")
                .send()
                .await
                .is_ok()
        },
    )
    .await;
    Ok((process, url))
}
