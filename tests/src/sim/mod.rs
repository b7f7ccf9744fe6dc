//! A node without a kernel: it speaks the session protocol and holds its peers in memory.
//!
//! [`peers`] is the pure half: what an agent shall hold after each message. [`session`] is the
//! shell: one task that dials, answers and reports, and that misbehaves as a test tells it to. Built
//! on `shared` alone, so that it can prove neither daemon's mistakes right.

mod peers;
mod session;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use reqwest::StatusCode;
use shared::ids::{ConnectionId, PeerId, ServerId};
use shared::protocol::enrolment::{EnrolRequest, EnrolResponse};
use shared::protocol::{
    AgentMessage, ENROL_PATH, FailureReason, Load, NextKey, NodeToken, PROTOCOL_VERSION, Refused,
    Settings, Welcome,
};
use shared::wireguard::{PrivateKey, PublicKey};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::wait_until;
use peers::Peers;
pub use peers::SimPeer;
pub use tokio_tungstenite::tungstenite::Message;

/// What a simulated node claims to be.
#[derive(Debug, Clone)]
pub struct SimConfig {
    pub hostname: String,
    pub endpoint: String,
    pub public_key: PublicKey,
    pub subnet: Ipv4Net,
    pub subnet_v6: Option<Ipv6Net>,
    pub capacity: u32,
    pub protocol: u16,
    pub min_protocol: u16,
    pub draining: bool,
}

impl SimConfig {
    /// A dual-stack node of room for thousands, on an address that no packet is sent to.
    #[must_use]
    pub fn named(hostname: &str) -> Self {
        Self {
            hostname: hostname.to_owned(),
            endpoint: "192.0.2.1:51820".to_owned(),
            public_key: PrivateKey::generate().public_key(),
            subnet: Ipv4Net::new_assert([10, 64, 0, 0].into(), 16),
            subnet_v6: Some(Ipv6Net::new_assert(
                [0xfd00, 0x64, 0, 0, 0, 0, 0, 0].into(),
                64,
            )),
            capacity: 60_000,
            protocol: PROTOCOL_VERSION,
            min_protocol: 1,
            draining: false,
        }
    }
}

/// How the node treats changes that the plane pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answer {
    #[default]
    Promptly,
    /// Applies and says so only after this time.
    After(Duration),
    /// Applies and never says so.
    Never,
    /// Refuses new peers.
    Fail(FailureReason),
    /// Applies the next change and hangs up in place of the answer; prompt from then on.
    HangUpOnce,
}

/// What becomes of the node's counters on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reports {
    #[default]
    Once,
    /// They are not sent before this is taken back.
    Held,
    /// After each comes the one before once more.
    Repeated,
}

/// Why a node got no identity.
#[derive(Debug)]
pub struct EnrolmentRefused {
    pub status: StatusCode,
    pub body: serde_json::Value,
}

/// A node's place in its protocol session.
#[derive(Debug, Clone, Default)]
pub struct SessionView {
    /// How many sessions the plane has welcomed.
    pub welcomed: u32,
    pub online: bool,
    pub welcome: Option<Welcome>,
    pub refused: Option<Refused>,
    /// The last close code that the plane sent, and the HTTP status of the last dial that failed.
    pub close_code: Option<u16>,
    pub dial_status: Option<u16>,
    /// Changes and snapshot peers that the last session brought.
    pub changes_received: u64,
    /// What the plane wants of the node as a whole, and whose round trips.
    pub settings: Option<Settings>,
    pub watched: Vec<PeerId>,
}

/// What a test tells the running node to do.
#[derive(Debug)]
enum Command {
    Send(Message),
    /// Closes the connection; the node dials again by itself.
    HangUp,
    /// Says counters and load now, and that it did.
    Report(oneshot::Sender<()>),
    /// Answers and reads nothing any more, with the socket open.
    Freeze,
}

/// A running simulated node. It stops, without a goodbye, when the value is dropped.
#[derive(Debug)]
pub struct SimNode {
    node: Arc<Node>,
    commands: mpsc::Sender<Command>,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Node {
    plane: String,
    server: ServerId,
    config: SimConfig,
    boot: Uuid,
    token: Mutex<NodeToken>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    peers: Peers,
    session: SessionView,
    answer: Answer,
    reports: Reports,
    last_frame: Option<Vec<u8>>,
    load: Load,
    /// Added to the round trip of the plane's pings.
    latency: Duration,
    /// Makes the next Hello claim another hash.
    forged_hash: bool,
    /// What every Hello says of the key that comes next.
    next_key: Option<NextKey>,
    redial: bool,
}

impl Node {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }
}

impl SimNode {
    /// Trades an enrolment token for an identity, and dials.
    pub async fn enrol(
        plane: &str,
        enrolment_token: &str,
        config: SimConfig,
    ) -> Result<Self, EnrolmentRefused> {
        let mut node = Self::enrol_only(plane, enrolment_token, config).await?;
        node.start();
        Ok(node)
    }

    /// Trades an enrolment token for an identity. [`SimNode::start`] dials.
    pub async fn enrol_only(
        plane: &str,
        enrolment_token: &str,
        config: SimConfig,
    ) -> Result<Self, EnrolmentRefused> {
        crate::init();
        let request = EnrolRequest {
            hostname: config.hostname.clone(),
            agent_version: "0.0.0-sim".to_owned(),
            public_key: config.public_key,
            endpoint: config.endpoint.clone(),
            subnet: config.subnet,
            subnet_v6: config.subnet_v6,
            capacity: config.capacity,
        };
        let response = reqwest::Client::new()
            .post(format!("{plane}{ENROL_PATH}"))
            .bearer_auth(enrolment_token)
            .json(&request)
            .send()
            .await
            .expect("the plane answers");
        let status = response.status();
        let body: serde_json::Value = response.json().await.expect("the plane answers JSON");
        if !status.is_success() {
            return Err(EnrolmentRefused { status, body });
        }
        let answer: EnrolResponse = serde_json::from_value(body).expect("an enrolment answer");
        Ok(Self::with_identity(
            plane,
            answer.server_id,
            answer.token,
            config,
        ))
    }

    /// A node that has its identity already, not yet dialled.
    #[must_use]
    pub fn with_identity(
        plane: &str,
        server: ServerId,
        token: NodeToken,
        config: SimConfig,
    ) -> Self {
        let state = State {
            peers: Peers::new(config.subnet, config.subnet_v6, config.capacity),
            redial: true,
            ..State::default()
        };
        let node = Node {
            plane: plane.to_owned(),
            server,
            config,
            boot: Uuid::now_v7(),
            token: Mutex::new(token),
            state: Mutex::new(state),
        };
        Self {
            node: Arc::new(node),
            commands: mpsc::channel(1).0,
            task: None,
        }
    }

    /// A second process of the same node: same identity, nothing in memory.
    #[must_use]
    pub fn twin(&self) -> Self {
        let token = self.node.token.lock().expect("no holder panics").clone();
        Self::with_identity(
            &self.node.plane,
            self.server(),
            token,
            self.node.config.clone(),
        )
    }

    /// The same node dialling another replica from now on, with all that it holds. It must not run.
    #[must_use]
    pub fn moved_to(self, plane: &str) -> Self {
        let mut node = self.twin();
        let inner = Arc::get_mut(&mut node.node).expect("nobody else holds a new node");
        inner.plane = plane.to_owned();
        std::mem::swap(
            &mut *inner.state.lock().expect("no holder panics"),
            &mut *self.node.state(),
        );
        node
    }

    /// Dials, and keeps dialling until [`SimNode::stop`].
    pub fn start(&mut self) {
        let (commands, queue) = mpsc::channel(64);
        self.commands = commands;
        self.node.state().redial = true;
        self.task = Some(tokio::spawn(session::run(self.node.clone(), queue)));
    }

    /// Ends the connection without a goodbye. What the node holds stays: [`SimNode::start`] resumes.
    pub async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
        self.node.state().session.online = false;
    }

    #[must_use]
    pub fn server(&self) -> ServerId {
        self.node.server
    }

    #[must_use]
    pub fn config(&self) -> &SimConfig {
        &self.node.config
    }

    #[must_use]
    pub fn token(&self) -> NodeToken {
        self.node.token.lock().expect("no holder panics").clone()
    }

    #[must_use]
    pub fn session(&self) -> SessionView {
        self.node.state().session.clone()
    }

    /// Every peer that the node holds, by id.
    #[must_use]
    pub fn peers(&self) -> Vec<SimPeer> {
        self.node.state().peers.all().cloned().collect()
    }

    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.node.state().peers.all().count()
    }

    /// The connections whose peers the node holds, sorted.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionId> {
        let mut ids: Vec<_> = self.peers().iter().map(|peer| peer.connection).collect();
        ids.sort_unstable();
        ids
    }

    #[must_use]
    pub fn peer_of(&self, connection: ConnectionId) -> Option<SimPeer> {
        let state = self.node.state();
        let mut peers = state.peers.all();
        peers.find(|peer| peer.connection == connection).cloned()
    }

    /// How many peers were added, changed or removed in the imagined interface.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.node.state().peers.operations()
    }

    /// How often the limits of a peer that was there were changed.
    #[must_use]
    pub fn limit_changes(&self) -> u64 {
        self.node.state().peers.limit_changes()
    }

    pub fn set_reports(&self, reports: Reports) {
        self.node.state().reports = reports;
    }

    pub fn set_answer(&self, answer: Answer) {
        self.node.state().answer = answer;
    }

    /// Lets every pong wait for this long.
    pub fn set_latency(&self, latency: Duration) {
        self.node.state().latency = latency;
    }

    /// Reports this load from now on; peers, pool and capacity are the node's real ones.
    pub async fn set_load(&self, load: Load) {
        self.node.state().load = load;
        self.report().await;
    }

    /// A client moves this many bytes more, with a handshake now; said with the next report.
    pub fn add_traffic(&self, connection: ConnectionId, sent: u64, received: u64) {
        let passed = self.pass_traffic(connection, sent, received);
        passed.expect("the node holds this connection's peer");
    }

    /// The same; says how much of it the client's allowance let through, and none where the peer is gone.
    pub fn pass_traffic(&self, connection: ConnectionId, sent: u64, received: u64) -> Option<u64> {
        let mut state = self.node.state();
        let now = session::unix_now();
        state.peers.add_traffic(connection, sent, received, now)
    }

    /// Every client of the node moves this many bytes more.
    pub fn add_traffic_everywhere(&self, sent: u64, received: u64) {
        let (mut state, now) = (self.node.state(), session::unix_now());
        state.peers.add_traffic_everywhere(sent, received, now);
    }

    /// The interface is made anew: every counter starts again in a new generation.
    pub fn reset_counters(&self) {
        self.node.state().peers.next_generation();
    }

    /// Forgets a peer behind the plane's back, as a host that lost its ledger.
    pub fn forget(&self, peer: PeerId) {
        self.node.state().peers.forget(peer);
    }

    /// Stays away once the session has ended.
    pub fn no_redial(&self) {
        self.node.state().redial = false;
    }

    /// What the node says first.
    #[must_use]
    pub fn hello(&self) -> AgentMessage {
        AgentMessage::Hello(session::hello(&self.node))
    }

    /// Says so of the key that comes next in every Hello from now on.
    pub fn set_next_key(&self, next_key: Option<NextKey>) {
        self.node.state().next_key = next_key;
    }

    /// Makes the next Hello claim a state that the plane does not know.
    pub fn forge_next_hash(&self) {
        self.node.state().forged_hash = true;
    }

    /// Says counters and load now. They are on the wire when this returns.
    pub async fn report(&self) {
        let (done, sent) = oneshot::channel();
        self.command(Command::Report(done)).await;
        sent.await.expect("the node has a session");
    }

    /// Drops the connection, and waits until the node has dialled again.
    pub async fn hang_up(&self) {
        let before = self.session().welcomed;
        self.command(Command::HangUp).await;
        wait_until("a further session", Duration::from_secs(10), async || {
            let session = self.session();
            session.welcomed > before && session.online
        })
        .await;
    }

    /// Falls silent with the socket open.
    pub async fn freeze(&self) {
        self.command(Command::Freeze).await;
    }

    /// Sends any frame, such as one that no agent would.
    pub async fn send(&self, frame: Message) {
        self.command(Command::Send(frame)).await;
    }

    async fn command(&self, command: Command) {
        self.commands
            .send(command)
            .await
            .expect("the node was started");
    }

    /// Waits until the plane has welcomed the node.
    pub async fn wait_online(&self) {
        let name = &self.node.config.hostname;
        wait_until(
            &format!("{name} gets a session"),
            Duration::from_secs(10),
            async || self.session().online,
        )
        .await;
    }
}

impl Drop for SimNode {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
