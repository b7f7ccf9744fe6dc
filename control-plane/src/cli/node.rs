//! `node`

use std::process::ExitCode;

use clap::Subcommand;
use secrecy::ExposeSecret;

use crate::config::Config;
use crate::db;
use crate::fleet::cli::{self, EnrolmentTokenArgs};
use crate::fleet::identity::Identity;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token with which one host enrols once.
    EnrolmentToken(EnrolmentTokenArgs),
}

pub(super) async fn run(config: &Config, command: Command) -> anyhow::Result<ExitCode> {
    let Command::EnrolmentToken(args) = command;
    let identity = Identity::new(&config.nodes)?;
    let pool = db::connect(config.database.url.expose_secret(), 1);
    cli::enrolment_token(args, &pool, &identity).await?;
    Ok(ExitCode::SUCCESS)
}
