//! What a process took of its host: time of processors, memory.

use std::fs;

use anyhow::Context;
use nix::unistd::{Pid, SysconfVar, sysconf};

/// User and system time of a process so far, in seconds.
pub fn cpu_seconds(process: Pid) -> anyhow::Result<f64> {
    seconds_of(process, 2)
}

/// The same with all that the process started: those that run, and those that it saw end.
pub fn family_cpu_seconds(parent: Pid) -> anyhow::Result<f64> {
    let mut all = seconds_of(parent, 4)?;
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    for child in list.split_ascii_whitespace() {
        // One that ended meanwhile counts with its parent the next time.
        all += seconds_of(Pid::from_raw(child.parse()?), 2).unwrap_or(0.0);
    }
    Ok(all)
}

/// A line of the process's status, such as `VmHWM`, the most memory that was ever resident, in megabytes.
pub fn megabytes(process: Pid, line: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let values = text.lines().filter_map(|it| it.split_once(':'));
    let (_, value) = values
        .into_iter()
        .find(|(name, _)| *name == line)
        .context("no such line")?;
    let kilobytes = value.split_ascii_whitespace().next().context("no value")?;
    Ok(kilobytes.parse::<f64>()? / 1024.0)
}

/// The sum of the first `number` of: its user and its system time, and those of children that ended.
fn seconds_of(process: Pid, number: usize) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("the name is in brackets")?;
    let ticks = fields.split_ascii_whitespace().skip(11).take(number);
    let ticks: f64 = ticks.filter_map(|it| it.parse::<f64>().ok()).sum();
    let hertz = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(ticks / f64::from(i32::try_from(hertz)?))
}
