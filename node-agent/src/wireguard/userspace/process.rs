//! The `wireguard-go` process and its socket.
//!
//! The process is started in the way in which it puts itself into the background: it then belongs
//! to nobody, outlives the agent, and the next agent finds it by its socket. It says nothing after
//! its start, because what it has to say names clients' endpoints.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::timeout;
use zeroize::{Zeroize, Zeroizing};

use super::uapi::Answer;
use crate::wireguard::{DeviceError, InterfaceName};

/// Where implementations listen. The directory is the machine's, whatever the network namespace.
const SOCKETS: &str = "/var/run/wireguard";

/// Longest that a start, or the answer to a request, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest line of an answer that is sensible; keys have 78 characters.
const MAX_LINE_BYTES: usize = 1024;

/// One `wireguard-go`, running or not.
#[derive(Debug)]
pub(super) struct Process {
    name: InterfaceName,
    program: PathBuf,
}

impl Process {
    pub(super) const fn new(name: InterfaceName, program: PathBuf) -> Self {
        Self { name, program }
    }

    /// Starts the process and waits until it listens.
    pub(super) async fn start(&self) -> Result<(), DeviceError> {
        let started = Command::new(&self.program)
            .arg(self.name.as_str())
            .env_remove("LOG_LEVEL")
            .env_remove("WG_TUN_FD")
            .env_remove("WG_UAPI_FD")
            .env_remove("WG_TUN_NAME_FILE")
            .env_remove("WG_PROCESS_FOREGROUND")
            .stdin(Stdio::null())
            // A group of its own: no Ctrl-C meant for the agent reaches it.
            .process_group(0)
            .kill_on_drop(true)
            .output();
        let output = within(started)
            .await
            .map_err(|error| self.unavailable(&error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said);
        let said = said.lines().rev().find(|line| line.contains("ERROR"));
        let said = said.unwrap_or("it gave no reason").trim();
        Err(self.unavailable(&format_args!("{}: {said}", output.status)))
    }

    /// Sends a request and reads its answer.
    pub(super) async fn ask(&self, request: &str) -> Result<Answer, DeviceError> {
        let exchanged = within(async {
            let stream = UnixStream::connect(self.socket()).await?;
            exchange(stream, request).await
        });
        let answer = exchanged.await.map_err(failure)?;
        match answer.errno {
            None => Err(failure(io::ErrorKind::UnexpectedEof.into())),
            Some(0) => Ok(answer),
            Some(code) => {
                let error = io::Error::from_raw_os_error(code.saturating_abs());
                Err(DeviceError::Io {
                    context: "wireguard-go",
                    source: error,
                })
            }
        }
    }

    /// Takes the socket away, upon which the process ends.
    pub(super) fn stop(&self) -> Result<(), DeviceError> {
        match std::fs::remove_file(self.socket()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DeviceError::from_io("stopping wireguard-go", error))
            }
            _ => Ok(()),
        }
    }

    fn socket(&self) -> PathBuf {
        Path::new(SOCKETS).join(format!("{}.sock", self.name))
    }

    fn unavailable(&self, reason: &dyn std::fmt::Display) -> DeviceError {
        let reason = format!("{}: {reason}", self.program.display());
        DeviceError::Unavailable("wireguard-go", reason)
    }
}

/// Whether `program` can be run here.
pub(super) async fn available(program: &Path) -> Result<(), DeviceError> {
    let unavailable = |reason: String| DeviceError::Unavailable("wireguard-go", reason);
    if !Path::new("/dev/net/tun").exists() {
        return Err(unavailable("there is no /dev/net/tun".to_owned()));
    }
    let run = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status();
    match within(run).await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(unavailable(format!("{}: {status}", program.display()))),
        Err(error) => Err(unavailable(format!("{}: {error}", program.display()))),
    }
}

async fn exchange(stream: UnixStream, request: &str) -> io::Result<Answer> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let send = write.write_all(request.as_bytes());
    let receive = async {
        let mut answer = Answer::default();
        // Reserved at once: growing would leave copies of keys behind.
        let mut line = Zeroizing::new(String::with_capacity(MAX_LINE_BYTES));
        while answer.errno.is_none() && read.read_line(&mut line).await? > 0 {
            if let Some(text) = line.strip_suffix('\n')
                && !text.is_empty()
            {
                let understood = answer.read(text);
                understood.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            line.zeroize();
        }
        Ok(answer.finish())
    };
    // Together: a long request is read while errors in it are being answered.
    let (sent, answer) = tokio::join!(send, receive);
    sent?;
    answer
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let timed = timeout(PATIENCE, work).await;
    timed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Nobody listens, or stopped listening: the interface is gone with its process.
fn failure(error: io::Error) -> DeviceError {
    match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => DeviceError::Missing,
        _ => DeviceError::from_io("talking to wireguard-go", error),
    }
}
