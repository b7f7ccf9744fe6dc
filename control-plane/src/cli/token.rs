//! `token`

use std::collections::BTreeSet;
use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use diesel_async::AsyncConnection;
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::{print, ttl};
use crate::audit::{self, Action, Actor, Event, Subject};
use crate::config::Config;
use crate::db;
use crate::http::permission::RIGHTS;
use crate::operators::{self, Authority, Grant, Restriction};

/// Longest life that is signed.
const MAX_LIFE: chrono::Duration = chrono::Duration::days(366);

/// What needs the configuration.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an operator token and print it.
    Mint(Mint),
    /// Restrict a token further and print the new one. Needs nothing but the token.
    Attenuate(Attenuate),
    /// Show what a token says. Needs nothing but the token.
    Inspect(Token),
    /// Make a token and everything attenuated from it worth nothing.
    Revoke {
        /// The token's id, as `list` and `inspect` show it.
        id: Uuid,
    },
    /// Show the tokens that were made.
    List,
}

#[derive(Debug, Args)]
pub(super) struct Mint {
    /// Who or what the token is for
    #[arg(long)]
    name: String,
    /// A right, such as users:read; may be repeated
    #[arg(long = "right", required = true, value_parser = parse_right)]
    rights: Vec<String>,
    /// How long the token is good for, such as 8h or 30d
    #[arg(long, default_value = "8h", value_parser = ttl::parse)]
    ttl: Duration,
}

#[derive(Debug, Args)]
pub(super) struct Token {
    /// The token; otherwise it is read from standard input
    token: Option<String>,
}

#[derive(Debug, Args)]
#[group(id = "restriction", required = true, multiple = true, args = ["rights", "ttl", "user"])]
pub(super) struct Attenuate {
    #[command(flatten)]
    token: Token,
    /// Keep this right; may be repeated
    #[arg(long = "right", value_parser = parse_right)]
    rights: Vec<String>,
    /// End after this time, such as 10m
    #[arg(long, value_parser = ttl::parse)]
    ttl: Option<Duration>,
    /// Keep what concerns this person
    #[arg(long, value_name = "UUID")]
    user: Option<Uuid>,
}

/// Runs a command that needs no configuration; gives any other back.
pub(super) fn run_offline(command: Command) -> anyhow::Result<Option<Command>> {
    match command {
        Command::Attenuate(args) => attenuate(args)?,
        Command::Inspect(args) => inspect(args)?,
        other => return Ok(Some(other)),
    }
    Ok(None)
}

pub(super) async fn run(config: &Config, command: Command) -> anyhow::Result<ExitCode> {
    let Some(command) = run_offline(command)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let pool = db::connect(config.database.url.expose_secret(), 1);
    let mut connection = pool.get().await.context("no connection to Postgres")?;
    match command {
        Command::Mint(args) => mint(config, &mut connection, args).await?,
        Command::Revoke { id } => revoke(&mut connection, id).await?,
        _ => list(&mut connection).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn mint(config: &Config, connection: &mut db::Conn<'_>, args: Mint) -> anyhow::Result<()> {
    let length = args.name.trim().chars().count();
    ensure!((1..=100).contains(&length), "--name: 1 to 100 characters");
    let grant = Grant {
        id: Uuid::now_v7(),
        name: args.name.trim().to_owned(),
        rights: args.rights.into_iter().collect(),
        expires_at: end_of(args.ttl)?,
    };
    let token = Authority::new(&config.app.keys)?.mint(&grant)?;
    let event = Event::new(Action::MintOperatorToken, Actor::Cli)
        .on(Subject::OperatorToken(grant.id))
        .change(
            serde_json::Value::Null,
            serde_json::json!({ "name": grant.name, "rights": grant.rights, "expires_at": grant.expires_at }),
        );
    connection
        .transaction(async |connection| {
            operators::insert(connection, &grant).await?;
            audit::record(connection, &event).await
        })
        .await
        .context("cannot store the token")?;
    print(&token)
}

async fn revoke(connection: &mut db::Conn<'_>, id: Uuid) -> anyhow::Result<()> {
    let event = Event::new(Action::RevokeOperatorToken, Actor::Cli).on(Subject::OperatorToken(id));
    let revoked = connection
        .transaction(async |connection| {
            let revoked = operators::revoke(connection, id).await?;
            if revoked {
                audit::record(connection, &event).await?;
            }
            Ok::<_, diesel::result::Error>(revoked)
        })
        .await
        .context("cannot revoke the token")?;
    ensure!(revoked, "there is no such token in force");
    Ok(())
}

async fn list(connection: &mut db::Conn<'_>) -> anyhow::Result<()> {
    let tokens = operators::list(connection).await?;
    let now = Utc::now();
    for token in tokens {
        let standing = match token.revoked_at {
            Some(_) => "revoked",
            None if token.expires_at <= now => "expired",
            None => "in force",
        };
        let (end, rights) = (token.expires_at.to_rfc3339(), token.rights.join(","));
        print(&format!(
            "{}\t{standing}\t{end}\t{rights}\t{}",
            token.id, token.name
        ))?;
    }
    Ok(())
}

fn attenuate(args: Attenuate) -> anyhow::Result<()> {
    let restriction = Restriction {
        rights: args.rights.into_iter().collect::<BTreeSet<_>>(),
        expires_at: args.ttl.map(end_of).transpose()?,
        resource: args.user,
    };
    print(&operators::attenuate(&args.token.read()?, &restriction)?)
}

fn inspect(args: Token) -> anyhow::Result<()> {
    for (number, part) in operators::inspect(&args.read()?)?.iter().enumerate() {
        let title = match number {
            0 => "signed by the plane:".to_owned(),
            number => format!("attenuation {number}:"),
        };
        print(&format!("{title}\n{}", part.trim_end()))?;
    }
    Ok(())
}

impl Token {
    fn read(self) -> anyhow::Result<String> {
        let token = match self.token {
            Some(token) => token,
            None => {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .context("cannot read the token")?;
                text
            }
        };
        Ok(token.trim().to_owned())
    }
}

fn end_of(ttl: Duration) -> anyhow::Result<DateTime<Utc>> {
    let ttl = chrono::Duration::from_std(ttl).unwrap_or(chrono::Duration::MAX);
    ensure!(
        ttl <= MAX_LIFE,
        "--ttl: at most {} days",
        MAX_LIFE.num_days()
    );
    Ok(Utc::now() + ttl)
}

fn parse_right(text: &str) -> Result<String, String> {
    let known = RIGHTS.iter().map(|(right, _)| *right);
    if known.clone().any(|right| right == text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "the rights are {}",
        known.collect::<Vec<_>>().join(", ")
    ))
}
