//! The agent at production size against `wireguard.ko`: each row has the comparison run beside it, on
//! an interface of the same peers, in turn with it. `scripts/bench node` builds, and runs this natively
//! or in the virtual machine. Needs root and a network namespace of its own.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use chrono::TimeDelta;
use clap::Parser;
use node_agent::ipam::Pool;
use node_agent::ledger::{self, Ledger};
use node_agent::limits::NftTable;
use node_agent::reconcile::{Node, NodeConfig, NodeHandle, Outgoing};
use node_agent::wireguard::{self, Backend, Device, InterfaceSetup};
use shared::ids::Revision;
use shared::protocol::{Apply, Change, Outcome, Peer, PlaneMessage, Resume, Timings};
use tests::bench::node::{
    Moving, NodeProcess, Plane, RawSocket, SUBNET, SUBNET_V6, Session, configuration, output, peer,
    snapshot, timed,
};
use tests::bench::{Goal, Report, Row, Samples, count, milliseconds};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// The agent's interface, and that of the comparison.
const OURS: &str = "wgagent";
const THEIRS: &str = "wgplain";

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Parser)]
#[command(about = "Measures the node agent beside wg, ip and a bare netlink socket")]
struct Arguments {
    /// How many peers
    #[arg(long, default_value_t = 10_000)]
    peers: u64,
    /// How often what takes seconds is measured
    #[arg(long, default_value_t = 3)]
    syncs: usize,
    /// How often what takes milliseconds is measured
    #[arg(long, default_value_t = 15)]
    samples: usize,
    /// Leave out the plain deletion of an interface, which takes minutes
    #[arg(long)]
    no_plain_deletion: bool,
    #[command(flatten)]
    report: Report,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let mut bench = Bench::set_up(arguments, folder.path()).await?;
    let mut rows = bench.first_sync().await?;
    rows.extend(bench.memory("after the first sync").await?);
    rows.extend(bench.additions().await?);
    rows.extend(bench.restart().await?);
    rows.extend(bench.stats_cycle().await?);
    rows.extend(bench.teardown()?);
    bench.arguments.report.end("node", &rows)
}

struct Bench {
    arguments: Arguments,
    plane: Plane,
    agent: NodeProcess,
    session: Session,
    peers: Vec<Peer>,
    /// What `wg` makes of the same peers.
    file: PathBuf,
    revision: u64,
}

impl Bench {
    async fn set_up(arguments: Arguments, folder: &Path) -> anyhow::Result<Self> {
        let peers: Vec<_> = (1..=arguments.peers).map(peer).collect();
        let file = folder.join("wg.conf");
        std::fs::write(&file, configuration(&peers, 51821))?;
        let plane = Plane::listen().await?;
        let mut agent = NodeProcess::enrolled(folder, OURS, plane.url()?)?;
        agent.start()?;
        let session = plane.accept(Resume::Snapshot).await?;
        Ok(Self {
            arguments,
            plane,
            agent,
            session,
            peers,
            file,
            revision: 0,
        })
    }

    /// Both interfaces empty, then full. The last round leaves them full.
    async fn first_sync(&mut self) -> anyhow::Result<Vec<Row>> {
        let (mut ours, mut theirs) = (Samples::default(), Samples::default());
        let (mut ledger, mut interface) = (Samples::default(), Samples::default());
        for round in 0..self.arguments.syncs {
            if round > 0 {
                self.empty(round).await?;
            }
            self.revision += 1;
            let parts = snapshot(self.revision, &self.peers);
            let (took, timings) = self.session.sync(&parts, self.peers.len()).await?;
            ours.push(took);
            ledger.push(Duration::from_micros(timings.ledger_us));
            interface.push(Duration::from_micros(timings.interface_us));
            timed(&format!("ip link add {THEIRS} type wireguard"))?;
            timed(&format!("ip link set {THEIRS} up"))?;
            theirs.push(timed(&format!(
                "wg setconf {THEIRS} {}",
                self.file.display()
            ))?);
        }
        let mut rows = beside("first sync", "wg setconf", &ours, &theirs, 1.0);
        rows.push(median("first sync: of that the ledger", &ledger));
        rows.push(median("first sync: of that the interface", &interface));
        Ok(rows)
    }

    /// The agent forgets everything and starts again; the other interface goes, its peers first.
    async fn empty(&mut self, round: usize) -> anyhow::Result<()> {
        self.agent.stop()?;
        self.agent.teardown()?;
        let folder = self.agent.state().with_file_name(format!("round-{round}"));
        std::fs::create_dir(&folder)?;
        self.agent = NodeProcess::enrolled(&folder, OURS, self.plane.url()?)?;
        self.agent.start()?;
        self.session = self.plane.accept(Resume::Snapshot).await?;
        self.revision = 0;
        open(THEIRS).await?.teardown().await?;
        Ok(())
    }

    async fn memory(&self, when: &str) -> anyhow::Result<Vec<Row>> {
        // A few reports go by, so that what they need is part of it.
        sleep(Duration::from_secs(4)).await;
        let (resident, own) = self.agent.memory()?;
        Ok(vec![
            Row::new(format!("resident memory {when}"), resident, "MB").goal(Goal::AtMost(40.0)),
            Row::new(format!("resident memory {when}, without files"), own, "MB"),
        ])
    }

    /// One peer more, by the agent and by a bare socket in turn.
    async fn additions(&mut self) -> anyhow::Result<Vec<Row>> {
        let raw = RawSocket::open()?;
        let (mut bare, mut in_kernel, mut answered) = three();
        let (mut ledger, mut interface, mut disk) = three();
        let number = self.arguments.peers;
        let hosts = u32::try_from(number)? + 2..;
        for (added, host) in (number + 1..=number + 50).zip(hosts) {
            bare.push(raw.add(THEIRS, &peer(added), host)?);
            let (timings, took) = self.add(peer(added)).await?;
            answered.push(took);
            let Timings {
                total_us, disk_us, ..
            } = timings;
            in_kernel.push(Duration::from_micros(total_us.saturating_sub(disk_us)));
            ledger.push(Duration::from_micros(
                timings.ledger_us.saturating_sub(disk_us),
            ));
            interface.push(Duration::from_micros(timings.interface_us));
            disk.push(Duration::from_micros(disk_us));
        }
        // The answer waits for the disk, the peer in the kernel does not.
        let name = "add one peer, from message to kernel";
        let mut rows = beside(name, "raw netlink", &in_kernel, &bare, 1.5);
        rows.push(median("add one peer: of that writing the ledger", &ledger));
        rows.push(median("add one peer: of that the interface", &interface));
        rows.push(median("add one peer: then the ledger's disk", &disk));
        rows.push(median("add one peer: answered to the plane", &answered));
        Ok(rows)
    }

    async fn add(&mut self, peer: Peer) -> anyhow::Result<(Timings, Duration)> {
        let message = PlaneMessage::Apply(Apply {
            from: Revision(self.revision),
            to: Revision(self.revision + 1),
            changes: vec![Change::Upsert(peer)],
        });
        self.revision += 1;
        let message = message.encode();
        let began = Instant::now();
        self.session.say(message).await?;
        let applied = self.session.applied().await?;
        let took = began.elapsed();
        let is_active = |it: &Outcome| matches!(it, Outcome::Active { .. });
        ensure!(
            applied.results.iter().all(|it| is_active(&it.outcome)),
            "not added: {:?}",
            applied.results
        );
        Ok((applied.timings, took))
    }

    /// The agent, from its program's start until it serves, beside `wg syncconf` of what its interface
    /// has.
    async fn restart(&mut self) -> anyhow::Result<Vec<Row>> {
        let text = output(&format!("wg showconf {OURS}"))?;
        let file = self.file.with_extension("same");
        // A port is the host's: the other interface keeps its own.
        std::fs::write(&file, text.replace("51820", "51821"))?;
        let sync = format!("wg syncconf {THEIRS} {}", file.display());
        timed(&sync)?;
        let (mut ours, mut theirs, mut bare) = three();
        for _ in 0..self.arguments.samples {
            theirs.push(timed(&sync)?);
            self.agent.stop()?;
            bare.push(self.agent.bare_start()?);
            ours.push(self.agent.start()?);
        }
        self.session = self.plane.accept(Resume::Delta).await?;
        ensure!(
            self.session.hello.applied_revision == Revision(self.revision),
            "the agent forgot where it stood"
        );
        let operations = u32::try_from(self.agent.operations()?)?;
        let mut rows = beside("agent restart", "wg syncconf", &ours, &theirs, 0.5);
        rows.push(median("agent restart: of that starting a program", &bare));
        rows.push(
            Row::new("agent restart, peer operations", f64::from(operations), "")
                .goal(Goal::AtMost(0.0)),
        );
        rows.extend(self.memory("after a restart").await?);
        Ok(rows)
    }

    /// Reading, booking and framing every peer's counters, through the node as it runs in the agent.
    async fn stats_cycle(&mut self) -> anyhow::Result<Vec<Row>> {
        self.agent.stop()?;
        let state = self.agent.state();
        let (ledger, stored) = Ledger::open(&state)?;
        let pool = Pool::new(SUBNET.parse()?, Some(SUBNET_V6.parse()?), TimeDelta::zero())?;
        let config = NodeConfig {
            setup: InterfaceSetup {
                private_key: ledger::private_key(&state)?,
                listen_port: 51820,
                addresses: pool.node_addresses(),
                mtu: 1420,
            },
            pool,
            boot_id: Uuid::now_v7(),
            reconcile_every: Duration::from_secs(3600),
            limits: Arc::new(NftTable::new(OURS.parse()?)),
        };
        let device = Arc::new(Moving::new(open(OURS).await?));
        let node = Node::start(ledger, stored, device, config).await?;
        let (handle, commands) = NodeHandle::new();
        let node = tokio::spawn(node.run(commands));
        let (outbox, mut answers) = mpsc::channel(64);
        handle.attach(outbox).await?;

        let dump = format!("wg show {OURS} dump");
        let (mut ours, mut theirs) = (Samples::default(), Samples::default());
        let (mut bytes, mut entries) = (0, 0);
        for _ in 0..self.arguments.samples {
            theirs.push(timed(&dump)?);
            let began = Instant::now();
            handle.report().await?;
            let answer = timeout(PATIENCE, answers.recv()).await?;
            let Some(Outgoing::Report(report)) = answer else {
                anyhow::bail!("no report: {answer:?}");
            };
            let frames: Vec<_> = report.counters.iter().map(|it| it.encode()).collect();
            ours.push(began.elapsed());
            bytes = frames.iter().map(Vec::len).sum();
            entries = report.counters.iter().map(|it| it.entries.len()).sum();
            ensure!(entries >= self.peers.len(), "{entries} peers moved");
        }
        handle.stop().await?;
        node.await??;
        let mut rows = beside("one stats cycle", "wg show dump", &ours, &theirs, 0.3);
        rows.push(
            Row::new(
                "counters frame, bytes a changed peer",
                count(bytes) / count(entries),
                "B",
            )
            .goal(Goal::AtMost(16.0)),
        );
        Ok(rows)
    }

    fn teardown(&mut self) -> anyhow::Result<Vec<Row>> {
        let ours = self.agent.teardown()?;
        let mut rows = vec![Row::new("teardown", milliseconds(ours), "ms")];
        if !self.arguments.no_plain_deletion {
            let theirs = timed(&format!("ip link del {THEIRS}"))?;
            let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
            rows.push(Row::new(
                "teardown: ip link del",
                milliseconds(theirs),
                "ms",
            ));
            rows.push(Row::new("teardown / ip link del", ratio, "x").goal(Goal::AtMost(0.1)));
        }
        Ok(rows)
    }
}

async fn open(interface: &str) -> anyhow::Result<Arc<dyn Device>> {
    let name = interface.parse()?;
    Ok(wireguard::open(Backend::Kernel, name, PathBuf::new()).await?)
}

fn three() -> (Samples, Samples, Samples) {
    Default::default()
}

fn median(name: &str, samples: &Samples) -> Row {
    Row::new(name, samples.quantile_ms(0.5), "ms")
}

/// Ours, theirs, and how they compare by their medians.
fn beside(name: &str, other: &str, ours: &Samples, theirs: &Samples, most: f64) -> Vec<Row> {
    let ratio = ours.quantile_ms(0.5) / theirs.quantile_ms(0.5);
    vec![
        median(name, ours),
        median(&format!("{name}: {other}"), theirs),
        Row::new(format!("{name} / {other}"), ratio, "x").goal(Goal::AtMost(most)),
    ]
}
