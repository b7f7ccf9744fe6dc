//! `oauth`

use std::process::ExitCode;

use clap::{Args, Subcommand};
use secrecy::ExposeSecret;

use super::print;
use crate::audit::Actor;
use crate::config::Config;
use crate::db;
use crate::oauth::{Client, RedirectUri, add_client, list_clients};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Let an app ask people for access.
    AddClient(AddClient),
    /// Show the apps: id, name, redirect URIs.
    ListClients,
}

#[derive(Debug, Args)]
pub(super) struct AddClient {
    /// What the app sends as client_id, such as org.example.app
    #[arg(long)]
    id: String,
    /// What people read when it asks
    #[arg(long)]
    name: String,
    /// Where people may be sent back to; give it again for several. The port of a loopback
    /// address is free.
    #[arg(long, value_name = "URI", required = true, value_parser = RedirectUri::parse)]
    redirect_uri: Vec<RedirectUri>,
}

pub(super) async fn run(config: &Config, command: Command) -> anyhow::Result<ExitCode> {
    let pool = db::connect(config.database.url.expose_secret(), 1);
    let mut connection = pool.get().await?;
    match command {
        Command::AddClient(new) => {
            let client = Client::new(new.id, new.name, new.redirect_uri)?;
            add_client(&mut connection, &client, Actor::Cli).await?;
            print(&client.id)?;
        }
        Command::ListClients => {
            for client in list_clients(&mut connection).await? {
                let uris: Vec<_> = client
                    .redirect_uris
                    .iter()
                    .map(RedirectUri::as_str)
                    .collect();
                print(&format!(
                    "{}\t{}\t{}",
                    client.id,
                    client.name,
                    uris.join(" ")
                ))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
