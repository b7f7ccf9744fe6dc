//! The command line: each command is one file and says in words what went wrong.

mod ask;
mod check;
mod drain;
mod enroll;
mod metrics;
mod run;
mod teardown;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use rustls::crypto::aws_lc_rs;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, ConfigError, RunDir};

/// `EX_CONFIG`: starting again does not help, and systemd is told not to.
const NEEDS_OPERATOR: u8 = 78;

#[derive(Debug, Parser)]
#[command(
    name = "node-agent",
    version,
    about = "Owns one WireGuard interface on a VPN host"
)]
struct Cli {
    /// How to write the log, which RUST_LOG filters
    #[arg(
        long,
        env = "LOG_FORMAT",
        value_name = "LOG_FORMAT",
        default_value = "text",
        global = true
    )]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trade an enrolment token for this node's identity
    Enroll(Box<enroll::Enroll>),
    /// Serve: keep the interface and the session with the plane
    Run(Box<Config>),
    /// Show what the running agent does
    Status(ask::Status),
    /// Show the same as Prometheus reads it
    Metrics(metrics::Metrics),
    /// Find out what this host lacks, and how to mend it
    Check(Box<check::Check>),
    /// Take no new clients, and wait until those that are here have left if told so
    Drain(drain::Drain),
    /// Take new clients again
    Undrain(RunDir),
    /// Remove the interface and our nftables tables
    Teardown(Box<teardown::Teardown>),
    /// Apply a snapshot that is held because it removes more than half of the peers
    AcceptSnapshot(RunDir),
}

/// Parses the command line and carries it out.
pub async fn main() -> ExitCode {
    // Fails only where a provider is there already, which is as good.
    let _ = aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    log(cli.log_format);
    let result = match cli.command {
        Command::Enroll(command) => enroll::execute(*command).await.map(|()| ExitCode::SUCCESS),
        Command::Run(config) => Box::pin(run::execute(*config))
            .await
            .map(|()| ExitCode::SUCCESS),
        Command::Status(command) => ask::status(command).await.map(|()| ExitCode::SUCCESS),
        Command::Metrics(command) => metrics::metrics(command).await.map(|()| ExitCode::SUCCESS),
        Command::Check(command) => Box::pin(check::execute(*command)).await,
        Command::Drain(command) => drain::drain(command).await,
        Command::Undrain(run_dir) => drain::undrain(run_dir).await.map(|()| ExitCode::SUCCESS),
        Command::Teardown(command) => teardown::execute(*command)
            .await
            .map(|()| ExitCode::SUCCESS),
        Command::AcceptSnapshot(command) => ask::accept_snapshot(command)
            .await
            .map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("node-agent: {error:#}");
        if error.is::<ConfigError>() || error.is::<run::NotEnrolled>() {
            ExitCode::from(NEEDS_OPERATOR)
        } else {
            ExitCode::FAILURE
        }
    })
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
