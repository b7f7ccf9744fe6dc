//! Commands about servers that are there.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use shared::ids::ServerId;

use super::CLI;
use crate::cli::ttl;
use crate::fleet::Fleet;
use crate::fleet::admin::{Change, Managed};
use crate::fleet::enrolment::is_hostname;
use crate::fleet::store::{Edit, ServerFilter};

/// How often to look whether a server is empty.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Servers read by one query of `list`.
const PAGE: i64 = 100;

#[derive(Debug, Clone, clap::Args)]
pub struct Host {
    /// The server's host name or id
    host: String,
}

#[derive(Debug, Clone, clap::Args)]
pub struct DrainArgs {
    #[command(flatten)]
    host: Host,
    /// Show how many clients are left, and come back when none is
    #[arg(long)]
    wait: bool,
    /// With --wait: give up after this time, such as 2h
    #[arg(long, requires = "wait", value_parser = ttl::parse)]
    deadline: Option<Duration>,
}

#[derive(Debug, Clone, clap::Args)]
pub struct RotateKeyArgs {
    #[command(flatten)]
    host: Host,
    /// When the new key takes over, such as 2027-01-31T04:00:00Z; a day from now if left out
    #[arg(long, conflicts_with_all = ["after", "cancel"])]
    at: Option<DateTime<Utc>>,
    /// The same as a time from now, such as 12h
    #[arg(long = "in", value_name = "TIME", value_parser = ttl::parse, conflicts_with = "cancel")]
    after: Option<Duration>,
    /// Take the plan back
    #[arg(long)]
    cancel: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    host: Host,
    /// Also with live connections, which end before
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub struct RenameArgs {
    #[command(flatten)]
    host: Host,
    /// The new host name
    name: String,
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write")
}

async fn found(fleet: &Fleet, host: &Host) -> anyhow::Result<ServerId> {
    match host.host.parse() {
        Ok(id) => Ok(id),
        Err(_) => fleet
            .server_named(&host.host)
            .await
            .with_context(|| host.host.clone()),
    }
}

async fn change(fleet: &Fleet, host: &Host, change: Change) -> anyhow::Result<ServerId> {
    let server = found(fleet, host).await?;
    let changed = fleet.change(server, change, CLI).await;
    changed.map_err(super::explained)?;
    super::deliver(fleet).await;
    Ok(server)
}

/// `node list`: a line a server.
pub async fn list(fleet: &Fleet) -> anyhow::Result<()> {
    let filter = ServerFilter::default();
    let mut seen = 0;
    loop {
        let (servers, total) = fleet.managed_page(&filter, (seen, PAGE)).await?;
        for server in &servers {
            say(&line(server, Utc::now()))?;
        }
        seen += i64::try_from(servers.len())?;
        if servers.is_empty() || seen >= i64::try_from(total)? {
            return Ok(());
        }
    }
}

fn line(server: &Managed, now: DateTime<Utc>) -> String {
    let presence = match (&server.host, server.is_online(now)) {
        (None, _) => "not enrolled",
        (_, true) => "online",
        (_, false) => "offline",
    };
    let node = server.node.as_ref();
    let is_drained = node.is_some_and(|node| node.drain_requested_at.is_some() || node.draining);
    let drain = if is_drained { "draining" } else { "-" };
    let peers = node.map_or(0, |node| node.peers);
    let used = node.map_or(0, |node| node.pool_used);
    let capacity = server.host.as_ref().map_or(0, |host| host.capacity);
    format!(
        "{}\t{}\t{presence}\t{drain}\t{peers} peers\tpool {used}/{capacity}\tload {:.1}\t{}",
        server.hostname,
        server.status.as_str(),
        server.load,
        server.id,
    )
}

/// `node show`: everything about one.
pub async fn show(fleet: &Fleet, host: Host) -> anyhow::Result<()> {
    let server = found(fleet, &host).await?;
    let managed = fleet.managed(server).await.map_err(super::explained)?;
    say(&line(&managed, Utc::now()))?;
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let time = |value: Option<DateTime<Utc>>| text(value.map(|time| time.to_rfc3339()));
    say(&format!("place\t{}, {}", managed.city, managed.country))?;
    if let Some(host) = &managed.host {
        say(&format!("endpoint\t{}", host.endpoint))?;
        say(&format!("public key\t{}", host.public_key))?;
    }
    let expected = fleet.expected_hash(&managed).await?;
    let Some(node) = managed.node else {
        return Ok(());
    };
    say(&format!("last seen\t{}", time(node.last_seen)))?;
    say(&format!("agent\t{}", text(node.agent_version)))?;
    say(&format!("backend\t{}", text(node.backend)))?;
    say(&format!(
        "revision\t{} of {}",
        node.applied_revision, node.desired_revision
    ))?;
    let agrees = node.state_hash.as_deref() == Some(expected.to_string().as_str());
    let agreement = if agrees { "as expected" } else { "differs" };
    say(&format!("state\t{}\t{agreement}", text(node.state_hash)))?;
    say(&format!(
        "draining since\t{}",
        time(node.drain_requested_at)
    ))?;
    say(&format!("next key at\t{}", time(node.rotate_key_at)))?;
    say(&format!("next key\t{}", text(node.next_public_key)))?;
    if let Some(report) = node.report {
        let held = report.held_removals.unwrap_or(0);
        say(&format!("drift\t{}\theld removals {held}", report.drift))?;
    }
    Ok(())
}

/// `node drain`, with a countdown where it is waited for.
pub async fn drain(fleet: &Fleet, args: DrainArgs) -> anyhow::Result<()> {
    let server = change(fleet, &args.host, Change::Drain(true)).await?;
    if !args.wait {
        return say("draining");
    }
    let began = Instant::now();
    let mut last = None;
    loop {
        let left = fleet.occupancy(server).await?;
        if last != Some(left) {
            say(&format!("{} live", left.live + left.leaving))?;
            last = Some(left);
        }
        if left.live + left.leaving == 0 {
            return Ok(());
        }
        let is_over = args.deadline.is_some_and(|end| began.elapsed() >= end);
        ensure!(!is_over, "the server is not empty yet; it goes on draining");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

pub async fn undrain(fleet: &Fleet, host: Host) -> anyhow::Result<()> {
    change(fleet, &host, Change::Drain(false)).await?;
    say("takes clients")
}

/// `node rotate-key`, or its opposite.
pub async fn rotate_key(fleet: &Fleet, args: RotateKeyArgs) -> anyhow::Result<()> {
    let wanted = match args.after {
        Some(after) => Some(Utc::now() + chrono::Duration::from_std(after)?),
        None => args.at,
    };
    let plan = match args.cancel {
        true => Change::CancelKeyRotation,
        false => Change::PlanKeyRotation(wanted),
    };
    let server = change(fleet, &args.host, plan).await?;
    let planned = fleet.managed(server).await?.node;
    match planned.and_then(|node| node.rotate_key_at) {
        Some(at) => say(&format!("the key changes at {}", at.to_rfc3339())),
        None => say("the key stays"),
    }
}

pub async fn revoke(fleet: &Fleet, host: Host) -> anyhow::Result<()> {
    change(fleet, &host, Change::Revoke).await?;
    say("revoked; enrol it again with `node enrolment-token`")
}

pub async fn rename(fleet: &Fleet, args: RenameArgs) -> anyhow::Result<()> {
    ensure!(is_hostname(&args.name), "not a host name: {}", args.name);
    let edit = Edit {
        hostname: Some(args.name.to_lowercase()),
        ..Edit::default()
    };
    change(fleet, &args.host, Change::Edit(Box::new(edit))).await?;
    say(&args.name.to_lowercase())
}

/// `node remove`. The node's session ends its peers itself when it hears of them in time.
pub async fn remove(fleet: &Fleet, args: RemoveArgs) -> anyhow::Result<()> {
    let server = found(fleet, &args.host).await?;
    let removed = fleet.remove(server, args.force, CLI).await;
    removed.map_err(super::explained)?;
    super::deliver(fleet).await;
    say("removed")
}
