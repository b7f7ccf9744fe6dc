//! The operator's `node` commands.

mod manage;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::Fleet;
use super::admin::{By, Wish};
use super::enrolment::is_hostname;
use super::identity::MAX_ENROLMENT_LIFE;
use super::store::Place;
use crate::audit::Actor;
use crate::cli::ttl;
use crate::error::ApiError;

pub use manage::{
    DrainArgs, Host, RemoveArgs, RenameArgs, RotateKeyArgs, drain, list, remove, rename, revoke,
    rotate_key, show, undrain,
};

const CLI: By<'static> = By {
    actor: &Actor::Cli,
    request: None,
};

/// `control-plane node enrolment-token`: makes a token with which one host enrols once.
#[derive(Debug, Clone, clap::Args)]
pub struct EnrolmentTokenArgs {
    /// The host's name; the token is good for no other
    #[arg(long)]
    pub hostname: String,
    /// The country's name, such as "Germany"
    #[arg(long)]
    pub country: String,
    /// The country's ISO 3166-1 code, such as DE
    #[arg(long)]
    pub country_code: String,
    #[arg(long)]
    pub city: String,
    /// The region that clients choose by, such as eu-central
    #[arg(long)]
    pub location: String,
    /// The lowest plan tier that may use the server
    #[arg(long, default_value_t = 0)]
    pub tier: i16,
    /// How long the token is good for, such as 90s, 10m or 24h
    #[arg(long, default_value = "10m", value_parser = ttl::parse)]
    pub ttl: Duration,
    /// Where the host reaches this control plane; for the advice on stderr alone
    #[arg(long, value_name = "URL", default_value = "https://PLANE")]
    pub plane: String,
}

/// Stores a token, prints it to stdout, and to stderr what to run on the host.
pub async fn enrolment_token(args: EnrolmentTokenArgs, fleet: &Fleet) -> anyhow::Result<()> {
    let ttl = chrono::Duration::from_std(args.ttl).unwrap_or(chrono::Duration::MAX);
    ensure!(
        ttl <= MAX_ENROLMENT_LIFE,
        "--ttl: at most {} hours",
        MAX_ENROLMENT_LIFE.num_hours()
    );
    let plane = args.plane.clone();
    let made = fleet.make_token(Wish::At(place(args)?), ttl, CLI).await;
    let made = made.context("cannot store the token")?;
    let mut advice = std::io::stderr().lock();
    let end = made.expires_at.format("%Y-%m-%d %H:%M:%S UTC");
    writeln!(advice, "Run on {} before {end}:", made.hostname)?;
    writeln!(advice, "  {}", made.command(&plane))?;
    writeln!(std::io::stdout().lock(), "{}", made.token)?;
    Ok(())
}

/// An error in the words that were written for its reader.
fn explained(error: ApiError) -> anyhow::Error {
    let details = error.envelope("").error.details;
    let details = details
        .iter()
        .map(|detail| format!("; {}: {}", detail.field, detail.message));
    let message = format!("{}{}", error.message(), details.collect::<String>());
    anyhow::Error::new(error).context(message)
}

/// Tells the replicas what was changed. Where Redis is away they find it themselves, in a second.
async fn deliver(fleet: &Fleet) {
    if !fleet.bus.flush().await {
        let note = "Redis does not answer; the replicas see the change a little later";
        // Whoever does not read the notes loses nothing.
        let _ = writeln!(std::io::stderr(), "{note}");
    }
}

fn place(args: EnrolmentTokenArgs) -> anyhow::Result<Place> {
    ensure!(is_hostname(&args.hostname), "--hostname: not a host name");
    ensure!(
        args.country_code.len() == 2
            && args.country_code.bytes().all(|it| it.is_ascii_alphabetic()),
        "--country-code: two letters, such as DE"
    );
    for (name, text) in [
        ("--country", &args.country),
        ("--city", &args.city),
        ("--location", &args.location),
    ] {
        let length = text.trim().chars().count();
        ensure!((1..=100).contains(&length), "{name}: 1 to 100 characters");
    }
    ensure!(args.tier >= 0, "--tier: zero or more");
    Ok(Place {
        hostname: args.hostname.to_lowercase(),
        country: args.country.trim().to_owned(),
        country_code: args.country_code.to_uppercase(),
        city: args.city.trim().to_owned(),
        location: args.location.trim().to_owned(),
        tier: args.tier,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> EnrolmentTokenArgs {
        EnrolmentTokenArgs {
            hostname: "FRA1.example.net".to_owned(),
            country: "Germany".to_owned(),
            country_code: "de".to_owned(),
            city: " Frankfurt ".to_owned(),
            location: "eu-central".to_owned(),
            tier: 1,
            ttl: Duration::from_secs(600),
            plane: String::new(),
        }
    }

    #[test]
    fn tidies_what_the_operator_typed() {
        let place = place(args()).expect("good");
        assert_eq!(
            (
                place.hostname.as_str(),
                place.country_code.as_str(),
                place.city.as_str()
            ),
            ("fra1.example.net", "DE", "Frankfurt")
        );
    }

    type Spoil = fn(&mut EnrolmentTokenArgs);

    const WRONG: &[(&str, Spoil)] = &[
        ("--hostname", |args| args.hostname = "no_host".to_owned()),
        ("--country-code", |args| {
            args.country_code = "DEU".to_owned()
        }),
        ("--country", |args| args.country = " ".to_owned()),
        ("--city", |args| args.city = "x".repeat(101)),
        ("--tier", |args| args.tier = -1),
    ];

    #[test]
    fn names_the_argument_that_is_wrong() {
        for (name, spoil) in WRONG {
            let mut args = args();
            spoil(&mut args);
            let error = place(args).expect_err(name).to_string();
            assert!(error.starts_with(&format!("{name}:")), "{error}");
        }
    }
}
