//! The commands that ask the running agent: `status`, `accept-snapshot`.

use anyhow::bail;
use clap::Args;

use super::drain::shown;
use crate::config::RunDir;
use crate::control::{self, Request, Response, ask};
use crate::link::LinkState;

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    run_dir: RunDir,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn status(command: Status) -> anyhow::Result<()> {
    match ask(&command.run_dir.control_socket(), &Request::Status).await? {
        Response::Status(status) if command.json => {
            println!("{}", serde_json::to_string_pretty(&status)?);
            Ok(())
        }
        Response::Status(status) => {
            for (name, value) in table(&status) {
                println!("{name:<18}{value}");
            }
            Ok(())
        }
        other => unexpected(other),
    }
}

pub(super) async fn accept_snapshot(run_dir: RunDir) -> anyhow::Result<()> {
    match ask(&run_dir.control_socket(), &Request::AcceptSnapshot).await? {
        Response::Accepted { snapshot: Some(it) } => {
            println!(
                "applied the snapshot of revision {}: {} of {} peers removed",
                it.revision, it.removals, it.peers
            );
            Ok(())
        }
        Response::Accepted { snapshot: None } => bail!("no snapshot is held"),
        other => unexpected(other),
    }
}

pub(super) fn unexpected(response: Response) -> anyhow::Result<()> {
    match response {
        Response::Failed { message } => bail!("the agent could not do it: {message}"),
        other => bail!("the agent answered something else: {other:?}"),
    }
}

fn table(status: &control::Status) -> Vec<(&'static str, String)> {
    let (session, node) = (&status.session, &status.node);
    let state = match session.state {
        LinkState::Connecting => "connecting".to_owned(),
        LinkState::Waiting => "waiting to dial again".to_owned(),
        LinkState::Connected { id, since } => format!("connected since {since} ({id})"),
    };
    let desired = session
        .desired_revision
        .map_or_else(|| "unknown".to_owned(), |it| it.to_string());
    let operations = node.operations;
    let mut rows = vec![
        ("server", session.server_id.to_string()),
        ("session", state),
        ("token expires", session.token_expires_at.to_string()),
        (
            "revision",
            format!("{} applied, {desired} desired", node.applied_revision),
        ),
        ("state hash", node.state_hash.to_string()),
        ("peers", format!("{}, {} limited", node.peers, node.limited)),
        (
            "pool",
            format!("{} of {} used", node.pool_used, node.capacity),
        ),
        (
            "interface",
            format!(
                "{} backend, index {}, epoch {}",
                node.backend, node.interface_index, node.interface_epoch
            ),
        ),
        (
            "operations",
            format!(
                "{} added, {} updated, {} removed",
                operations.added, operations.updated, operations.removed
            ),
        ),
        (
            "repaired",
            format!(
                "{} peers, firewall {} times",
                node.drift, status.firewall_repairs
            ),
        ),
        ("draining", shown(&node.drained_by)),
        ("uptime", format!("{} s", node.uptime_seconds)),
    ];
    if let Some(next) = node.next_key {
        let takes_over = format!("{} takes over at {}", next.public_key, next.at);
        rows.push(("next key", takes_over));
    }
    if let Some(error) = &session.last_error {
        rows.push(("last error", error.clone()));
    }
    if let Some(error) = &node.limits_error {
        rows.push(("limits", format!("cannot be programmed: {error}")));
    }
    if let Some(held) = &node.held {
        rows.push((
            "held",
            format!(
                "a snapshot that removes {} of {} peers; `node-agent accept-snapshot` applies it",
                held.removals, held.peers
            ),
        ));
    }
    rows
}
