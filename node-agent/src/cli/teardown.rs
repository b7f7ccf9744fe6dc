//! `node-agent teardown`: the only command that ends tunnels.

use std::io::ErrorKind;

use anyhow::{Context, bail};
use clap::Args;

use crate::config::Config;
use crate::firewall::{self, Firewall};
use crate::ledger::{self, LedgerError, Lock};
use crate::limits::{NftTable, Table};
use crate::wireguard;

#[derive(Debug, Args)]
pub(super) struct Teardown {
    /// Also forget this node's identity, key and peers
    #[arg(long)]
    forget: bool,
    #[command(flatten)]
    config: Config,
}

pub(super) async fn execute(command: Teardown) -> anyhow::Result<()> {
    let config = command.config;
    // Held until the end, so that no agent starts meanwhile.
    let lock = match Lock::take(&config.state_dir) {
        Err(LedgerError::InUse(_)) => bail!("the agent is running; stop it first"),
        taken => taken.ok(),
    };
    let interface = config.wireguard.interface.clone();
    wireguard::open(
        config.wireguard.backend,
        interface.clone(),
        config.wireguard.wireguard_go.clone(),
    )
    .await?
    .teardown()
    .await
    .with_context(|| format!("interface {interface}"))?;
    println!("interface {interface} is gone");
    Firewall::new(interface.clone())
        .remove()
        .await
        .context("firewall")?;
    NftTable::new(interface).remove().await.context("limits")?;
    println!("the tables of firewall and limits are gone");
    if command.forget {
        let files = ledger::files(&config.state_dir).into_iter();
        for path in files.chain([config.state_dir.join(firewall::REMEMBERED)]) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| path.display().to_string());
                }
                _ => {}
            }
        }
        println!("identity, key and peers are forgotten; enrol this node to use it again");
    } else {
        println!("identity and peers are kept: `node-agent run` brings them back");
    }
    drop(lock);
    Ok(())
}
