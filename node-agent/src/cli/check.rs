//! `node-agent check`.

use std::process::ExitCode;

use clap::Args;

use crate::config::Config;
use crate::preflight::{Level, examine};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: Config,
}

pub(super) async fn execute(command: Check) -> anyhow::Result<ExitCode> {
    let items = examine(&command.config).await;
    if command.json {
        println!("{}", serde_json::to_string_pretty(&items)?);
    } else {
        for item in &items {
            let level = match item.level {
                Level::Ok => "ok",
                Level::Warn => "warn",
                Level::Fail => "FAIL",
            };
            println!("{level:<5}{:<15}{}", item.name, item.detail);
            if let Some(mend) = &item.mend {
                println!("{:20}→ {mend}", "");
            }
        }
    }
    let failed = items.iter().any(|item| item.level == Level::Fail);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
