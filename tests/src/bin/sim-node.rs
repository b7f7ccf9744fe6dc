//! One simulated node for a plane that runs elsewhere: it takes every peer and counts nothing. It
//! ends with its standard input.

use std::io::Read;

use anyhow::Context;
use clap::Parser;
use tests::SimNode;
use tests::sim::SimConfig;

#[derive(Debug, Parser)]
#[command(about = "Runs one simulated VPN node")]
struct Arguments {
    /// The plane, such as http://127.0.0.1:8000
    #[arg(long)]
    plane: String,
    #[arg(long)]
    hostname: String,
    /// What `control-plane node enrolment-token` printed for this host
    #[arg(long, env = "ENROLMENT_TOKEN", hide_env_values = true)]
    token: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments {
        plane,
        hostname,
        token,
    } = Arguments::parse();
    let node = SimNode::enrol(&plane, &token, SimConfig::named(&hostname))
        .await
        .map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()))
        .await?
        .context("standard input")?;
    drop(node);
    Ok(())
}
