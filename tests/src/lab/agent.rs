//! The node agent as a process in the node's namespace.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use nix::unistd::Pid;
use serde_json::Value;

use super::process::{Process, binary};
use super::{Backend, Plane, Site, World};
use crate::wait_until;

/// A node agent with its state in a folder. Dropping it kills the process and nothing else.
#[derive(Debug)]
pub struct Agent {
    namespace: String,
    folder: PathBuf,
    interface: String,
    environment: Vec<(&'static str, String)>,
    /// What confines it: a command line that becomes the one behind it.
    confinement: Vec<String>,
    program: PathBuf,
    process: Option<Process>,
}

/// What `node-agent status --json` says, as far as tests read it.
#[derive(Debug, Clone)]
pub struct AgentStatus(pub Value);

impl AgentStatus {
    fn number(&self, pointer: &str) -> u64 {
        let value = self.0.pointer(pointer).and_then(Value::as_u64);
        value.unwrap_or_else(|| panic!("no {pointer} in {}", self.0))
    }

    /// Peers added to, changed in or removed from the interface since the process started.
    #[must_use]
    pub fn operations(&self) -> u64 {
        let kinds = [
            "/operations/added",
            "/operations/updated",
            "/operations/removed",
        ];
        kinds.iter().map(|kind| self.number(kind)).sum()
    }

    /// How often the firewall's table was put right.
    #[must_use]
    pub fn firewall_repairs(&self) -> u64 {
        self.number("/firewall_repairs")
    }

    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0
            .pointer("/session/state")
            .is_some_and(|state| state == "connected")
    }
}

impl Agent {
    /// Enrols as `hostname` and runs.
    pub async fn start(
        world: &World,
        plane: &Plane,
        folder: &Path,
        hostname: &str,
        backend: Backend,
    ) -> Self {
        let mut agent = Self::new(world, plane, folder, hostname, backend);
        agent.begin(&plane.enrolment_token(hostname)).await;
        agent
    }

    /// At one of the world's sites, in a folder of its own, with further variables.
    pub async fn start_at(
        site: &Site,
        plane: &Plane,
        folder: &Path,
        hostname: &str,
        backend: Backend,
        more: &[(&'static str, &str)],
    ) -> Self {
        let mut agent = Self::at(site, plane, folder, hostname, backend);
        for (name, value) in more {
            agent.set(name, value);
        }
        agent.begin(&plane.enrolment_token(hostname)).await;
        agent
    }

    /// An agent that neither is enrolled nor runs.
    #[must_use]
    pub fn new(
        world: &World,
        plane: &Plane,
        folder: &Path,
        hostname: &str,
        backend: Backend,
    ) -> Self {
        Self::at(world.site(0), plane, folder, hostname, backend)
    }

    /// The same at one of the world's sites.
    #[must_use]
    pub fn at(site: &Site, plane: &Plane, folder: &Path, hostname: &str, backend: Backend) -> Self {
        let path = |name: &str| folder.join(name).display().to_string();
        let environment = vec![
            ("PLANE_URL", plane.url().to_owned()),
            ("PLANE_CA_FILE", plane.root_file().display().to_string()),
            ("HOSTNAME", hostname.to_owned()),
            ("WIREGUARD_INTERFACE", site.interface.clone()),
            ("WIREGUARD_PORT", "51820".to_owned()),
            ("PUBLIC_ENDPOINT", format!("{}:51820", site.address)),
            ("VPN_SUBNET", "10.77.0.0/16".to_owned()),
            ("VPN_SUBNET_V6", "fd77::/112".to_owned()),
            ("FORWARD_ALLOW", World::INTERNET_RANGES.to_owned()),
            ("STATE_DIR", path("state")),
            ("RUN_DIR", path("run")),
            ("BACKEND", backend.to_string()),
            ("RUST_LOG", "info".to_owned()),
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            ),
        ];
        Self {
            namespace: site.namespace.clone(),
            folder: folder.to_owned(),
            interface: site.interface.clone(),
            environment,
            confinement: Vec::new(),
            program: binary("NODE_AGENT_BIN", "node-agent"),
            process: None,
        }
    }

    /// Enrols with the token, runs, and waits for the session.
    pub async fn begin(&mut self, token: &str) {
        self.enrol(token).await;
        self.run();
        self.wait_connected().await;
    }

    /// From here on it enrols, runs and tears down as `program` behind this command line.
    pub fn confine(&mut self, confinement: Vec<String>, program: PathBuf) {
        self.confinement = confinement;
        self.program = program;
    }

    /// Unconfined, as an operator asks.
    fn command(&self) -> Command {
        let program = binary("NODE_AGENT_BIN", "node-agent");
        self.prepared(World::command(&self.namespace, &program))
    }

    /// As the service does.
    fn service(&self) -> Command {
        let mut words = self.confinement.iter();
        let Some(first) = words.next() else {
            return self.prepared(World::command(&self.namespace, &self.program));
        };
        let mut command = World::command(&self.namespace, Path::new(first));
        command.args(words).arg(&self.program);
        self.prepared(command)
    }

    fn prepared(&self, mut command: Command) -> Command {
        command
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder);
        command
    }

    /// Runs one of its commands to the end, confined as the service is.
    #[must_use]
    pub fn execute(&self, arguments: &[&str]) -> Output {
        let output = self.service().args(arguments).output();
        output.expect("the agent's program runs")
    }

    /// As an operator does: again when the plane says that it is busy, as it does under emulation.
    async fn enrol(&self, token: &str) {
        wait_until("the agent enrols", Duration::from_secs(30), async || {
            let output = self.execute(&["enroll", "--token", token]);
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() || words.contains("SERVICE_UNAVAILABLE"),
                "enroll: {words}"
            );
            output.status.success()
        })
        .await;
    }

    /// Starts the process, again after [`Agent::kill`].
    pub fn run(&mut self) {
        let process = Process::spawn("node-agent", &self.folder, self.service().arg("run"));
        self.process = Some(process);
    }

    /// Changes a variable for the next [`Agent::run`].
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.to_owned()));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Asks it to end. The interface stays.
    pub async fn terminate(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.terminate().await;
        }
    }

    /// Runs one of its commands as an operator does, with what it says.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output();
        let output = output.expect("the agent's program runs");
        assert!(
            output.status.success(),
            "node-agent {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The running process.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(Process::pid)
    }

    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// None while it does not answer.
    #[must_use]
    pub fn status(&self) -> Option<AgentStatus> {
        let output = self.command().args(["status", "--json"]).output().ok()?;
        let status = serde_json::from_slice(&output.stdout).ok()?;
        output.status.success().then_some(AgentStatus(status))
    }

    pub async fn wait_connected(&mut self) {
        wait_until(
            "the agent has a session",
            Duration::from_secs(30),
            async || {
                if let Some(process) = &mut self.process {
                    assert!(
                        process.is_running(),
                        "the agent ended:\n{}",
                        process.output()
                    );
                }
                self.status().is_some_and(|status| status.is_connected())
            },
        )
        .await;
    }
}
