//! `metrics`: what the running agent does, as Prometheus reads it.
//!
//! A VPN host opens no port but WireGuard's, so nothing listens here: the text goes to standard output, or into a
//! file that node_exporter's textfile collector picks up. Nothing in it is about one client.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::ask::unexpected;
use crate::config::RunDir;
use crate::control::{self, Request, Response, ask};
use crate::link::LinkState;

#[derive(Debug, Args)]
pub(super) struct Metrics {
    #[command(flatten)]
    run_dir: RunDir,
    /// Replaces this file, which ends in .prom, instead of printing
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn metrics(command: Metrics) -> anyhow::Result<()> {
    match ask(&command.run_dir.control_socket(), &Request::Status).await? {
        Response::Status(status) => {
            let text = render(&status);
            match &command.output {
                Some(path) => replace(path, &text).with_context(|| path.display().to_string()),
                None => {
                    print!("{text}");
                    Ok(())
                }
            }
        }
        other => unexpected(other),
    }
}

/// A reader sees the file before or after, never a part of it.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("prom.new");
    fs::write(&new, text)?;
    fs::rename(new, path)
}

/// Name, kind, what it is, and its samples: the labels of each and its value.
type Family = (
    &'static str,
    &'static str,
    &'static str,
    Vec<(&'static str, String)>,
);

fn render(status: &control::Status) -> String {
    let mut text = String::new();
    for (name, kind, help, samples) in families(status) {
        // A text takes whatever is written.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    }
    text
}

fn families(status: &control::Status) -> Vec<Family> {
    let (session, node) = (&status.session, &status.node);
    let one = |value: String| vec![("", value)];
    let flag = |is: bool| one(u8::from(is).to_string());
    let operations = node.operations;
    let mut families = vec![
        (
            "prime_node_session_connected",
            "gauge",
            "Whether the session with the plane is open",
            flag(matches!(session.state, LinkState::Connected { .. })),
        ),
        (
            "prime_node_token_expires_timestamp_seconds",
            "gauge",
            "When the node's token ends",
            one(session.token_expires_at.timestamp().to_string()),
        ),
        (
            "prime_node_applied_revision",
            "gauge",
            "The revision of the desired state that the interface has",
            one(node.applied_revision.to_string()),
        ),
        (
            "prime_node_peers",
            "gauge",
            "Peers of the interface",
            one(node.peers.to_string()),
        ),
        (
            "prime_node_limited_peers",
            "gauge",
            "Peers with a rate or an allowance",
            one(node.limited.to_string()),
        ),
        (
            "prime_node_limits_failing",
            "gauge",
            "Whether limits cannot be programmed",
            flag(node.limits_error.is_some()),
        ),
        (
            "prime_node_pool_used",
            "gauge",
            "Addresses in use or in quarantine",
            one(node.pool_used.to_string()),
        ),
        (
            "prime_node_pool_capacity",
            "gauge",
            "Addresses of the pool",
            one(node.capacity.to_string()),
        ),
        (
            "prime_node_peer_operations_total",
            "counter",
            "Changes of the interface's peers",
            vec![
                ("{kind=\"added\"}", operations.added.to_string()),
                ("{kind=\"updated\"}", operations.updated.to_string()),
                ("{kind=\"removed\"}", operations.removed.to_string()),
            ],
        ),
        (
            "prime_node_drift_repaired_total",
            "counter",
            "Differences between ledger and interface that were repaired",
            one(node.drift.to_string()),
        ),
        (
            "prime_node_firewall_repairs_total",
            "counter",
            "How often the firewall's table was put right",
            one(status.firewall_repairs.to_string()),
        ),
        (
            "prime_node_snapshot_held",
            "gauge",
            "Whether a snapshot waits for an operator",
            flag(node.held.is_some()),
        ),
        (
            "prime_node_draining",
            "gauge",
            "Whether the node takes no new clients",
            flag(node.draining),
        ),
        (
            "prime_node_uptime_seconds",
            "gauge",
            "Since the agent started",
            one(node.uptime_seconds.to_string()),
        ),
    ];
    if let Some(desired) = session.desired_revision {
        families.push((
            "prime_node_desired_revision",
            "gauge",
            "The newest revision that the plane told",
            one(desired.to_string()),
        ));
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::{node, session};

    fn status() -> control::Status {
        control::Status {
            session: session(),
            node: node(),
            firewall_repairs: 2,
        }
    }

    #[test]
    fn every_family_is_described_and_has_its_samples() {
        let text = render(&status());
        for line in [
            "# TYPE prime_node_peers gauge\nprime_node_peers 2\n",
            "prime_node_session_connected 0\n",
            "prime_node_applied_revision 3\n",
            "prime_node_desired_revision 4\n",
            "prime_node_peer_operations_total{kind=\"removed\"} 0\n",
            "prime_node_firewall_repairs_total 2\n",
            "prime_node_snapshot_held 0\n",
            "prime_node_draining 1\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    /// Nothing but words and numbers that no client can make more of.
    #[test]
    fn labels_are_kinds_alone() {
        let text = render(&status());
        let labels = text.lines().filter_map(|line| line.split_once('{'));
        assert!(
            labels.clone().count() == 3 && labels.clone().all(|(_, it)| it.starts_with("kind="))
        );
        assert!(!text.contains(&session().server_id.to_string()));
    }

    #[test]
    fn the_documentation_lists_what_is_told() {
        let page = include_str!("../../../docs/metrics.md");
        for (name, ..) in families(&status()) {
            assert!(
                page.contains(&format!("`{name}`")),
                "{name} in docs/metrics.md"
            );
        }
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.prom");
        replace(&path, "one 1\n").expect("written");
        replace(&path, "two 2\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "two 2\n");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
