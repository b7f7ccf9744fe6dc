//! Processes that end with the test, and whose last words are shown when it fails.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait_until;

/// The program of one of the daemons: `variable` names it, or it lies where cargo put this one.
#[must_use]
pub fn binary(variable: &str, name: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| beside_this_program(name), PathBuf::from);
    assert!(
        path.is_file(),
        "there is no {}: run `cargo build --workspace`, or set {variable}",
        path.display()
    );
    // The daemons run in folders of their own.
    path.canonicalize().expect("a file has a path")
}

/// Test programs lie in `deps`, benches and daemons one above.
fn beside_this_program(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a program knows its path");
    let folder = this.parent().expect("a program lies in a folder");
    let folder = match folder.file_name() {
        Some(last) if last == "deps" => folder.parent().expect("deps lies in a folder"),
        _ => folder,
    };
    folder.join(name)
}

/// A child process with its output in a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; its output is appended to `folder/name.log`.
    pub fn spawn(name: &str, folder: &Path, command: &mut Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log);
        let output = output.expect("the log can be written");
        let errors = output.try_clone().expect("the log can be written");
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn signal(&self, signal: Signal) {
        // It may be gone already, which is what a signal wants.
        let _ = kill(self.pid(), signal);
    }

    /// Asks it to end and waits until it has.
    pub async fn terminate(&mut self) {
        self.signal(Signal::SIGTERM);
        let name = self.name.clone();
        wait_until(
            &format!("{name} ends"),
            Duration::from_secs(20),
            async || !self.is_running(),
        )
        .await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<_> = output.lines().collect();
            let last = lines.len().saturating_sub(40);
            eprintln!("--- the end of {}", self.log.display());
            for line in lines.iter().skip(last) {
                eprintln!("{line}");
            }
        }
    }
}

/// Runs a command to its end; panics with its words when it fails.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = try_run(program, arguments);
    assert!(
        output.status.success(),
        "{program} {}: {}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command to its end, whichever that is.
pub fn try_run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be run: {error}"))
}
