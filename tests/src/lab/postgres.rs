//! A Postgres of one test alone, which may be killed and comes back with the same data and port.
//!
//! It does not wait for the disk (`fsync=off`): the kernel keeps what a killed process has written,
//! so that only a crash of the whole machine would lose committed data, and no test does that. All
//! other promises are on: a commit that says `synchronous_commit=off` is lost as in production.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncPgConnection};
use nix::unistd::{Gid, Pid, Uid, User, chown};

use super::process::Process;
use crate::redis::free_port;
use crate::{wait_for, wait_until};

const PASSWORD: &str = "of-a-test-on-loopback";
const SOON: Duration = Duration::from_secs(60);

/// A cluster in a folder, and its process while it runs.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    owner: Option<(Uid, Gid)>,
    port: u16,
    process: Option<Process>,
    folder: tempfile::TempDir,
}

impl Postgres {
    /// Makes a cluster, starts it and runs the migrations.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut postgres = Self {
            programs: programs(),
            owner: owner(),
            port: free_port(),
            process: None,
            folder,
        };
        postgres.make_cluster();
        postgres.run();
        postgres.wait_ready().await;
        control_plane::db::run(&postgres.url())
            .await
            .expect("the migrations run");
        postgres
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "postgres://prime:{PASSWORD}@127.0.0.1:{}/postgres",
            self.port
        )
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A command of the account that owns the data: Postgres refuses to run as root.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder.path());
        if let Some((user, group)) = self.owner {
            command.uid(user.as_raw()).gid(group.as_raw());
        }
        command
    }

    fn make_cluster(&self) {
        let folder = self.folder.path();
        let word = folder.join("password");
        fs::write(&word, PASSWORD).expect("the password can be written");
        let closed = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&word, closed).expect("the password can be closed");
        for path in [folder, &word] {
            if let Some((user, group)) = self.owner {
                chown(path, Some(user), Some(group)).expect("root gives files away");
            }
        }
        let output = self
            .command("initdb")
            .args(["--username", "prime", "--encoding", "UTF8", "--locale", "C"])
            .args(["--auth", "scram-sha-256", "--no-sync", "--pwfile"])
            .arg(&word)
            .arg("--pgdata")
            .arg(self.data())
            .output()
            .expect("initdb runs");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "initdb: {words}");
    }

    /// Starts the process; it may take a moment until it answers.
    pub fn run(&mut self) {
        let port = self.port.to_string();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &port]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            "fsync=off",
        ] {
            command.args(["-c", setting]);
        }
        self.process = Some(Process::spawn("postgres", self.folder.path(), &mut command));
    }

    /// Whether the process is there. One that was started beside its predecessor's last children
    /// ends at once, and is to be started again.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// `kill -9` of the server and of every process it has.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let children = children(process.pid());
            process.kill();
            for child in children {
                // It may have followed its parent already.
                let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }

    /// A connection, while it answers.
    pub async fn try_connect(&self) -> Option<AsyncPgConnection> {
        try_connect(&self.url()).await
    }

    /// A connection, as soon as it answers.
    pub async fn connect(&self) -> AsyncPgConnection {
        wait_for("Postgres answers", SOON, async || self.try_connect().await).await
    }

    async fn wait_ready(&mut self) {
        wait_until("Postgres answers", SOON, async || {
            assert!(self.is_running(), "Postgres ended");
            self.try_connect().await.is_some()
        })
        .await;
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A connection, if the server answers within a moment.
pub async fn try_connect(url: &str) -> Option<AsyncPgConnection> {
    let connecting = AsyncPgConnection::establish(url);
    let connected = tokio::time::timeout(Duration::from_secs(5), connecting).await;
    connected.ok()?.ok()
}

/// The newest server's programs; Debian keeps them off the PATH.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<_> = versions
        .filter_map(|entry| entry.ok().map(|entry| entry.path().join("bin")))
        .filter(|folder| folder.join("initdb").is_file())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders = std::env::split_paths(&path);
        let found = folders.find(|folder| folder.join("initdb").is_file());
        found.expect("Postgres is installed")
    })
}

/// Whose the data are, when root runs the tests.
fn owner() -> Option<(Uid, Gid)> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let user = User::from_name("postgres").ok().flatten();
    let user = user.expect("the account postgres, which its package makes");
    Some((user.uid, user.gid))
}

fn children(parent: Pid) -> Vec<Pid> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let list = fs::read_to_string(Path::new(&path)).unwrap_or_default();
    let numbers = list.split_whitespace().filter_map(|it| it.parse().ok());
    numbers.map(Pid::from_raw).collect()
}
