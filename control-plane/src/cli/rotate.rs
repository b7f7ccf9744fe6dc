//! `admin rotate-keys`

use std::process::ExitCode;

use secrecy::ExposeSecret;
use serde_json::json;

use super::print;
use crate::audit::{self, Action, Actor, Event};
use crate::config::Config;
use crate::db;
use crate::secrets::KeyRing;
use crate::secrets::rotation::{COLUMNS, Rotated, rotate};

pub(super) async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let keys = KeyRing::new(&config.app.keys)?;
    let pool = db::connect(config.database.url.expose_secret(), 1);
    let mut connection = pool.get().await?;
    let mut columns = Vec::new();
    for column in COLUMNS {
        let rotated = rotate(&mut connection, &keys, *column).await?;
        show(&rotated)?;
        columns.push(rotated);
    }
    let total = |count: fn(&Rotated) -> usize| columns.iter().map(count).sum::<usize>();
    let resealed = total(|column| column.resealed);
    let overtaken = total(|column| column.overtaken);
    let unreadable = total(|column| column.unreadable.len());
    let counts = json!({
        "resealed": resealed, "overtaken": overtaken, "unreadable": unreadable,
    });
    let event = Event::new(Action::RotateKeys, Actor::Cli).change(json!({}), counts);
    audit::record(&mut connection, &event).await?;
    conclude(resealed, overtaken, unreadable)
}

fn show(rotated: &Rotated) -> anyhow::Result<()> {
    let Rotated {
        column,
        resealed,
        overtaken,
        unreadable,
    } = rotated;
    for (row, error) in unreadable {
        print(&format!("FAIL  {column} of {row}: {error}"))?;
    }
    let failed = unreadable.len();
    print(&format!(
        "{column}: {resealed} sealed again, {overtaken} changed meanwhile, {failed} unreadable"
    ))
}

/// What the operator may do next. A replica that still runs with the former key seals with it, so
/// that only a run that found nothing says that the former key is not needed.
fn conclude(resealed: usize, overtaken: usize, unreadable: usize) -> anyhow::Result<ExitCode> {
    print(match (resealed + overtaken, unreadable) {
        (0, 0) => {
            "Nothing is left under another key. SECRET_KEYS_OLD can be dropped once every replica runs with \
             this SECRET_KEY and, where NODE_ROOT_KEY is not set, every node has renewed its token."
        }
        (_, 0) => {
            "Run this again once every replica runs with this SECRET_KEY; \
             when it finds nothing, SECRET_KEYS_OLD can be dropped."
        }
        _ => "Keep SECRET_KEYS_OLD, add the keys that are missing to it, and run this again.",
    })?;
    Ok(if unreadable == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
