//! `billing`

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;

use super::print;
use crate::app::AppState;
use crate::billing::reconcile::reconcile;
use crate::billing::sync::Mode;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Compare subscriptions, payments and refunds with Stripe, and repair what differs. This also happens by
    /// itself, at RECONCILE_AT.
    Reconcile {
        /// Say what differs, and leave it so.
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) async fn run(config: &Config, command: Command) -> anyhow::Result<ExitCode> {
    let Command::Reconcile { dry_run } = command;
    let state = AppState::new(config.clone())?;
    state
        .payments()
        .map_err(|_| anyhow::anyhow!("STRIPE_SECRET_KEY is not set"))?;
    let (mode, repaired) = if dry_run {
        (Mode::Look, "differ")
    } else {
        (Mode::Write, "repaired")
    };
    let report = Box::pin(reconcile(&state, mode)).await;
    let report = report.context("nothing was compared")?;
    for (kind, count) in report.kinds() {
        print(&format!(
            "{kind}: {} looked at, {} {repaired}, {} failed",
            count.looked_at, count.repaired, count.failed
        ))?;
    }
    if !report.is_complete {
        print("Stripe's lists could not be read to their ends; run this again.")?;
    }
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
