//! How the command line speaks to the running agent: one JSON line each way over a Unix socket that
//! only the agent's own user can open.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::warn;

use crate::link::LinkStatus;
use crate::reconcile::{Held, NodeGone, NodeHandle, NodeStatus};

const MAX_REQUEST: u64 = 4 * 1024;
const MAX_RESPONSE: u64 = 64 * 1024;
const MAX_CLIENTS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    Status,
    Drain { on: bool },
    AcceptSnapshot,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum Response {
    Status(Box<Status>),
    Draining { on: bool },
    Accepted { snapshot: Option<Held> },
    Failed { message: String },
}

/// What `node-agent status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    #[serde(flatten)]
    pub session: LinkStatus,
    #[serde(flatten)]
    pub node: NodeStatus,
    /// How often the firewall's table was missing or changed, and was put right.
    pub firewall_repairs: u64,
}

/// Why the agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("no agent answers at {path}: {source}. Is it running, and is this its user or root?")]
    NotRunning { path: PathBuf, source: io::Error },
    #[error("the agent at {0} did not answer in time")]
    TimedOut(PathBuf),
    #[error("the agent's answer was not understood: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("{path}: {source}")]
    Socket { path: PathBuf, source: io::Error },
}

/// Answers requests about one node.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    node: NodeHandle,
    session: watch::Receiver<LinkStatus>,
    firewall_repairs: Arc<AtomicU64>,
}

impl Server {
    /// Takes the socket at `path` over from an agent that is gone.
    pub fn bind(
        path: &Path,
        node: NodeHandle,
        session: watch::Receiver<LinkStatus>,
        firewall_repairs: Arc<AtomicU64>,
    ) -> Result<Self, ControlError> {
        let listener = listen(path).map_err(|source| ControlError::Socket {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            listener,
            node,
            session,
            firewall_repairs,
        })
    }

    /// Until the task is dropped. At most a few clients at once; more wait.
    pub async fn run(self) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        let server = Arc::new(self);
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match server.listener.accept().await {
                Ok((stream, _)) => {
                    let server = Arc::clone(&server);
                    tokio::spawn(async move {
                        let served = timeout(PATIENCE, server.serve(stream)).await;
                        if !matches!(served, Ok(Ok(()))) {
                            warn!(event = "control_request_failed");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(event = "control_accept_failed", %error);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.split();
        let mut line = String::new();
        BufReader::new(read.take(MAX_REQUEST))
            .read_line(&mut line)
            .await?;
        let response = match serde_json::from_str(&line) {
            Ok(request) => self
                .answer(request)
                .await
                .unwrap_or_else(|error| failed(&error)),
            Err(error) => failed(&error),
        };
        let mut answer = serde_json::to_vec(&response)?;
        answer.push(b'\n');
        write.write_all(&answer).await
    }

    async fn answer(&self, request: Request) -> Result<Response, NodeGone> {
        Ok(match request {
            Request::Status => Response::Status(Box::new(Status {
                node: self.node.status().await?,
                session: self.session.borrow().clone(),
                firewall_repairs: self.firewall_repairs.load(Ordering::Relaxed),
            })),
            Request::Drain { on } => {
                self.node.drain(on).await?;
                Response::Draining { on }
            }
            Request::AcceptSnapshot => Response::Accepted {
                snapshot: self.node.accept_snapshot().await?,
            },
        })
    }
}

/// Asks the running agent one thing.
pub async fn ask(path: &Path, request: &Request) -> Result<Response, ControlError> {
    let not_running = |source| ControlError::NotRunning {
        path: path.to_owned(),
        source,
    };
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let answer = async {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(stream.take(MAX_RESPONSE))
            .read_line(&mut answer)
            .await?;
        Ok(answer)
    };
    let answer = timeout(PATIENCE, answer)
        .await
        .map_err(|_| ControlError::TimedOut(path.to_owned()))?
        .map_err(not_running)?;
    Ok(serde_json::from_str(&answer)?)
}

fn failed(error: &dyn std::error::Error) -> Response {
    Response::Failed {
        message: error.to_string(),
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::link::LinkState;
    use crate::reconcile::{Command, DrainedBy, Operations};
    use chrono::Utc;
    use shared::ids::{Revision, ServerId};
    use uuid::Uuid;

    pub(crate) fn session() -> LinkStatus {
        LinkStatus {
            server_id: ServerId::generate(),
            state: LinkState::Waiting,
            desired_revision: Some(Revision(4)),
            token_expires_at: Utc::now(),
            last_error: None,
        }
    }

    pub(crate) fn node() -> NodeStatus {
        NodeStatus {
            applied_revision: Revision(3),
            state_hash: shared::protocol::StateHash::default(),
            peers: 2,
            limited: 1,
            limits_error: None,
            pool_used: 3,
            capacity: 253,
            backend: "fake".into(),
            interface_index: 7,
            interface_epoch: Uuid::nil(),
            operations: Operations::default(),
            drift: 0,
            held: None,
            draining: true,
            drained_by: vec![DrainedBy::Plane],
            next_key: None,
            uptime_seconds: 1,
        }
    }

    #[tokio::test]
    async fn requests_reach_the_node_and_answers_come_back() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("run").join("control.sock");
        assert!(matches!(
            ask(&path, &Request::Status).await,
            Err(ControlError::NotRunning { .. })
        ));
        let (handle, mut commands) = NodeHandle::new();
        let (_sender, status) = watch::channel(session());
        let server = Server::bind(&path, handle, status.clone(), Arc::default()).expect("binds");
        tokio::spawn(server.run());
        tokio::spawn(async move {
            while let Some(command) = commands.recv().await {
                match command {
                    Command::Status(reply) => drop(reply.send(node())),
                    Command::Drain(true, reply) => reply.send(()).expect("asked"),
                    Command::AcceptSnapshot(reply) => drop(reply.send(None)),
                    other => panic!("not asked for: {other:?}"),
                }
            }
        });
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let expected = Status {
            session: status.borrow().clone(),
            node: node(),
            firewall_repairs: 0,
        };
        assert_eq!(
            ask(&path, &Request::Status).await.expect("answers"),
            Response::Status(Box::new(expected))
        );
        assert_eq!(
            ask(&path, &Request::Drain { on: true })
                .await
                .expect("answers"),
            Response::Draining { on: true }
        );
        assert_eq!(
            ask(&path, &Request::AcceptSnapshot).await.expect("answers"),
            Response::Accepted { snapshot: None }
        );
        let mut stream = UnixStream::connect(&path).await.expect("connects");
        stream.write_all(b"nonsense\n").await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answers");
        assert!(answer.contains("failed"), "{answer}");
    }
}
