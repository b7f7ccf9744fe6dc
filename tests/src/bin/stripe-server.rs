//! Stripe for tests and for a first purchase, in front of a running localstripe.

use std::path::PathBuf;

use clap::Parser;
use tests::stripe::{Settings, Target, serve};

#[derive(Debug, Parser)]
#[command(about = "Serves Stripe's API, statefully and on loopback, in front of localstripe")]
struct Arguments {
    #[arg(long)]
    port: u16,
    /// Where localstripe answers, such as http://127.0.0.1:8420
    #[arg(long)]
    localstripe: String,
    /// Where objects are kept; without one they end with the process
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Where events are sent, signed with the secret
    #[arg(long, requires = "webhook_secret")]
    webhook_url: Option<String>,
    #[arg(long, env = "STRIPE_WEBHOOK_SECRET", hide_env_values = true)]
    webhook_secret: Option<String>,
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let Arguments {
        port,
        localstripe,
        folder,
        webhook_url,
        webhook_secret,
    } = Arguments::parse();
    tests::init();
    serve(Settings {
        port,
        behind: localstripe,
        folder,
        webhooks: webhook_url
            .zip(webhook_secret)
            .map(|(url, secret)| Target { url, secret }),
    })
    .await
}
