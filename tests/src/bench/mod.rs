//! What the load generators share: samples, rows with goals, and the table.

pub mod bare;
pub mod fleet;
pub mod node;
pub mod paced;
pub mod people;
pub mod process;
pub mod viewers;
pub mod web;
pub mod wrk;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

/// Latencies of one run.
#[derive(Debug, Default, Clone)]
pub struct Samples(Vec<Duration>);

impl Samples {
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In milliseconds: the smallest sample that `share` of all samples do not exceed.
    #[must_use]
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (count(sorted.len()) * share).ceil().max(1.0);
        let sample = sorted
            .iter()
            .zip(1_u32..)
            .find(|(_, at)| f64::from(*at) >= rank);
        sample.map_or(f64::NAN, |(sample, _)| milliseconds(*sample))
    }

    #[must_use]
    pub fn mean_ms(&self) -> f64 {
        let sum: Duration = self.0.iter().sum();
        milliseconds(sum) / count(self.0.len())
    }
}

#[must_use]
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// As a number to divide by.
#[must_use]
pub fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::NAN, f64::from)
}

/// What a figure shall be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// Such as `<= 10`; none where the figure only informs.
    pub goal: Option<String>,
    pub holds: Option<bool>,
}

impl Row {
    #[must_use]
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            goal: None,
            holds: None,
        }
    }

    #[must_use]
    pub fn goal(self, goal: Goal) -> Self {
        let (text, holds) = match goal {
            Goal::AtMost(most) => (format!("<= {most}"), self.value <= most),
            Goal::AtLeast(least) => (format!(">= {least}"), self.value >= least),
        };
        Self {
            goal: Some(text),
            holds: Some(holds),
            ..self
        }
    }
}

/// Where the figures go, and what follows from a missed goal.
#[derive(Debug, Args)]
pub struct Report {
    /// Where the figures go [default: target/bench/NAME.json]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Fail when a goal is missed
    #[arg(long)]
    check: bool,
}

impl Report {
    /// Ends the benchmark of this name.
    pub fn end(&self, name: &str, rows: &[Row]) -> anyhow::Result<ExitCode> {
        let usual = || Path::new("target/bench").join(name).with_extension("json");
        report(rows, &self.out.clone().unwrap_or_else(usual))?;
        let missed = rows.iter().any(|row| row.holds == Some(false));
        Ok(if missed && self.check {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

/// Prints the rows, and writes them as JSON.
fn report(rows: &[Row], path: &Path) -> anyhow::Result<()> {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for row in rows {
        let verdict = match (&row.goal, row.holds) {
            (Some(goal), Some(true)) => format!("{goal}  holds"),
            (Some(goal), _) => format!("{goal}  MISSED"),
            _ => String::new(),
        };
        println!(
            "{:<width$}  {:>10.2} {:<9} {verdict}",
            row.name, row.value, row.unit
        );
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, serde_json::to_vec_pretty(rows)?)?;
    println!("written to {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let mut samples = Samples::default();
        for ms in (1..=100).rev() {
            samples.push(Duration::from_millis(ms));
        }
        assert_eq!(samples.quantile_ms(0.5), 50.0);
        assert_eq!(samples.quantile_ms(0.99), 99.0);
        assert_eq!(samples.quantile_ms(1.0), 100.0);
        assert!(Samples::default().quantile_ms(0.5).is_nan());
    }

    #[test]
    fn a_goal_holds_at_its_limit_and_never_for_no_number() {
        let holds = |value, goal| Row::new("", value, "").goal(goal).holds;
        assert_eq!(holds(10.0, Goal::AtMost(10.0)), Some(true));
        assert_eq!(holds(499.9, Goal::AtLeast(500.0)), Some(false));
        assert_eq!(holds(f64::NAN, Goal::AtMost(10.0)), Some(false));
    }
}
