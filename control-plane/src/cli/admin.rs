//! `admin`

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use chrono::Utc;
use clap::{Args, Subcommand};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use super::{print, rotate};
use crate::accounts::passwords::{self, PasswordHasher};
use crate::accounts::registration::{self, FREE_PLAN, Registration};
use crate::accounts::{Email, Role};
use crate::config::Config;
use crate::db;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create an account. The password comes from the variable PASSWORD or from standard input.
    CreateUser(CreateUser),
    /// Seal everything again under SECRET_KEY that is still under one of SECRET_KEYS_OLD.
    RotateKeys,
}

#[derive(Debug, Args)]
pub(super) struct CreateUser {
    #[arg(long)]
    email: String,
    /// user, support, admin or superuser
    #[arg(long, default_value = "user")]
    role: Role,
    /// The id of a plan, such as premium_monthly.
    #[arg(long, default_value = FREE_PLAN)]
    plan: String,
    #[arg(long)]
    full_name: Option<String>,
}

pub(super) async fn run(config: &Config, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::CreateUser(user) => create_user(config, user).await,
        Command::RotateKeys => rotate::run(config).await,
    }
}

async fn create_user(config: &Config, user: CreateUser) -> anyhow::Result<ExitCode> {
    let email = Email::parse(&user.email).context("--email")?;
    let password = read_password()?;
    passwords::check_new(&password, email.as_str())
        .map_err(|error| anyhow::anyhow!("password: {error}"))?;
    let pool = db::connect(config.database.url.expose_secret(), 1);
    let registration = Registration {
        email,
        password,
        full_name: user.full_name,
        role: user.role,
        is_verified: true,
        plan: user.plan,
    };
    let hasher = PasswordHasher::new()?;
    let profile = registration::register(&pool, &hasher, registration, Utc::now()).await?;
    print(&profile.id.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// Never from an argument: those are for everybody on the machine to see.
fn read_password() -> anyhow::Result<SecretString> {
    if let Ok(password) = std::env::var("PASSWORD") {
        return Ok(SecretString::from(password));
    }
    let input = std::io::stdin().lock();
    if input.is_terminal() {
        write!(std::io::stderr(), "Password (it is shown): ")?;
    }
    let mut line = Zeroizing::new(String::new());
    let mut input = input;
    input
        .read_line(&mut line)
        .context("cannot read the password")?;
    Ok(SecretString::from(line.trim_end_matches(['\r', '\n'])))
}
