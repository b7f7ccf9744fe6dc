//! Limits through the agent's own node: real WireGuard, real nftables, a stock client, and the plane's
//! messages given to the node by hand.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use nix::sched::{CloneFlags, setns};
use node_agent::firewall::{Firewall, FirewallSetup, Keeper, Memory};
use node_agent::ipam::Pool;
use node_agent::ledger::{self, Ledger};
use node_agent::limits::NftTable;
use node_agent::reconcile::{Desired, Node, NodeConfig, NodeHandle, NodeStatus, Outgoing};
use node_agent::wireguard::{self, InterfaceName, InterfaceSetup};
use serde_json::Value;
use shared::ids::{ConnectionId, PeerId, Revision};
use shared::protocol::{Addresses, AgentMessage, Apply, Change, Limits, Outcome, Peer};
use shared::wireguard::{PrivateKey, PublicKey};
use tests::lab::{Backend, WgClient, World, require_root};
use tests::wait_until;
use tokio::sync::{mpsc, oneshot};

const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 51820;

/// The agent's node on a thread in the node's namespace.
struct Agent {
    node: NodeHandle,
    answers: mpsc::Receiver<Outgoing>,
    public_key: PublicKey,
    thread: JoinHandle<()>,
}

impl Agent {
    async fn start(world: &World, folder: &Path, backend: Backend) -> Self {
        let (namespace, interface) = (world.node(), world.interface("n"));
        let folder = folder.join("state");
        let (ready, started) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let space = File::open(format!("/run/netns/{namespace}")).expect("a namespace");
            setns(space, CloneFlags::CLONE_NEWNET).expect("entered");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.expect("a runtime");
            runtime.block_on(run(&folder, &interface, backend, ready));
        });
        let node: NodeHandle = started.await.expect("the node starts");
        let (outbox, answers) = mpsc::channel(64);
        let standing = node.attach(outbox).await.expect("runs");
        Self {
            node,
            answers,
            public_key: standing.public_key,
            thread,
        }
    }

    async fn stop(self) {
        self.node.stop().await.expect("runs");
        self.thread.join().expect("ends without a panic");
    }

    async fn apply(&mut self, revision: u64, peer: &Peer) -> Addresses {
        let apply = Apply {
            from: Revision(revision - 1),
            to: Revision(revision),
            changes: vec![Change::Upsert(peer.clone())],
        };
        let sent = self.node.desired(Desired::Apply(apply), Instant::now());
        sent.await.expect("runs");
        loop {
            match self.answers.recv().await.expect("runs") {
                Outgoing::Message(AgentMessage::Applied(applied)) => {
                    match &applied.results[0].outcome {
                        Outcome::Active { addresses } => return *addresses,
                        other => panic!("not active: {other:?}"),
                    }
                }
                other => drop(other),
            }
        }
    }

    /// What the plane is told that the peer has used, once that is more than `more`.
    async fn consumed(&mut self, more: u64) -> u64 {
        let begin = Instant::now();
        let mut last = 0;
        while begin.elapsed() < SOON {
            self.node.report().await.expect("runs");
            if let Some(Outgoing::Report(report)) = self.answers.recv().await {
                let told = report.counters.iter().flat_map(|frame| &frame.consumed);
                last = told.map(|(_, bytes)| *bytes).fold(last, u64::max);
            }
            if last > more {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{last} consumed, not more than {more}");
    }

    async fn status(&self) -> NodeStatus {
        self.node.status().await.expect("runs")
    }
}

async fn run(folder: &Path, interface: &str, backend: Backend, ready: oneshot::Sender<NodeHandle>) {
    let interface: InterfaceName = interface.parse().expect("a name");
    let pool = Pool::new(
        "10.77.0.0/16".parse().expect("v4"),
        Some("fd77::/112".parse().expect("v6")),
        TimeDelta::seconds(120),
    );
    let pool = pool.expect("a pool");
    let rules = FirewallSetup {
        addresses: pool.node_addresses(),
        resolvers: Vec::new(),
        allow: World::INTERNET_RANGES
            .split(',')
            .map(|range| range.parse().expect("a range"))
            .collect(),
        ..FirewallSetup::default()
    };
    let firewall = Firewall::new(interface.clone());
    let firewall = Keeper::start(firewall, rules, Memory::default());
    let _firewall = firewall.await.expect("isolation");
    let backend = match backend {
        Backend::Kernel => wireguard::Backend::Kernel,
        Backend::Userspace => wireguard::Backend::Userspace,
    };
    let device = wireguard::open(backend, interface.clone(), PathBuf::from("wireguard-go"));
    let (ledger, stored) = Ledger::open(folder).expect("a ledger");
    let config = NodeConfig {
        setup: InterfaceSetup {
            private_key: ledger::private_key(folder).expect("a key"),
            listen_port: PORT,
            addresses: pool.node_addresses(),
            mtu: 1420,
        },
        pool,
        boot_id: uuid::Uuid::nil(),
        reconcile_every: Duration::from_secs(10),
        limits: Arc::new(NftTable::new(interface)),
    };
    let node = Node::start(ledger, stored, device.await.expect("WireGuard"), config).await;
    let (handle, commands) = NodeHandle::new();
    assert!(ready.send(handle).is_ok(), "somebody waits");
    let ended = node.expect("starts").run(commands).await;
    ended.expect("ends without an error");
}

/// A child that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn inside(namespace: &str, line: &str) -> Command {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", namespace])
        .args(line.split_ascii_whitespace())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// A transfer from the client to the internet, or back.
async fn transfer(world: &World, port: u16, seconds: u32, back: bool) -> (Running, Running) {
    let server = format!("iperf3 -s -1 -p {port}");
    let server = inside(&world.internet(), &server).spawn();
    let server = Running(server.expect("iperf3 runs"));
    wait_until("iperf3 listens", SOON, async || {
        let output = inside(&world.internet(), "ss -Hltn").output();
        let output = output.expect("ss runs").stdout;
        String::from_utf8_lossy(&output).contains(&format!(":{port} "))
    })
    .await;
    let (target, way) = (World::INTERNET, if back { "-R" } else { "" });
    let line = format!("iperf3 -J -c {target} -p {port} -t {seconds} {way}");
    let client = inside(&world.client(), &line).spawn();
    (Running(client.expect("iperf3 runs")), server)
}

/// Megabits a second that arrived, once the transfer is over.
async fn megabits((mut client, server): (Running, Running)) -> f64 {
    let read = tokio::task::spawn_blocking(move || {
        let mut report = String::new();
        let mut output = client.0.stdout.take().expect("piped");
        output.read_to_string(&mut report).expect("text");
        drop(server);
        report
    });
    let report = read.await.expect("read");
    let parsed: Value = serde_json::from_str(&report).expect("JSON");
    let rate = parsed.pointer("/end/sum_received/bits_per_second");
    let rate = rate.and_then(Value::as_f64);
    rate.unwrap_or_else(|| panic!("no rate in {report}")) / 1e6
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_and_a_quota_hold_through_the_tunnel_and_change_live() {
    require_root();
    let (world, backend) = (World::new(), Backend::detect());
    let folder = tempfile::tempdir().expect("a folder");
    let client = WgClient::new(&world, folder.path(), backend).await;
    let mut agent = Agent::start(&world, folder.path(), backend).await;
    let key = PrivateKey::generate();
    let ten = Limits {
        download_bps: Some(10_000_000),
        upload_bps: Some(10_000_000),
        allowance: Some(1_000_000_000),
    };
    let mut peer = Peer {
        peer: PeerId(1),
        connection: ConnectionId::generate(),
        public_key: key.public_key(),
        preshared_key: None,
        addresses: None,
        not_after: None,
        limits: ten,
    };
    let given = agent.apply(1, &peer).await;
    client.configure(&format!(
        "[Interface]\nPrivateKey = {}\nAddress = {}/32, {}/128\n[Peer]\nPublicKey = {}\n\
         Endpoint = {}:{PORT}\nAllowedIPs = 0.0.0.0/0, ::/0\n",
        key.expose_base64().as_str(),
        given.v4,
        given.v6.expect("dual stack"),
        agent.public_key,
        World::NODE,
    ));
    let internet = World::INTERNET.to_string();
    assert!(client.pings(&internet, Duration::from_secs(5)));
    for (port, back) in [(5201, false), (5202, true)] {
        let measured = megabits(transfer(&world, port, 12, back).await).await;
        println!("back {back}: {measured} Mbit/s");
        assert!((9.0..=10.5).contains(&measured), "{measured} Mbit/s");
    }

    // Without rates, and with 20 MB more: they pass, and nothing after them.
    let used = agent.consumed(20_000_000).await;
    let end = used + 20_000_000;
    peer.limits = Limits {
        allowance: Some(end),
        ..Limits::default()
    };
    assert_eq!(agent.apply(2, &peer).await, given);
    let endless = transfer(&world, 5203, 60, false).await;
    assert_eq!(agent.consumed(end - 1).await, end, "to the byte");
    drop(endless);
    let second = Duration::from_secs(1);
    assert!(!client.pings(&internet, second), "beyond the quota");
    let operations = agent.status().await.operations;
    assert_eq!((operations.added, operations.updated), (1, 0));

    // A restarted agent finds the table as it was.
    agent.stop().await;
    assert!(!client.pings(&internet, second), "without the agent");
    let mut agent = Agent::start(&world, folder.path(), backend).await;
    assert_eq!(agent.consumed(end - 1).await, end);
    let status = agent.status().await;
    assert_eq!((status.operations.added, status.limited), (0, 1));
    assert!(!client.pings(&internet, second), "after the restart");
    peer.limits.allowance = Some(end + 1_000_000);
    agent.apply(3, &peer).await;
    assert!(client.pings(&internet, Duration::from_secs(5)));
    let now = agent.consumed(end).await;
    assert!(
        now < end + 100_000,
        "what was dropped is not counted: {now}"
    );
    agent.stop().await;
}
