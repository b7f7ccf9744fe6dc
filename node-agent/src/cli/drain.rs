//! `node-agent drain` and `undrain`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use tokio::time::{Instant, sleep};

use super::ask::unexpected;
use crate::config::RunDir;
use crate::control::{ControlError, Request, Response, Status, ask};
use crate::reconcile::DrainedBy;

/// Between two looks at how many clients are left.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long an agent may be away meanwhile, as when it is upgraded.
const AWAY: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct Drain {
    #[command(flatten)]
    run_dir: RunDir,
    /// Count the clients down, and end when the last has left
    #[arg(long)]
    wait: bool,
    /// With --wait: give up after so many seconds, with exit code 1
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
}

pub(super) async fn drain(command: Drain) -> anyhow::Result<ExitCode> {
    let socket = command.run_dir.control_socket();
    set(&socket, true).await?;
    println!("draining: no new clients; those that are here stay until they leave");
    if !command.wait {
        return Ok(ExitCode::SUCCESS);
    }
    let deadline = command
        .timeout
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let left = wait(&socket, LOOK_EVERY, deadline, |line| println!("{line}")).await?;
    if left == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("node-agent: in time {} did not leave", clients(left));
    Ok(ExitCode::FAILURE)
}

pub(super) async fn undrain(run_dir: RunDir) -> anyhow::Result<()> {
    let socket = run_dir.control_socket();
    set(&socket, false).await?;
    if status(&socket).await?.node.draining {
        println!("the plane still drains this node: no new clients until it ends that too");
    } else {
        println!("no longer draining: new clients are welcome");
    }
    Ok(())
}

/// For the table of `status`.
pub(super) fn shown(drained_by: &[DrainedBy]) -> String {
    let by = |who: &DrainedBy| match who {
        DrainedBy::Host => "this host (`node-agent undrain` ends it)",
        DrainedBy::Plane => "the plane",
    };
    if drained_by.is_empty() {
        return "no".to_owned();
    }
    let by: Vec<_> = drained_by.iter().map(by).collect();
    format!("yes, asked by {}", by.join(" and by "))
}

async fn set(socket: &Path, on: bool) -> anyhow::Result<()> {
    match ask(socket, &Request::Drain { on }).await? {
        Response::Draining { .. } => Ok(()),
        other => unexpected(other),
    }
}

async fn status(socket: &Path) -> anyhow::Result<Status> {
    match ask(socket, &Request::Status).await? {
        Response::Status(status) => Ok(*status),
        Response::Failed { message } => bail!("the agent could not do it: {message}"),
        other => bail!("the agent answered something else: {other:?}"),
    }
}

/// Until no client is left, or until the deadline: how many are left then. Says every change.
async fn wait(
    socket: &Path,
    every: Duration,
    deadline: Option<Instant>,
    mut say: impl FnMut(&str),
) -> anyhow::Result<usize> {
    let mut last = None;
    let mut heard = Instant::now();
    loop {
        match status(socket).await {
            Ok(status) => {
                heard = Instant::now();
                if !status.node.draining {
                    bail!("somebody ended the drain; clients come again");
                }
                if last != Some(status.node.peers) {
                    say(&format!("{} left", clients(status.node.peers)));
                }
                last = Some(status.node.peers);
            }
            Err(error) if !is_away(&error) || heard.elapsed() > AWAY => return Err(error),
            Err(_) => {}
        }
        match last {
            Some(0) => return Ok(0),
            Some(left) if deadline.is_some_and(|at| Instant::now() >= at) => return Ok(left),
            _ => {}
        }
        sleep(every).await;
    }
}

fn is_away(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(ControlError::NotRunning { .. } | ControlError::TimedOut(_))
    )
}

fn clients(count: usize) -> String {
    match count {
        1 => "1 client".to_owned(),
        _ => format!("{count} clients"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Server;
    use crate::control::tests::{node, session};
    use crate::reconcile::{Command, NodeHandle, NodeStatus};
    use rstest::rstest;
    use tempfile::TempDir;
    use tokio::sync::watch;

    /// An agent with so many clients at one look after the other, then for ever with the last.
    fn agent(mut looks: Vec<usize>, draining: bool) -> (TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("control.sock");
        let (handle, mut commands) = NodeHandle::new();
        let (_sender, status) = watch::channel(session());
        let server = Server::bind(&path, handle, status, std::sync::Arc::default());
        tokio::spawn(server.expect("binds").run());
        tokio::spawn(async move {
            while let Some(command) = commands.recv().await {
                let Command::Status(reply) = command else {
                    panic!("not asked for: {command:?}");
                };
                let peers = looks[0];
                if looks.len() > 1 {
                    looks.remove(0);
                }
                drop(reply.send(NodeStatus {
                    peers,
                    draining,
                    ..node()
                }));
            }
        });
        (directory, path)
    }

    const EVERY: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn waiting_counts_down_and_ends_when_the_node_is_empty() {
        let (_directory, path) = agent(vec![2, 2, 1, 0], true);
        let mut said = Vec::new();
        let left = wait(&path, EVERY, None, |line| said.push(line.to_owned())).await;
        assert_eq!(left.expect("answers"), 0);
        assert_eq!(said, ["2 clients left", "1 client left", "0 clients left"]);
    }

    #[tokio::test]
    async fn waiting_gives_up_at_the_deadline_and_says_who_is_left() {
        let (_directory, path) = agent(vec![3], true);
        let deadline = Instant::now() + Duration::from_millis(50);
        let left = wait(&path, EVERY, Some(deadline), |_| {}).await;
        assert_eq!(left.expect("answers"), 3);
    }

    #[tokio::test]
    async fn waiting_ends_when_somebody_ends_the_drain() {
        let (_directory, path) = agent(vec![3], false);
        let ended = wait(&path, EVERY, None, |_| {}).await.expect_err("ended");
        assert!(ended.to_string().contains("ended the drain"), "{ended}");
    }

    #[rstest]
    #[case(&[], "no")]
    #[case(&[DrainedBy::Plane], "yes, asked by the plane")]
    #[case(
        &[DrainedBy::Host, DrainedBy::Plane],
        "yes, asked by this host (`node-agent undrain` ends it) and by the plane"
    )]
    fn status_says_who_asked(#[case] by: &[DrainedBy], #[case] expected: &str) {
        assert_eq!(shown(by), expected);
    }
}
