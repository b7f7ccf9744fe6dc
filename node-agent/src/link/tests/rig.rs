//! A plane that the test plays, and an agent without a kernel to talk to it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use futures_util::{SinkExt, StreamExt};
use shared::ids::{ConnectionId, PeerId, Revision, ServerId, SessionId};
use shared::protocol::counters::CountersFrame;
use shared::protocol::{
    AgentMessage, Applied, Apply, Change, Hello, Limits, NodeToken, Peer, PlaneMessage, Resume,
    Welcome,
};
use shared::wireguard::PrivateKey;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::host::LoadSampler;
use crate::ipam::Pool;
use crate::ledger::{self, Identity, Ledger};
use crate::limits::fake::FakeTable;
use crate::link::{Backoff, Link, LinkConfig, LinkStatus, PlaneUrl, tls};
use crate::reconcile::{Node, NodeConfig, NodeError, NodeHandle};
use crate::wireguard::InterfaceSetup;
use crate::wireguard::fake::FakeDevice;

pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what)
        .await
        .expect("in time")
}

pub(super) struct Plane {
    pub(super) listener: TcpListener,
    pub(super) address: SocketAddr,
}

pub(super) struct Side {
    pub(super) socket: WebSocketStream<TcpStream>,
    pub(super) bearer: String,
}

impl Plane {
    pub(super) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        Self { listener, address }
    }

    pub(super) fn url(&self) -> PlaneUrl {
        format!("http://{}", self.address).parse().expect("valid")
    }

    #[expect(clippy::result_large_err, reason = "the library's callback")]
    pub(super) async fn accept(&self) -> Side {
        let (stream, _) = soon(self.listener.accept()).await.expect("accepts");
        let mut bearer = String::new();
        let socket = accept_hdr_async(stream, |request: &Request, response: Response| {
            assert_eq!(request.uri().path(), "/node/v1/session");
            let header = request.headers().get("authorization").expect("a token");
            header.to_str().expect("text").clone_into(&mut bearer);
            Ok(response)
        });
        let socket = soon(socket).await.expect("a WebSocket");
        Side { socket, bearer }
    }

    pub(super) async fn welcome(&self, revision: u64) -> (Side, Hello) {
        let mut side = self.accept().await;
        let AgentMessage::Hello(hello) = side.message().await else {
            panic!("no hello");
        };
        let welcome = PlaneMessage::Welcome(Welcome {
            session: SessionId::generate(),
            protocol: 1,
            resume: Resume::Delta,
            revision: Revision(revision),
            report_interval_ms: 50,
            server_time: Utc::now(),
        });
        side.send(&welcome).await;
        (side, hello)
    }

    /// Answers one HTTP request with these words.
    pub(super) async fn answer(&self, status: &str, body: &str) -> String {
        let (mut stream, _) = soon(self.listener.accept()).await.expect("accepts");
        let mut request = vec![0; 16 * 1024];
        let length = soon(stream.read(&mut request)).await.expect("a request");
        let length_of_body = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length_of_body}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.expect("answers");
        String::from_utf8_lossy(&request[..length]).into_owned()
    }
}

impl Side {
    pub(super) async fn send(&mut self, message: &PlaneMessage) {
        self.text(&message.encode()).await;
    }

    pub(super) async fn text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("sends");
    }

    pub(super) async fn frame(&mut self) -> Message {
        soon(self.socket.next()).await.expect("open").expect("read")
    }

    pub(super) async fn message(&mut self) -> AgentMessage {
        match self.frame().await {
            Message::Text(text) => AgentMessage::decode(&text).expect("decodes"),
            other => panic!("no text: {other:?}"),
        }
    }

    /// The next acknowledgement; reports pass by.
    pub(super) async fn applied(&mut self) -> Applied {
        loop {
            if let Message::Text(text) = self.frame().await
                && let AgentMessage::Applied(applied) =
                    AgentMessage::decode(&text).expect("decodes")
            {
                return applied;
            }
        }
    }

    pub(super) async fn until<T>(&mut self, pick: impl Fn(&AgentMessage) -> Option<T>) -> T {
        loop {
            if let Message::Text(text) = self.frame().await
                && let Some(found) = pick(&AgentMessage::decode(&text).expect("decodes"))
            {
                return found;
            }
        }
    }

    pub(super) async fn counters(&mut self) -> CountersFrame {
        loop {
            if let Message::Binary(frame) = self.frame().await {
                return CountersFrame::decode(&frame).expect("decodes");
            }
        }
    }

    /// The code with which the agent closes.
    pub(super) async fn closed(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.frame().await {
                return frame.expect("a reason").code.into();
            }
        }
    }

    pub(super) async fn close(mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        self.socket.close(Some(frame)).await.expect("closes");
    }
}

/// An agent without a kernel: node, link, and a directory that outlives both.
pub(super) struct Agent {
    pub(super) node: NodeHandle,
    pub(super) status: watch::Receiver<LinkStatus>,
    pub(super) stop: CancellationToken,
    pub(super) link: JoinHandle<()>,
    pub(super) task: JoinHandle<Result<(), NodeError>>,
}

pub(super) fn identity() -> Identity {
    Identity {
        server_id: ServerId::generate(),
        token: NodeToken {
            token: "first".into(),
            expires_at: Utc::now() + TimeDelta::hours(24),
        },
        received_at: Utc::now(),
    }
}

pub(super) fn link_config(plane: &Plane) -> LinkConfig {
    LinkConfig {
        plane: plane.url(),
        tls: Arc::new(tls(None).expect("TLS")),
        endpoint: "vpn.example.com:51820".into(),
        subnet: "10.8.0.0/24".parse().expect("net"),
        subnet_v6: None,
        boot_id: Uuid::from_u128(1),
        silence: Duration::from_secs(15),
        backoff: Backoff::default(),
    }
}

impl Agent {
    pub(super) async fn start(directory: &TempDir, device: &FakeDevice, plane: &Plane) -> Self {
        Self::start_with(directory, device, link_config(plane), identity()).await
    }

    pub(super) async fn start_with(
        directory: &TempDir,
        device: &FakeDevice,
        config: LinkConfig,
        identity: Identity,
    ) -> Self {
        let (ledger, stored) = Ledger::open(directory.path()).expect("ledger");
        let pool = Pool::new(config.subnet, config.subnet_v6, TimeDelta::seconds(120));
        let pool = pool.expect("pool");
        let node = NodeConfig {
            setup: InterfaceSetup {
                private_key: ledger::private_key(directory.path()).expect("key"),
                listen_port: 51820,
                addresses: pool.node_addresses(),
                mtu: 1420,
            },
            pool,
            boot_id: config.boot_id,
            reconcile_every: Duration::from_secs(3600),
            limits: Arc::new(FakeTable::new()),
        };
        let node = Node::start(ledger, stored, Arc::new(device.clone()), node).await;
        let (handle, commands) = NodeHandle::new();
        let task = tokio::spawn(node.expect("starts").run(commands));
        let sampler = LoadSampler::new(Some("lo".into()), None, Instant::now());
        let (link, status) = Link::new(config, identity, handle.clone(), sampler);
        let stop = CancellationToken::new();
        let link = tokio::spawn(link.run(stop.clone()));
        Self {
            node: handle,
            status,
            stop,
            link,
            task,
        }
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        soon(self.link).await.expect("ends");
        self.node.stop().await.expect("runs");
        soon(self.task).await.expect("ends").expect("no error");
    }

    pub(super) async fn until(&mut self, is: impl FnMut(&LinkStatus) -> bool) -> LinkStatus {
        soon(self.status.wait_for(is)).await.expect("runs").clone()
    }
}

pub(super) fn world() -> (TempDir, FakeDevice) {
    (tempfile::tempdir().expect("directory"), FakeDevice::new())
}

pub(super) fn peer(id: u64) -> Peer {
    Peer {
        peer: PeerId(id),
        connection: ConnectionId::generate(),
        public_key: PrivateKey::generate().public_key(),
        preshared_key: None,
        addresses: None,
        not_after: None,
        limits: Limits::default(),
    }
}

pub(super) fn upserts(from: u64, to: u64, peers: &[Peer]) -> PlaneMessage {
    PlaneMessage::Apply(Apply {
        from: Revision(from),
        to: Revision(to),
        changes: peers.iter().cloned().map(Change::Upsert).collect(),
    })
}

pub(super) fn removal(from: u64, to: u64, peer: u64) -> PlaneMessage {
    PlaneMessage::Apply(Apply {
        from: Revision(from),
        to: Revision(to),
        changes: vec![Change::Remove { peer: PeerId(peer) }],
    })
}
