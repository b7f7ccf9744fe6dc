//! Connect latency and throughput: the plane as a process of its own against simulated nodes and
//! then against one real agent, all on this machine. `scripts/bench connect` builds, starts Postgres and Redis, and runs this.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use diesel_async::SimpleAsyncConnection;
use futures_util::future::{join_all, try_join_all};
use nix::unistd::geteuid;
use serde_json::json;
use shared::ids::UserId;
use shared::wireguard::PrivateKey;
use tests::api::{Client, Reply, Tunnel, server_timing};
use tests::bench::people::subscribers;
use tests::bench::{Goal, Report, Row, Samples, count};
use tests::lab::{Plane, PlaneSettings, Stage};
use tests::sim::SimConfig;
use tests::{SimNode, TestDb};

const PARTS: [&str; 5] = ["db", "session", "agent", "ledger", "netlink"];
const POOL_SIZE: usize = 16;

#[derive(Debug, Parser)]
#[command(about = "Measures connecting")]
struct Arguments {
    /// How many simulated nodes
    #[arg(long, default_value_t = 8)]
    nodes: usize,
    /// How many connects one after the other
    #[arg(long, default_value_t = 1000)]
    sequential: usize,
    /// How long each number of clients connects
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[command(flatten)]
    report: Report,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    tests::init();
    let bench = Bench::set_up(&arguments).await?;
    let mut rows = Vec::new();

    bench.run(1, Stop::After(100)).await?;
    let sequential = bench.run(1, Stop::After(arguments.sequential)).await?;
    rows.extend(latency_rows("simulated nodes", &sequential));
    let length = Duration::from_secs(arguments.seconds);
    let mut fastest = 0.0;
    for clients in [1, 8, 32] {
        let run = bench.run(clients, Stop::In(length)).await?;
        let row = Row::new(format!("{clients} clients"), run.per_second(), "connects/s");
        fastest = run.per_second();
        rows.push(if clients == 32 {
            row.goal(Goal::AtLeast(500.0))
        } else {
            row
        });
        if clients > 1 {
            let p99 = run.latency.quantile_ms(0.99);
            rows.push(Row::new(
                format!("{clients} clients, latency p99"),
                p99,
                "ms",
            ));
        }
    }
    let writes = bench.bare_writes(length).await?;
    rows.push(Row::new("limit: bare writes at 16", writes, "writes/s"));
    rows.push(Row::new("connects per bare write", fastest / writes, ""));
    bench.verify().await?;
    drop(bench);
    if geteuid().is_root() {
        rows.extend(real_agent(arguments.sequential).await?);
    } else {
        println!("no rows with a real agent: it needs network namespaces, and they need root");
    }

    arguments.report.end("connect", &rows)
}

/// The whole way: an agent with its ledger and its interface in a namespace, over TLS. Each
/// connection ends before the next begins.
async fn real_agent(connects: usize) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::set().await;
    let mut run = Run::default();
    for _ in 0..connects {
        let body = json!({ "client_public_key": PrivateKey::generate().public_key() });
        let sent = Instant::now();
        let reply = stage.user.connect(&body).await;
        run.note(&reply, sent.elapsed())?;
        let tunnel: Tunnel = reply.read();
        stage.user.disconnected(tunnel.connection_id).await;
    }
    ensure!(stage.peers().is_empty(), "peers were left on the node");
    Ok(latency_rows(&format!("{} agent", stage.backend), &run))
}

/// Latency, and where it went.
fn latency_rows(against: &str, run: &Run) -> Vec<Row> {
    let latency = &run.latency;
    let (p50, p99) = (latency.quantile_ms(0.5), latency.quantile_ms(0.99));
    let mut rows = vec![
        Row::new(format!("{against}: sequential p50"), p50, "ms").goal(Goal::AtMost(10.0)),
        Row::new(format!("{against}: sequential p99"), p99, "ms").goal(Goal::AtMost(50.0)),
        Row::new(
            format!("{against}: sequential mean"),
            latency.mean_ms(),
            "ms",
        ),
    ];
    let whole = latency.mean_ms();
    for part in PARTS {
        let mean = run.parts.get(part).copied().unwrap_or(f64::NAN) / count(latency.len());
        rows.push(Row::new(format!("{against}: of that {part}"), mean, "ms"));
        rows.push(Row::new(
            format!("{against}: share of {part}"),
            100.0 * mean / whole,
            "%",
        ));
    }
    rows
}

#[derive(Clone, Copy)]
enum Stop {
    After(usize),
    In(Duration),
}

/// What some clients did.
#[derive(Default)]
struct Run {
    latency: Samples,
    took: Duration,
    /// Milliseconds by part of `Server-Timing`, summed up.
    parts: BTreeMap<&'static str, f64>,
}

impl Run {
    fn note(&mut self, reply: &Reply, took: Duration) -> anyhow::Result<()> {
        ensure!(
            reply.status.is_success(),
            "{}: {}",
            reply.status,
            reply.text()
        );
        self.latency.push(took);
        let timing = reply.header("server-timing").unwrap_or_default();
        for part in PARTS {
            *self.parts.entry(part).or_default() += server_timing(timing, part).unwrap_or(0.0);
        }
        Ok(())
    }

    fn per_second(&self) -> f64 {
        count(self.latency.len()) / self.took.as_secs_f64()
    }
}

/// Fields are dropped in this order: what uses something goes before it.
struct Bench {
    nodes: Vec<SimNode>,
    plane: Plane,
    db: TestDb,
    people: Vec<(UserId, String)>,
    /// Each person connects once.
    next: AtomicUsize,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn set_up(arguments: &Arguments) -> anyhow::Result<Self> {
        let db = TestDb::new().await;
        let folder = tempfile::tempdir()?;
        let more = vec![
            ("DATABASE_POOL_SIZE", POOL_SIZE.to_string()),
            ("RUST_LOG", "warn".to_owned()),
        ];
        let settings = PlaneSettings {
            address: Ipv4Addr::LOCALHOST,
            database_url: db.url().to_owned(),
            tls: false,
            more,
        };
        let plane = Plane::start(folder.path(), &settings).await;
        let enrol = |number: usize| {
            let name = format!("node-{number}");
            let token = plane.enrolment_token(&name);
            let url = plane.url().to_owned();
            async move { SimNode::enrol(&url, &token, SimConfig::named(&name)).await }
        };
        let nodes = try_join_all((0..arguments.nodes).map(enrol)).await;
        let nodes = nodes.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
        join_all(nodes.iter().map(SimNode::wait_online)).await;
        // More than the fastest plane could use up.
        let seconds = usize::try_from(arguments.seconds)?;
        let people =
            subscribers(&db, &plane, arguments.sequential + 100 + seconds * 12_000).await?;
        Ok(Self {
            nodes,
            plane,
            db,
            people,
            next: AtomicUsize::new(0),
            _folder: folder,
        })
    }

    async fn run(&self, clients: usize, stop: Stop) -> anyhow::Result<Run> {
        let began = Instant::now();
        let anonymous = self.plane.client();
        let runs = (0..clients).map(|_| self.client(&anonymous, began, stop));
        let mut whole = Run::default();
        for run in try_join_all(runs).await? {
            whole.latency.extend(run.latency);
            for (part, sum) in run.parts {
                *whole.parts.entry(part).or_default() += sum;
            }
        }
        whole.took = began.elapsed();
        Ok(whole)
    }

    /// One client, connecting as one person after the other.
    async fn client(&self, client: &Client, began: Instant, stop: Stop) -> anyhow::Result<Run> {
        let mut run = Run::default();
        loop {
            let over = match stop {
                Stop::After(connects) => run.latency.len() >= connects,
                Stop::In(length) => began.elapsed() >= length,
            };
            let person = self.people.get(self.next.fetch_add(1, Ordering::Relaxed));
            let (false, Some((user, token))) = (over, person) else {
                ensure!(over, "there were too few people");
                return Ok(run);
            };
            let client = client.with_token(*user, token);
            let body = json!({ "client_public_key": PrivateKey::generate().public_key() });
            let sent = Instant::now();
            let reply = client.connect(&body).await;
            run.note(&reply, sent.elapsed())?;
        }
    }

    /// What the database alone gives: one statement that does a connect's two writes, over as many
    /// connections as the plane has, each always busy.
    async fn bare_writes(&self, length: Duration) -> anyhow::Result<f64> {
        let mut connections = Vec::new();
        for _ in 0..POOL_SIZE {
            connections.push(self.db.connect().await);
        }
        let (user, _) = self.people.first().context("there are people")?;
        let began = Instant::now();
        let nodes = self.nodes.iter().cycle();
        let work = connections
            .into_iter()
            .zip(nodes)
            .map(|(mut connection, node)| async move {
                let (server, mut written) = (node.server(), 0_usize);
                while began.elapsed() < length {
                    let (id, key) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
                    let write = format!(
                        "WITH rev AS (UPDATE nodes SET desired_revision = desired_revision + 1
                         WHERE server_id = '{server}' RETURNING desired_revision AS at)
                     INSERT INTO connections (id, user_id, server_id, status, ended_at,
                         client_public_key, peer_id, revision)
                     SELECT '{id}', '{user}', '{server}', 'disconnected', now(), '{key}', at, at
                     FROM rev"
                    );
                    connection.batch_execute(&write).await?;
                    written += 1;
                }
                anyhow::Ok(written)
            });
        let written: usize = try_join_all(work).await?.into_iter().sum();
        Ok(count(written) / began.elapsed().as_secs_f64())
    }

    /// Every connect that was answered is a peer on a node, and no other is.
    async fn verify(&self) -> anyhow::Result<()> {
        let live = self
            .db
            .number("SELECT count(*) FROM connections WHERE status = 'connected'")
            .await;
        let peers: usize = self.nodes.iter().map(SimNode::peer_count).sum();
        ensure!(
            usize::try_from(live)? == peers,
            "{live} connections, {peers} peers"
        );
        println!(
            "{peers} connections over {} nodes, each with its peer",
            self.nodes.len()
        );
        Ok(())
    }
}
