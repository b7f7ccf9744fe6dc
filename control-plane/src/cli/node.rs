//! `node`

use std::process::ExitCode;

use clap::Subcommand;

use crate::app::AppState;
use crate::config::Config;
use crate::fleet::cli::{
    self, DrainArgs, EnrolmentTokenArgs, Host, RemoveArgs, RenameArgs, RotateKeyArgs,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token with which one host enrols once.
    EnrolmentToken(EnrolmentTokenArgs),
    /// Show the servers, a line each.
    List,
    /// Show a server with its node.
    Show(Host),
    /// Let a server take no new clients.
    Drain(DrainArgs),
    /// Let a server take clients again.
    Undrain(Host),
    /// Plan that a node replaces its WireGuard key.
    RotateKey(RotateKeyArgs),
    /// End a node's tokens and session; it has to enrol again.
    Revoke(Host),
    /// Take a server out of the fleet.
    Remove(RemoveArgs),
    /// Give a server another host name.
    Rename(RenameArgs),
}

pub(super) async fn run(config: &Config, command: Command) -> anyhow::Result<ExitCode> {
    let state = AppState::new(config.clone())?;
    let fleet = state.fleet();
    match command {
        Command::EnrolmentToken(args) => cli::enrolment_token(args, fleet).await?,
        Command::List => cli::list(fleet).await?,
        Command::Show(host) => cli::show(fleet, host).await?,
        Command::Drain(args) => cli::drain(fleet, args).await?,
        Command::Undrain(host) => cli::undrain(fleet, host).await?,
        Command::RotateKey(args) => cli::rotate_key(fleet, args).await?,
        Command::Revoke(host) => cli::revoke(fleet, host).await?,
        Command::Remove(args) => cli::remove(fleet, args).await?,
        Command::Rename(args) => cli::rename(fleet, args).await?,
    }
    Ok(ExitCode::SUCCESS)
}
