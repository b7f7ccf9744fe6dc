//! The link against a plane that the test plays.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use futures_util::{SinkExt, StreamExt};
use rstest::rstest;
use secrecy::SecretString;
use shared::ids::{ConnectionId, PeerId, Revision, ServerId, SessionId};
use shared::protocol::counters::CountersFrame;
use shared::protocol::enrolment::EnrolRequest;
use shared::protocol::{
    AgentMessage, Applied, Apply, Change, Hello, Load, MAX_FRAME_BYTES, NodeToken, Outcome, Peer,
    PlaneMessage, Resume, SnapshotPart, Welcome, close,
};
use shared::wireguard::PrivateKey;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use super::*;
use crate::ipam::Pool;
use crate::ledger::{self, Ledger};
use crate::reconcile::{Node, NodeConfig, NodeError};
use crate::wireguard::InterfaceSetup;
use crate::wireguard::fake::FakeDevice;

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what)
        .await
        .expect("in time")
}

struct Plane {
    listener: TcpListener,
    address: SocketAddr,
}

struct Side {
    socket: WebSocketStream<TcpStream>,
    bearer: String,
}

impl Plane {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        Self { listener, address }
    }

    fn url(&self) -> PlaneUrl {
        format!("http://{}", self.address).parse().expect("valid")
    }

    #[expect(clippy::result_large_err, reason = "the library's callback")]
    async fn accept(&self) -> Side {
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

    async fn welcome(&self, revision: u64) -> (Side, Hello) {
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
    async fn answer(&self, status: &str, body: &str) -> String {
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
    async fn send(&mut self, message: &PlaneMessage) {
        self.text(&message.encode()).await;
    }

    async fn text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("sends");
    }

    async fn frame(&mut self) -> Message {
        soon(self.socket.next()).await.expect("open").expect("read")
    }

    async fn message(&mut self) -> AgentMessage {
        match self.frame().await {
            Message::Text(text) => AgentMessage::decode(&text).expect("decodes"),
            other => panic!("no text: {other:?}"),
        }
    }

    /// The next acknowledgement; reports pass by.
    async fn applied(&mut self) -> Applied {
        loop {
            if let Message::Text(text) = self.frame().await
                && let AgentMessage::Applied(applied) =
                    AgentMessage::decode(&text).expect("decodes")
            {
                return applied;
            }
        }
    }

    async fn until<T>(&mut self, pick: impl Fn(&AgentMessage) -> Option<T>) -> T {
        loop {
            if let Message::Text(text) = self.frame().await
                && let Some(found) = pick(&AgentMessage::decode(&text).expect("decodes"))
            {
                return found;
            }
        }
    }

    async fn counters(&mut self) -> CountersFrame {
        loop {
            if let Message::Binary(frame) = self.frame().await {
                return CountersFrame::decode(&frame).expect("decodes");
            }
        }
    }

    /// The code with which the agent closes.
    async fn closed(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.frame().await {
                return frame.expect("a reason").code.into();
            }
        }
    }

    async fn close(mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        self.socket.close(Some(frame)).await.expect("closes");
    }
}

/// An agent without a kernel: node, link, and a directory that outlives both.
struct Agent {
    node: NodeHandle,
    status: watch::Receiver<LinkStatus>,
    stop: CancellationToken,
    link: JoinHandle<()>,
    task: JoinHandle<Result<(), NodeError>>,
}

fn identity() -> Identity {
    Identity {
        server_id: ServerId::generate(),
        token: NodeToken {
            token: "first".into(),
            expires_at: Utc::now() + TimeDelta::hours(24),
        },
        received_at: Utc::now(),
    }
}

fn link_config(plane: &Plane) -> LinkConfig {
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
    async fn start(directory: &TempDir, device: &FakeDevice, plane: &Plane) -> Self {
        Self::start_with(directory, device, link_config(plane), identity()).await
    }

    async fn start_with(
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

    async fn stop(self) {
        self.stop.cancel();
        soon(self.link).await.expect("ends");
        self.node.stop().await.expect("runs");
        soon(self.task).await.expect("ends").expect("no error");
    }

    async fn until(&mut self, is: impl FnMut(&LinkStatus) -> bool) -> LinkStatus {
        soon(self.status.wait_for(is)).await.expect("runs").clone()
    }
}

fn world() -> (TempDir, FakeDevice) {
    (tempfile::tempdir().expect("directory"), FakeDevice::new())
}

fn peer(id: u64) -> Peer {
    Peer {
        peer: PeerId(id),
        connection: ConnectionId::generate(),
        public_key: PrivateKey::generate().public_key(),
        preshared_key: None,
        addresses: None,
        not_after: None,
    }
}

fn upserts(from: u64, to: u64, peers: &[Peer]) -> PlaneMessage {
    PlaneMessage::Apply(Apply {
        from: Revision(from),
        to: Revision(to),
        changes: peers.iter().cloned().map(Change::Upsert).collect(),
    })
}

fn removal(from: u64, to: u64, peer: u64) -> PlaneMessage {
    PlaneMessage::Apply(Apply {
        from: Revision(from),
        to: Revision(to),
        changes: vec![Change::Remove { peer: PeerId(peer) }],
    })
}

#[tokio::test]
async fn a_peer_that_the_plane_wants_is_acknowledged() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let mut agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, hello) = plane.welcome(1).await;
    assert_eq!(side.bearer, "Bearer first");
    assert_eq!((hello.protocol, hello.applied_revision), (1, Revision(0)));
    assert_eq!((hello.capacity, hello.backend.as_str()), (253, "fake"));
    side.send(&upserts(0, 1, &[peer(1)])).await;
    let applied = side.applied().await;
    assert_eq!(applied.revision, Revision(1));
    assert!(matches!(applied.results[0].outcome, Outcome::Active { .. }));
    assert!(applied.timings.total_us > 0);
    assert_eq!(device.operations().len(), 1);
    let status = agent
        .until(|it| matches!(it.state, LinkState::Connected { .. }))
        .await;
    assert_eq!(status.desired_revision, Some(Revision(1)));
    agent.stop().await;
    assert_eq!(side.closed().await, 1001);
}

#[tokio::test]
async fn a_restarted_agent_resumes_where_it_stood_without_an_operation() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, _) = plane.welcome(2).await;
    let peers = [peer(1), peer(2)];
    side.send(&upserts(0, 2, &peers)).await;
    let first = side.applied().await;
    agent.stop().await;
    let _ = device.take_operations();

    let agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, hello) = plane.welcome(2).await;
    assert_eq!(hello.applied_revision, Revision(2));
    assert_eq!(hello.state_hash, first.state_hash);
    side.send(&upserts(2, 2, &peers)).await;
    assert_eq!(side.applied().await.results, first.results);
    assert_eq!(device.take_operations(), []);
    agent.stop().await;
}

#[tokio::test]
async fn a_gap_is_closed_by_a_snapshot_in_parts() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, _) = plane.welcome(9).await;
    side.send(&upserts(7, 9, &[peer(9)])).await;
    side.until(|message| matches!(message, AgentMessage::Resync).then_some(()))
        .await;
    for (part, id) in [(0, 1), (1, 2)] {
        let part = SnapshotPart {
            revision: Revision(9),
            part,
            last: part == 1,
            peers: vec![peer(id)],
        };
        side.send(&PlaneMessage::Snapshot(part)).await;
    }
    let applied = side.applied().await;
    assert_eq!((applied.revision, applied.results.len()), (Revision(9), 2));
    agent.stop().await;
}

#[tokio::test]
async fn counters_and_load_are_reported_and_repeated_in_a_new_session() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, _) = plane.welcome(2).await;
    let peers = [peer(1), peer(2)];
    side.send(&upserts(0, 2, &peers)).await;
    side.applied().await;
    device.transfer(&peers[1].public_key, 10, 20);
    let frame = side.counters().await;
    assert_eq!(frame.entries.len(), 1);
    let (id, counters) = frame.entries[0];
    assert_eq!((id, counters.sent, counters.received), (PeerId(2), 10, 20));
    let load: Load = side
        .until(|message| match message {
            AgentMessage::Load(load) => Some(load.clone()),
            _ => None,
        })
        .await;
    assert_eq!((load.peers, load.pool_used, load.capacity), (2, 2, 253));
    side.close(close::RESTARTING).await;
    let (mut side, _) = plane.welcome(2).await;
    assert_eq!(side.counters().await.entries, frame.entries);
    agent.stop().await;
}

#[tokio::test]
async fn the_last_counters_leave_before_the_agent_does() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, _) = plane.welcome(1).await;
    let one = peer(1);
    side.send(&upserts(0, 1, std::slice::from_ref(&one))).await;
    side.applied().await;
    device.transfer(&one.public_key, 77, 88);
    agent.stop().await;
    assert_eq!(side.counters().await.entries[0].1.sent, 77);
    assert!(device.setup().is_some(), "the interface stays");
}

#[tokio::test]
async fn final_counters_come_with_the_removal() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, _) = plane.welcome(1).await;
    let one = peer(1);
    side.send(&upserts(0, 1, std::slice::from_ref(&one))).await;
    side.applied().await;
    device.transfer(&one.public_key, 77, 88);
    side.send(&removal(1, 2, 1)).await;
    let Outcome::Removed {
        counters: Some(last),
    } = side.applied().await.results[0].outcome
    else {
        panic!("no counters");
    };
    assert_eq!((last.sent, last.received), (77, 88));
    agent.stop().await;
}

#[rstest]
#[case::not_json("hello".to_owned())]
#[case::empty(String::new())]
#[case::wrong_type(r#"{"type":"apply","from":"x"}"#.to_owned())]
#[case::oversized(format!(r#"{{"type":"later","pad":"{}"}}"#, "x".repeat(MAX_FRAME_BYTES)))]
#[case::out_of_order(r#"{"type":"snapshot","revision":1,"part":3,"last":true,"peers":[]}"#.to_owned())]
#[tokio::test]
async fn garbage_ends_the_session_and_not_the_agent(#[case] garbage: String) {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let mut agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, _) = plane.welcome(0).await;
    side.text(&garbage).await;
    assert_eq!(side.closed().await, close::BAD_FRAME);
    let status = agent.until(|it| it.last_error.is_some()).await;
    assert!(status.last_error.expect("set").contains("not the protocol"));
    let (mut side, _) = plane.welcome(1).await;
    side.send(&upserts(0, 1, &[peer(1)])).await;
    side.applied().await;
    agent.stop().await;
}

#[tokio::test]
async fn nothing_is_taken_before_the_welcome_and_later_messages_are_ignored() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let agent = Agent::start(&directory, &device, &plane).await;
    let mut side = plane.accept().await;
    side.text(r#"{"type":"of_a_later_version","x":1}"#).await;
    side.socket
        .send(Message::binary(vec![9]))
        .await
        .expect("sends");
    side.send(&upserts(0, 1, &[peer(1)])).await;
    assert_eq!(side.closed().await, close::BAD_FRAME);
    assert_eq!(device.operations(), []);
    agent.stop().await;
}

#[tokio::test]
async fn a_silent_plane_is_left_and_a_pinging_one_is_not() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let config = LinkConfig {
        silence: Duration::from_millis(300),
        ..link_config(&plane)
    };
    let agent = Agent::start_with(&directory, &device, config, identity()).await;
    let (mut side, _) = plane.welcome(0).await;
    let begin = Instant::now();
    let mut pongs = 0;
    while begin.elapsed() < Duration::from_millis(900) {
        side.socket
            .send(Message::Ping("x".into()))
            .await
            .expect("sends");
        while !matches!(side.frame().await, Message::Pong(_)) {}
        pongs += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(pongs > 3);
    assert_eq!(side.closed().await, close::TIMED_OUT);
    let (_side, _) = plane.welcome(0).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_refused_token_is_told_to_the_operator() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let mut agent = Agent::start(&directory, &device, &plane).await;
    plane.answer("401 Unauthorized", "").await;
    let status = agent.until(|it| it.last_error.is_some()).await;
    let told = status.last_error.expect("set");
    assert!(told.contains("node-agent enroll"), "{told}");
    agent.stop().await;
}

#[tokio::test]
async fn an_old_token_is_renewed_kept_and_used() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let old = Identity {
        received_at: Utc::now() - TimeDelta::hours(50),
        ..identity()
    };
    let agent = Agent::start_with(&directory, &device, link_config(&plane), old).await;
    let (mut side, _) = plane.welcome(0).await;
    side.until(|message| matches!(message, AgentMessage::RenewToken).then_some(()))
        .await;
    let token = NodeToken {
        token: "second".into(),
        expires_at: Utc::now() + TimeDelta::hours(24),
    };
    side.send(&PlaneMessage::Token(token.clone())).await;
    side.send(&upserts(0, 0, &[])).await;
    side.applied().await;
    side.close(close::RESTARTING).await;
    let (side, _) = plane.welcome(0).await;
    assert_eq!(side.bearer, "Bearer second");
    agent.stop().await;
    let (_ledger, stored) = Ledger::open(directory.path()).expect("ledger");
    assert_eq!(stored.identity.expect("kept").token, token);
}

fn request() -> EnrolRequest {
    EnrolRequest {
        hostname: "vpn1".into(),
        agent_version: "0.1.0".into(),
        public_key: PrivateKey::generate().public_key(),
        endpoint: "vpn.example.com:51820".into(),
        subnet: "10.8.0.0/16".parse().expect("net"),
        subnet_v6: None,
        capacity: 65_533,
    }
}

#[tokio::test]
async fn enrolment_sends_the_token_and_reads_the_identity() {
    let plane = Plane::new().await;
    let server_id = ServerId::generate();
    let body = format!(
        r#"{{"server_id":"{server_id}","token":"node","expires_at":"2030-01-01T00:00:00Z"}}"#
    );
    let (url, token, request) = (plane.url(), SecretString::from("single-use"), request());
    let enrolled = enrol(&url, tls(None).expect("TLS"), &token, &request);
    let (enrolled, seen) = tokio::join!(enrolled, plane.answer("201 Created", &body));
    let enrolled = enrolled.expect("enrolled");
    assert_eq!(
        (enrolled.server_id, enrolled.token.token.as_str()),
        (server_id, "node")
    );
    assert!(seen.starts_with("POST /node/v1/enrol"), "{seen}");
    assert!(seen.contains("authorization: Bearer single-use"), "{seen}");
}

#[rstest]
#[case::refused(
    "401 Unauthorized",
    r#"{"error":{"code":"ENROLMENT_TOKEN_EXPIRED","message":"This token has expired.","details":[{"field":"hostname","message":"bound to vpn2"}],"request_id":"req_1"}}"#,
    &["This token has expired.", "ENROLMENT_TOKEN_EXPIRED", "hostname: bound to vpn2"],
)]
#[case::another_site("200 OK", "<html>", &["PLANE_URL", "200"])]
#[case::proxy("502 Bad Gateway", "<html>", &["PLANE_URL", "502"])]
#[tokio::test]
async fn a_refused_enrolment_says_why(
    #[case] status: &str,
    #[case] body: &str,
    #[case] words: &[&str],
) {
    let plane = Plane::new().await;
    let (url, token, request) = (plane.url(), SecretString::from("single-use"), request());
    let refused = enrol(&url, tls(None).expect("TLS"), &token, &request);
    let (refused, _) = tokio::join!(refused, plane.answer(status, body));
    let text = refused.expect_err("refused").to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert!(!text.contains("single-use"));
}

#[tokio::test]
async fn an_unreachable_plane_is_named() {
    let plane = Plane::new().await;
    let url = plane.url();
    drop(plane);
    let refused = enrol(
        &url,
        tls(None).expect("TLS"),
        &SecretString::from("t"),
        &request(),
    )
    .await;
    let text = refused.expect_err("nobody there").to_string();
    assert!(
        text.contains(&url.to_string()) && text.contains("refused"),
        "{text}"
    );
}
