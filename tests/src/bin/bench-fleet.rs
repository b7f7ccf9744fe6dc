//! Bytes, live metrics and connects at the size of a fleet: the plane as a process of its own against
//! simulated nodes whose peers all move, on the same machine. `scripts/bench fleet` builds, starts Postgres and Redis, and
//! runs this.
//!
//! Every node reports once a second over its session, the nodes evenly spread over the second, and some people
//! look at their connections. For the first seconds everything is new to the plane; they are not measured. While
//! it is measured somebody connects and disconnects a few times a second. In the end every connection's row,
//! and every hour, is compared with what its node counted.

use std::collections::{HashMap, HashSet, VecDeque};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use futures_util::future::try_join_all;
use nix::unistd::Pid;
use serde_json::json;
use shared::ids::{ConnectionId, ServerId, UserId};
use shared::protocol::counters::MAX_ENTRIES;
use shared::wireguard::PrivateKey;
use tests::api::{Client, Tunnel, metric};
use tests::bench::fleet::audit::{Findings, compare};
use tests::bench::fleet::node::{FleetNode, NodeReport, Order, Pace};
use tests::bench::fleet::population::{EACH, Member, settle};
use tests::bench::fleet::{Schedule, viewers};
use tests::bench::people::subscribers;
use tests::bench::process::{cpu_seconds, family_cpu_seconds, megabytes};
use tests::bench::{Goal, Report, Row, Samples, count};
use tests::lab::{Plane, PlaneSettings};
use tests::sim::SimConfig;
use tests::{SimNode, TestDb, wait_until};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval_at, sleep_until};

/// The size that the goals are for: nodes, peers of each, seconds.
const SIZE: (u32, usize, u32) = (200, 500, 60);
/// Those who connect, one after the other.
const CALLERS: usize = 64;
const CONNECT_EVERY: Duration = Duration::from_millis(250);
/// So many of them are connected at a time.
const CALLS_OPEN: usize = 8;
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Parser)]
#[command(about = "Measures a fleet's bytes, live metrics and connects")]
struct Arguments {
    #[arg(long, default_value_t = SIZE.0)]
    nodes: u32,
    /// Of each node
    #[arg(long, default_value_t = SIZE.1)]
    peers: usize,
    /// How long it is measured
    #[arg(long, default_value_t = SIZE.2)]
    seconds: u32,
    /// How long it goes on before
    #[arg(long, default_value_t = 45)]
    warm_up: u32,
    /// People who look at their connections
    #[arg(long, default_value_t = 100)]
    viewers: usize,
    #[command(flatten)]
    report: Report,
}

impl Arguments {
    /// The goal, where the fleet is of the size that it is for.
    fn goal(&self, row: Row, goal: Goal) -> Row {
        if (self.nodes, self.peers, self.seconds) == SIZE {
            row.goal(goal)
        } else {
            row
        }
    }
}

#[tokio::main(worker_threads = 1)]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    tests::init();
    // Newcomers need room in a frame too.
    ensure!(
        arguments.peers + CALLERS <= MAX_ENTRIES && arguments.nodes > 0 && arguments.seconds > 0,
        "a fleet of no size, or more peers than a frame holds"
    );
    let bench = Bench::set_up(&arguments).await?;
    let rows = bench.run(&arguments).await?;
    arguments.report.end("fleet", &rows)
}

/// Fields are dropped in this order: what uses something goes before it.
struct Bench {
    orders: watch::Sender<Order>,
    nodes: Vec<JoinHandle<anyhow::Result<NodeReport>>>,
    plane: Plane,
    postgres: Pid,
    db: TestDb,
    /// Those who have connections from the beginning, and then those who have none.
    people: Vec<(UserId, String)>,
    members: Vec<Member>,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn set_up(arguments: &Arguments) -> anyhow::Result<Self> {
        let db = TestDb::new().await;
        let folder = tempfile::tempdir()?;
        let settings = PlaneSettings {
            address: [127, 0, 0, 1].into(),
            database_url: db.url().to_owned(),
            tls: false,
            more: vec![("RUST_LOG", "warn".to_owned())],
        };
        let plane = Plane::start(folder.path(), &settings).await;
        let mut enrolled = Vec::new();
        for number in 0..arguments.nodes {
            let name = format!("node-{number}");
            let token = plane.enrolment_token(&name);
            let node = SimNode::enrol_only(plane.url(), &token, SimConfig::named(&name)).await;
            enrolled.push(node.map_err(|refused| anyhow::anyhow!("{refused:?}"))?);
        }
        let peers = enrolled.len() * arguments.peers;
        let people = subscribers(&db, &plane, peers.div_ceil(EACH) + CALLERS).await?;
        let settled: Vec<_> = people.iter().map(|(user, _)| *user).collect();
        let settled = settled
            .get(..peers.div_ceil(EACH))
            .context("there are people")?;
        let servers: Vec<ServerId> = enrolled.iter().map(SimNode::server).collect();
        let members = settle(&db, &plane, &servers, arguments.peers, settled).await?;
        let postmaster = "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)";
        let postgres = Pid::from_raw(i32::try_from(db.number(postmaster).await)?);

        let (orders, _) = watch::channel(Order::Listen);
        let told = Arc::new(AtomicUsize::new(0));
        let mut nodes = Vec::new();
        for (node, number) in enrolled.iter().zip(0..) {
            let node = FleetNode::dial(plane.url(), number, node).await?;
            nodes.push(tokio::spawn(
                node.run(orders.subscribe(), Arc::clone(&told)),
            ));
        }
        let is_told = async || told.load(Ordering::Relaxed) == peers;
        wait_until("the nodes have their peers", PATIENCE, is_told).await;
        Ok(Self {
            orders,
            nodes,
            plane,
            postgres,
            db,
            people,
            members,
            _folder: folder,
        })
    }

    async fn run(self, arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
        let schedule = Schedule {
            since: Instant::now() + Duration::from_secs(1),
            nodes: arguments.nodes,
            warm_up: arguments.warm_up,
            measured: arguments.seconds,
        };
        self.orders.send(Order::Report(schedule))?;
        let looking = self.viewers(arguments.viewers, schedule);
        let (spent, connects, looks) =
            tokio::try_join!(self.spent(schedule), self.connects(schedule), looking)?;
        // The last frames are answered.
        sleep_until(schedule.window().1 + Duration::from_secs(1)).await;
        self.orders.send(Order::End)?;
        let mut reports = Vec::new();
        for node in self.nodes {
            reports.push(node.await??);
        }
        let found = compare(&self.db, &reports).await?;

        let mut pace = Pace::default();
        for report in reports {
            pace.extend(report.pace);
        }
        let figures = Figures {
            spent,
            pace,
            looks,
            connects,
            found,
        };
        let frames = usize::try_from(arguments.nodes * arguments.seconds)?;
        let (seconds, peers) = (f64::from(arguments.seconds), count(self.members.len()));
        Ok([
            figures.of_nodes(arguments, count(frames)),
            figures.of_people(arguments, seconds),
            figures.of_bytes(arguments, seconds, peers)?,
            figures.of_processes(arguments, seconds),
        ]
        .concat())
    }

    /// What was spent while it was measured.
    async fn spent(&self, schedule: Schedule) -> anyhow::Result<Spent> {
        let (begin, end) = schedule.window();
        sleep_until(begin).await;
        let before = self.spent_so_far().await?;
        sleep_until(end).await;
        Ok(self.spent_so_far().await?.since(&before))
    }

    async fn spent_so_far(&self) -> anyhow::Result<Spent> {
        let (plane, metrics) = (self.plane.pid(), self.plane.metrics_url());
        let written = async |kind: &str| -> anyhow::Result<f64> {
            let sql =
                format!("SELECT {kind} FROM pg_stat_user_tables WHERE relname = 'connections'");
            Ok(f64::from(u32::try_from(self.db.number(&sql).await)?))
        };
        let spent = Spent {
            plane: cpu_seconds(plane)?,
            postgres: family_cpu_seconds(self.postgres)?,
            generator: cpu_seconds(Pid::this())?,
            most_memory: megabytes(plane, "VmHWM")?,
            written: written("n_tup_upd").await?,
            in_place: written("n_tup_hot_upd").await?,
            updates: f64::from(u32::try_from(
                metric(&metrics, "usage_peer_reports_total").await,
            )?),
        };
        let refused = metric(&metrics, "usage_peers_refused_total").await;
        ensure!(refused == 0, "the plane had no room for {refused} reports");
        Ok(spent)
    }

    /// Somebody connects every now and then, and leaves again when some others came.
    async fn connects(&self, schedule: Schedule) -> anyhow::Result<Samples> {
        let (begin, end) = schedule.window();
        let anonymous = self.plane.client();
        let callers = self.people.iter().rev().take(CALLERS);
        let callers: Vec<_> = callers
            .map(|(user, token)| anonymous.with_token(*user, token))
            .collect();
        let mut open: VecDeque<(&Client, ConnectionId)> = VecDeque::new();
        let mut samples = Samples::default();
        let mut tick = interval_at(begin, CONNECT_EVERY);
        for client in callers.iter().cycle() {
            let due = tick.tick().await;
            if due >= end {
                break;
            }
            let body = json!({ "client_public_key": PrivateKey::generate().public_key() });
            let reply = client.connect(&body).await;
            samples.push(due.elapsed());
            ensure!(reply.status == 200, "{}: {}", reply.status, reply.text());
            open.push_back((client, reply.read::<Tunnel>().connection_id));
            if open.len() > CALLS_OPEN
                && let Some((client, connection)) = open.pop_front()
            {
                client.disconnected(connection).await;
            }
        }
        Ok(samples)
    }

    async fn viewers(&self, number: usize, schedule: Schedule) -> anyhow::Result<Samples> {
        let members: HashMap<_, _> = self
            .members
            .iter()
            .take(number * EACH)
            .map(|member| (member.connection, *member))
            .collect();
        let anonymous = self.plane.client();
        let of: HashSet<_> = members.values().map(|member| member.user).collect();
        let people = self.people.iter().filter(|(user, _)| of.contains(user));
        let looks = people.map(async |(user, token)| {
            let socket = anonymous.metrics(*user, token).await;
            let socket = socket.map_err(|status| anyhow::anyhow!("a viewer got {status}"))?;
            viewers::look(socket, &members, schedule).await
        });
        let mut all = Samples::default();
        for samples in try_join_all(looks).await? {
            all.extend(samples);
        }
        Ok(all)
    }
}

/// Seconds of processors, megabytes, and how much was done with them.
struct Spent {
    plane: f64,
    postgres: f64,
    generator: f64,
    most_memory: f64,
    /// Connections that were written, and those of them that stayed in their page.
    written: f64,
    in_place: f64,
    updates: f64,
}

impl Spent {
    fn since(self, before: &Self) -> Self {
        Self {
            plane: self.plane - before.plane,
            postgres: self.postgres - before.postgres,
            generator: self.generator - before.generator,
            written: self.written - before.written,
            in_place: self.in_place - before.in_place,
            updates: self.updates - before.updates,
            ..self
        }
    }
}

struct Figures {
    spent: Spent,
    pace: Pace,
    looks: Samples,
    connects: Samples,
    found: Findings,
}

impl Figures {
    fn of_nodes(&self, arguments: &Arguments, frames: f64) -> Vec<Row> {
        let in_time = 100.0 * count(self.pace.in_time) / frames;
        let lag = |share| self.pace.lags.quantile_ms(share);
        vec![
            arguments.goal(
                Row::new("frames taken before the node's next", in_time, "%"),
                Goal::AtLeast(100.0),
            ),
            Row::new("lag p50", lag(0.5), "ms"),
            arguments.goal(Row::new("lag p99", lag(0.99), "ms"), Goal::AtMost(500.0)),
            Row::new("lag, most", lag(1.0), "ms"),
        ]
    }

    fn of_people(&self, arguments: &Arguments, seconds: f64) -> Vec<Row> {
        let behind = self.looks.quantile_ms(0.99);
        let connect = |share| self.connects.quantile_ms(share);
        vec![
            arguments.goal(
                Row::new("viewers behind the newest frame p99", behind, "ms"),
                Goal::AtMost(500.0),
            ),
            Row::new(
                "messages to viewers",
                count(self.looks.len()) / seconds,
                "1/s",
            ),
            Row::new("connect p50", connect(0.5), "ms"),
            arguments.goal(
                Row::new("connect p99", connect(0.99), "ms"),
                Goal::AtMost(100.0),
            ),
            Row::new("connects", count(self.connects.len()) / seconds, "1/s"),
        ]
    }

    fn of_bytes(
        &self,
        arguments: &Arguments,
        seconds: f64,
        peers: f64,
    ) -> anyhow::Result<Vec<Row>> {
        let differing = |what: &str, number: f64| {
            let row = Row::new(format!("{what} whose bytes differ"), number, "");
            arguments.goal(row, Goal::AtMost(0.0))
        };
        let written = self.spent.written / seconds;
        let in_place = 100.0 * self.spent.in_place / self.spent.written;
        let caught_up_in = self.found.caught_up_in.as_secs_f64();
        Ok(vec![
            Row::new("peer updates", self.spent.updates / seconds, "1/s"),
            differing("connections", count(self.found.connections)),
            differing("hours", f64::from(u32::try_from(self.found.rollups)?)),
            Row::new("connections written", written, "rows/s"),
            Row::new("of those in place", in_place, "%"),
            Row::new("between two writings of a peer", peers / written, "s"),
            Row::new("all written after the last frame", caught_up_in, "s"),
        ])
    }

    fn of_processes(&self, arguments: &Arguments, seconds: f64) -> Vec<Row> {
        let spent = &self.spent;
        let cores = |who: &str, spent: f64| Row::new(who, spent / seconds, "cores");
        let an_update = 1e6 * spent.plane / spent.updates;
        vec![
            arguments.goal(cores("plane", spent.plane), Goal::AtMost(0.6)),
            Row::new("plane, a peer update", an_update, "us"),
            arguments.goal(
                Row::new("plane, most memory", spent.most_memory, "MB"),
                Goal::AtMost(400.0),
            ),
            cores("postgres", spent.postgres),
            cores("nodes, viewers and clients", spent.generator),
        ]
    }
}
