//! `migrate`

use std::process::ExitCode;

use secrecy::ExposeSecret;

use super::print;
use crate::config::Config;
use crate::db;

pub(super) async fn run(config: &Config, revert: Option<usize>) -> anyhow::Result<ExitCode> {
    let url = config.database.url.expose_secret();
    let (done, names) = match revert {
        Some(steps) => ("reverted", db::revert(url, steps).await?),
        None => ("ran", db::run(url).await?),
    };
    for name in &names {
        print(&format!("{done} {name}"))?;
    }
    if names.is_empty() {
        print("nothing to do")?;
    }
    Ok(ExitCode::SUCCESS)
}
