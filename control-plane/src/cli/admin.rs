//! `admin`

use std::fs::File;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use chrono::Utc;
use clap::{Args, Subcommand};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use super::{print, rotate};
use crate::accounts::import::{self, Imported};
use crate::accounts::passwords::{self, PasswordHasher};
use crate::accounts::registration::{self, FREE_PLAN, Registrar, Registration};
use crate::accounts::{Email, Role};
use crate::config::Config;
use crate::db::{self, Pool};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create an account. The password comes from the variable PASSWORD or from standard input.
    CreateUser(CreateUser),
    /// Take over people from a CSV file with the columns email and hashed_password (bcrypt), and
    /// optionally full_name, is_verified and created_at. Whoever has an account is skipped.
    ImportUsers {
        /// The file; - for standard input
        file: PathBuf,
    },
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
    let pool = db::connect(config.database.url.expose_secret(), 1);
    match command {
        Command::CreateUser(user) => create_user(&pool, user).await,
        Command::ImportUsers { file } => import_users(&pool, &file).await,
        Command::RotateKeys => rotate::run(config).await,
    }
}

async fn create_user(pool: &Pool, user: CreateUser) -> anyhow::Result<ExitCode> {
    let email = Email::parse(&user.email).context("--email")?;
    let password = read_password()?;
    passwords::check_new(&password, email.as_str())
        .map_err(|error| anyhow::anyhow!("password: {error}"))?;
    let registration = Registration {
        email,
        password,
        full_name: user.full_name,
        role: user.role,
        plan: user.plan,
        by: Registrar::Operator,
    };
    let hasher = PasswordHasher::new()?;
    let profile = registration::register(pool, &hasher, registration, Utc::now()).await?;
    print(&profile.id.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// Fails when a line was not valid, after importing the others.
async fn import_users(pool: &Pool, path: &Path) -> anyhow::Result<ExitCode> {
    let file: Box<dyn Read + Send> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(File::open(path).with_context(|| path.display().to_string())?),
    };
    let mut connection = pool.get().await.context("no connection to Postgres")?;
    let report = |line: u64, reason: &str| {
        // Whoever does not read the reports still gets the summary.
        let _ = writeln!(std::io::stderr(), "line {line}: {reason}");
    };
    let imported = import::import(&mut connection, file, report).await?;
    let Imported {
        added,
        skipped,
        invalid,
    } = imported;
    print(&format!(
        "{added} added, {skipped} skipped (they have an account), {invalid} invalid"
    ))?;
    Ok(match invalid {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
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
