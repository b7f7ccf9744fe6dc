//! The agent as a process, told apart from the outside: ready, memory, end.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chrono::{TimeDelta, Utc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node_agent::ledger::{Identity, Ledger, Write};
use serde_json::Value;
use shared::ids::ServerId;
use shared::protocol::NodeToken;

use super::{SUBNET, SUBNET_V6};
use crate::bench::process::megabytes;

const PATIENCE: Duration = Duration::from_secs(120);

/// A node agent with its state in a folder.
#[derive(Debug)]
pub struct NodeProcess {
    program: PathBuf,
    folder: PathBuf,
    interface: String,
    plane: String,
    child: Option<Child>,
    /// Where the agent says how it stands; it says so at its end too.
    word: Option<UnixDatagram>,
}

impl NodeProcess {
    /// An agent that is enrolled and has no peers yet.
    pub fn enrolled(folder: &Path, interface: &str, plane: String) -> anyhow::Result<Self> {
        let (ledger, _) = Ledger::open(&folder.join("state"))?;
        ledger.commit(&[Write::Identity(Identity {
            server_id: ServerId::generate(),
            token: NodeToken {
                token: "of-the-bench".to_owned(),
                expires_at: Utc::now() + TimeDelta::days(1),
            },
            received_at: Utc::now(),
        })])?;
        let program = std::env::var_os("NODE_AGENT_BIN").context("NODE_AGENT_BIN is not set")?;
        Ok(Self {
            program: std::fs::canonicalize(program)?,
            folder: folder.to_owned(),
            interface: interface.to_owned(),
            plane,
            child: None,
            word: None,
        })
    }

    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("PLANE_URL", &self.plane)
            .env("WIREGUARD_INTERFACE", &self.interface)
            .env("PUBLIC_ENDPOINT", "192.0.2.1:51820")
            .env("VPN_SUBNET", SUBNET)
            .env("VPN_SUBNET_V6", SUBNET_V6)
            .env("STATE_DIR", self.folder.join("state"))
            .env("RUN_DIR", self.folder.join("run"))
            .env("BACKEND", "kernel")
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// From starting the process until it says that it serves.
    pub fn start(&mut self) -> anyhow::Result<Duration> {
        let path = self.folder.join("notify");
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let began = Instant::now();
        let child = self
            .command()
            .arg("run")
            .env("NOTIFY_SOCKET", &path)
            .spawn()?;
        self.child = Some(child);
        let mut word = [0; 256];
        loop {
            let length = socket.recv(&mut word).context("the agent is not ready")?;
            if word
                .get(..length)
                .is_some_and(|it| it.starts_with(b"READY=1"))
            {
                let took = began.elapsed();
                self.word = Some(socket);
                return Ok(took);
            }
        }
    }

    /// Asks it to end, and waits. The interface stays.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
            ensure!(child.wait()?.success(), "the agent ended with an error");
        }
        Ok(())
    }

    /// `node-agent teardown`, from its start to its end.
    pub fn teardown(&self) -> anyhow::Result<Duration> {
        self.run("teardown")
    }

    /// What starting the program costs that does nothing.
    pub fn bare_start(&self) -> anyhow::Result<Duration> {
        self.run("--version")
    }

    fn run(&self, argument: &str) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let status = self.command().arg(argument).status()?;
        let took = began.elapsed();
        ensure!(status.success(), "node-agent {argument}: {status}");
        Ok(took)
    }

    /// Operations on peers since it started.
    pub fn operations(&self) -> anyhow::Result<u64> {
        let mut command = self.command();
        let output = command
            .args(["status", "--json"])
            .stdout(Stdio::piped())
            .output()?;
        let status: Value = serde_json::from_slice(&output.stdout)?;
        let kinds = status.get("operations").and_then(Value::as_object);
        let kinds = kinds.context("no operations in the status")?;
        Ok(kinds.values().filter_map(Value::as_u64).sum())
    }

    /// Resident memory in megabytes, and of that what is not a mapped file.
    pub fn memory(&self) -> anyhow::Result<(f64, f64)> {
        let child = self.child.as_ref().context("it does not run")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        Ok((megabytes(pid, "VmRSS")?, megabytes(pid, "RssAnon")?))
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
