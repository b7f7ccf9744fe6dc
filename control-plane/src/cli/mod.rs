//! The command line: the service and its operator's commands.

mod admin;
mod billing;
mod check;
mod logging;
mod migrate;
mod node;
mod oauth;
mod rotate;
mod serve;
mod token;
pub(crate) mod ttl;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::config::{self, Config};
use crate::router::Documentation;

#[derive(Debug, Parser)]
#[command(name = "control-plane", version, about = "Prime VPN's control plane")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service until SIGTERM or SIGINT.
    #[command(after_help = config::help())]
    Serve,
    /// Bring the database to this build's schema.
    Migrate {
        /// Undo the last N migrations instead.
        #[arg(long, value_name = "N")]
        revert: Option<usize>,
    },
    /// Manage people.
    #[command(subcommand)]
    Admin(admin::Command),
    /// Manage the apps that people sign in to.
    #[command(subcommand)]
    Oauth(oauth::Command),
    /// Manage VPN hosts.
    #[command(subcommand)]
    Node(node::Command),
    /// Keep the books of money.
    #[command(subcommand)]
    Billing(billing::Command),
    /// Manage operator tokens.
    #[command(subcommand)]
    Token(token::Command),
    /// Show the effective configuration and whether everything it names works.
    Check,
    /// Print the OpenAPI document.
    Openapi,
}

/// Runs the command of the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    if matches!(command, Command::Openapi) {
        let document = Documentation::new();
        print(&document.document().to_pretty_json()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let command = match command {
        Command::Token(command) => match token::run_offline(command)? {
            Some(command) => Command::Token(command),
            None => return Ok(ExitCode::SUCCESS),
        },
        other => other,
    };
    let config = Config::from_environment()?;
    install_crypto()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // Spawned, because migrations block their thread and may do so on a worker only.
    let task = runtime.spawn(async move {
        match command {
            Command::Serve => serve::run(config).await,
            Command::Migrate { revert } => migrate::run(&config, revert).await,
            Command::Admin(command) => admin::run(&config, command).await,
            Command::Oauth(command) => oauth::run(&config, command).await,
            Command::Node(command) => node::run(&config, command).await,
            Command::Billing(command) => billing::run(&config, command).await,
            Command::Token(command) => token::run(&config, command).await,
            Command::Check => check::run(config).await,
            Command::Openapi => Ok(ExitCode::SUCCESS),
        }
    });
    runtime.block_on(task)?
}

/// The one TLS provider of the process.
fn install_crypto() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))
}

/// Prints a line; a closed pipe is an error and not a panic.
fn print(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write")
}
