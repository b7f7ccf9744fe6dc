//! Live metrics and the fleet's directory at size: thousands of people who watch their connections, and
//! the server lists over ten thousand servers. `scripts/bench metrics` builds, starts Postgres and Redis,
//! and runs this.
//!
//! The plane is a process of its own; what makes the load runs on the same cores. Beside each
//! figure stand the CPU seconds of the plane's process alone.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;
use control_plane::listener::raise_descriptors;
use futures_util::future::{join_all, try_join_all};
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use nix::unistd::Pid;
use serde_json::json;
use shared::ids::UserId;
use shared::wireguard::PrivateKey;
use tests::bench::paced::Paced;
use tests::bench::people::subscribers;
use tests::bench::process::{cpu_seconds, megabytes};
use tests::bench::viewers::Viewers;
use tests::bench::web::{Counted, TOLERANCE};
use tests::bench::{Goal, Report, Row, count};
use tests::lab::{Plane, PlaneSettings};
use tests::sim::SimConfig;
use tests::{SimNode, TestDb, wait_until};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Connects under way at once.
const CONNECTS: usize = 16;
/// For the plane to come to rest between two steps; its memory does when it grows by less in such a time.
const REST: Duration = Duration::from_secs(5);
const REST_MEGABYTES: f64 = 0.5;
const LONG: Duration = Duration::from_secs(60);
/// Those who ask for servers.
const CALLERS: usize = 1000;
const CONNECTIONS: u32 = 64;
/// What the servers are spread over.
const COUNTRIES: u32 = 50;
const PER_PAGE: u32 = 20;

#[derive(Debug, Parser)]
#[command(about = "Measures live metrics and the server lists")]
struct Arguments {
    /// How many people watch their connection
    #[arg(long, default_value_t = 5000)]
    sockets: usize,
    /// How many simulated nodes they are connected to
    #[arg(long, default_value_t = 10)]
    nodes: usize,
    /// How long they are listened to
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many servers there are
    #[arg(long, default_value_t = 10_000)]
    servers: u32,
    /// How often a second they are asked for
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// How long each way of asking takes
    #[arg(long, default_value_t = 20)]
    list_seconds: u64,
    #[command(flatten)]
    report: Report,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    tests::init();
    raise_descriptors();
    let arguments = Arguments::parse();
    let mut rows = watching(&arguments).await?;
    rows.extend(asking(&arguments).await?);
    arguments.report.end("metrics", &rows)
}

fn settings(db: &TestDb) -> PlaneSettings {
    PlaneSettings {
        address: Ipv4Addr::LOCALHOST,
        database_url: db.url().to_owned(),
        tls: false,
        more: vec![
            ("RUST_LOG", "warn".to_owned()),
            ("RATE_LIMIT_ENABLED", "false".to_owned()),
            // Everybody comes from one address.
            ("CONNECTIONS_PER_ADDRESS", "25000".to_owned()),
        ],
    }
}

/// What a process that has nothing more to prepare has in memory, in megabytes.
async fn memory_at_rest(process: Pid) -> anyhow::Result<f64> {
    let mut before = megabytes(process, "VmRSS")?;
    loop {
        sleep(REST).await;
        let now = megabytes(process, "VmRSS")?;
        if now - before < REST_MEGABYTES {
            return Ok(now);
        }
        before = now;
    }
}

/// Host and port of the plane.
fn address(plane: &Plane) -> &str {
    plane.url().trim_start_matches("http://")
}

/// Everybody connects, the plane starts anew so that its memory is that of nobody watching, and everybody
/// watches.
async fn watching(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let (db, folder) = (TestDb::new().await, tempfile::tempdir()?);
    let plane = Plane::start(folder.path(), &settings(&db)).await;
    let nodes = nodes(&plane, arguments.nodes).await?;
    let people = subscribers(&db, &plane, arguments.sockets).await?;
    connect(&plane, &people).await?;
    let welcomed: Vec<_> = nodes.iter().map(|node| node.session().welcomed).collect();
    let plane = plane.restart().await;
    wait_until("the nodes are back", LONG, async || {
        let mut all = nodes.iter().zip(&welcomed);
        all.all(|(node, before)| node.session().welcomed > *before)
    })
    .await;
    let _traffic = Traffic::start(nodes);
    let (pid, address) = (plane.pid(), address(&plane));
    let before = timeout(LONG, memory_at_rest(pid)).await??;
    let (opening, cpu) = (Instant::now(), cpu_seconds(pid)?);
    let viewers = Viewers::open(address, &people).await?;
    let (opened_in, opening_cpu) = (opening.elapsed(), cpu_seconds(pid)? - cpu);
    wait_until("everybody is told", LONG, async || viewers.all_hear()).await;
    sleep(REST).await;
    let (from, cpu) = (Instant::now(), cpu_seconds(pid)?);
    sleep(Duration::from_secs(arguments.seconds)).await;
    let (to, cpu) = (Instant::now(), cpu_seconds(pid)? - cpu);
    let memory = megabytes(pid, "VmRSS")?;
    let late = viewers.lateness(from, to)?;
    viewers.ensure_told()?;
    let sockets = count(viewers.len());
    let pace = count(late.len()) / sockets / (to - from).as_secs_f64();
    let name = |what: &str| format!("{} sockets: {what}", viewers.len());
    Ok(vec![
        Row::new(name("opened in"), opened_in.as_secs_f64(), "s"),
        Row::new(name("CPU of the plane for that"), opening_cpu, "s"),
        Row::new(name("messages"), pace, "/socket/s").goal(Goal::AtLeast(0.98)),
        Row::new(name("lateness p50"), late.quantile_ms(0.5), "ms"),
        Row::new(name("lateness p99"), late.quantile_ms(0.99), "ms").goal(Goal::AtMost(250.0)),
        Row::new(name("lateness, worst"), late.quantile_ms(1.0), "ms"),
        Row::new(name("memory of the plane"), memory, "MB"),
        Row::new(
            name("memory of one"),
            (memory - before) * 1024.0 / sockets,
            "KB",
        )
        .goal(Goal::AtMost(20.0)),
        Row::new(name("CPU of the plane"), cpu, "s"),
        Row::new(
            name("cores of the plane"),
            cpu / (to - from).as_secs_f64(),
            "",
        ),
    ])
}

async fn nodes(plane: &Plane, number: usize) -> anyhow::Result<Vec<SimNode>> {
    let enrol = |number: usize| {
        let name = format!("node-{number}");
        let token = plane.enrolment_token(&name);
        async move { SimNode::enrol(plane.url(), &token, SimConfig::named(&name)).await }
    };
    let nodes = try_join_all((0..number).map(enrol)).await;
    let nodes = nodes.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    join_all(nodes.iter().map(SimNode::wait_online)).await;
    Ok(nodes)
}

async fn connect(plane: &Plane, people: &[(UserId, String)]) -> anyhow::Result<()> {
    let anonymous = plane.client();
    let connects = iter(people).map(|(user, token)| {
        let client = anonymous.with_token(*user, token);
        async move {
            let body = json!({ "client_public_key": PrivateKey::generate().public_key() });
            let reply = client.connect(&body).await;
            ensure!(reply.status == 200, "{}: {}", reply.status, reply.text());
            Ok(())
        }
    });
    let done: Vec<()> = connects.buffer_unordered(CONNECTS).try_collect().await?;
    ensure!(done.len() == people.len(), "not everybody is connected");
    Ok(())
}

/// Every client of the nodes moves bytes every second, which the nodes report every second.
struct Traffic(JoinHandle<()>);

impl Traffic {
    fn start(nodes: Vec<SimNode>) -> Self {
        Self(tokio::spawn(async move {
            let mut tick = interval(Duration::from_secs(1));
            loop {
                tick.tick().await;
                for node in &nodes {
                    node.add_traffic_everywhere(12_000, 250_000);
                }
            }
        }))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The directory is asked for by people of all kinds at a fixed rate.
async fn asking(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let (db, folder) = (TestDb::new().await, tempfile::tempdir()?);
    db.execute("CREATE EXTENSION pg_stat_statements").await;
    db.execute(&directory(arguments.servers)).await;
    let plane = Plane::start(folder.path(), &settings(&db)).await;
    let callers = subscribers(&db, &plane, CALLERS).await?;
    let _beating = Beating::start(&db).await;
    let mut rows = Vec::new();
    for question in Question::ALL {
        rows.extend(measure(arguments, question, &db, &plane, &callers).await?);
    }
    Ok(rows)
}

#[derive(Debug, Clone, Copy)]
enum Question {
    List,
    Recommended,
}

impl Question {
    const ALL: [Self; 2] = [Self::List, Self::Recommended];

    const fn path(self) -> &'static str {
        match self {
            Self::List => "/servers",
            Self::Recommended => "/servers/recommended",
        }
    }

    /// A third asks for the first page, a third for any page, a third by country; half of those who want a
    /// recommendation name a country.
    fn query(self, number: u32, servers: u32) -> String {
        let country = number.wrapping_mul(31) % COUNTRIES.min(servers);
        let page = number.wrapping_mul(7919) % servers.div_ceil(PER_PAGE) + 1;
        match (self, number % 6) {
            (Self::List, 0 | 1) => String::new(),
            (Self::List, 2 | 3) => format!("?page={page}&per_page={PER_PAGE}"),
            (Self::List, _) => format!("?country=Country%20{country}"),
            (Self::Recommended, 0..3) => String::new(),
            (Self::Recommended, _) => format!("?location=Country%20{country}"),
        }
    }
}

async fn measure(
    arguments: &Arguments,
    question: Question,
    db: &TestDb,
    plane: &Plane,
    callers: &[(UserId, String)],
) -> anyhow::Result<Vec<Row>> {
    let request = |number: u32| {
        let at = usize::try_from(number).unwrap_or(0) % callers.len();
        let token = callers.get(at).map_or("", |(_, token)| token.as_str());
        let query = question.query(number, arguments.servers);
        let path = question.path();
        format!(
            "GET /api/v1{path}{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
        .into_bytes()
    };
    let paced = |seconds| Paced {
        rate: arguments.rate,
        connections: CONNECTIONS,
        length: Duration::from_secs(seconds),
    };
    paced(1).run(address(plane), request).await?;
    let before = Counted::now(db, plane.pid()).await?;
    let run = paced(arguments.list_seconds)
        .run(address(plane), request)
        .await?;
    let after = Counted::now(db, plane.pid()).await?;
    let mut counted = Counted::default();
    let answers = run.latency.len();
    counted.add(&before, &after, count(answers));
    let name = |what: &str| format!("GET {}: {what}", question.path());
    let seconds = count(usize::try_from(arguments.list_seconds)?);
    Ok(vec![
        Row::new(name("rate"), count(answers) / seconds, "req/s"),
        Row::new(name("p50"), run.latency.quantile_ms(0.5), "ms"),
        Row::new(name("p99"), run.latency.quantile_ms(0.99), "ms").goal(Goal::AtMost(5.0)),
        Row::new(name("worst"), run.latency.quantile_ms(1.0), "ms"),
        Row::new(
            name("answer"),
            count(run.bytes) / count(answers) / 1024.0,
            "KB",
        ),
        Row::new(name("Postgres queries"), counted.queries(), "/request")
            .goal(Goal::AtMost(TOLERANCE)),
        Row::new(
            name("CPU of the plane"),
            counted.cpu_microseconds(),
            "us/request",
        ),
        Row::new(
            name("CPU of the plane, all"),
            counted.cpu_microseconds() * count(answers) / 1e6,
            "s",
        ),
    ])
}

/// Servers as enrolled nodes leave them, with sessions on another replica.
fn directory(servers: u32) -> String {
    format!(
        "INSERT INTO vpn_servers (id, hostname, country, country_code, city, location, ip_address,
             endpoint, public_key, available_ips, capacity, streaming_services, features, current_load, ping)
         SELECT gen_random_uuid(), 'node-' || n || '.example.org', 'Country ' || n % {COUNTRIES},
             chr(65 + n % {COUNTRIES} / 26) || chr(65 + n % {COUNTRIES} % 26), 'City ' || n % 200, 'region-' || n % 8,
             '10.0.0.0'::inet + n, host('10.0.0.0'::inet + n) || ':51820',
             encode(sha256(n::text::bytea), 'base64'), '10.8.0.0/16', 65000, '{{netflix}}', '{{p2p}}',
             n * 7919 % 1000 / 10.0, n % 90
         FROM generate_series(0, {servers} - 1) AS n;
         INSERT INTO nodes (server_id, session_fence, session_replica, protocol, agent_version, backend, last_seen_at)
         SELECT id, 1, gen_random_uuid(), 2, '0.1.0', 'kernel', now() FROM vpn_servers"
    )
}

/// What the other replica's heartbeats write: every node's sign of life and load.
struct Beating(JoinHandle<()>);

impl Beating {
    async fn start(db: &TestDb) -> Self {
        use diesel_async::SimpleAsyncConnection;
        let mut connection = db.connect().await;
        Self(tokio::spawn(async move {
            let mut tick = interval(Duration::from_secs(5));
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let beat = "UPDATE nodes SET last_seen_at = now();
                            UPDATE vpn_servers SET current_load = (current_load + 7)::integer % 100";
                if let Err(error) = connection.batch_execute(beat).await {
                    println!("no heartbeat: {error}");
                }
            }
        }))
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.0.abort();
    }
}
