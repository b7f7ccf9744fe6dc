//! What protection costs: `GET /users/me` with and without it, and a banned address beside a bare actix.
//! `scripts/bench guard` builds, starts Postgres and Redis, and runs this.
//!
//! The planes have one worker on one core, and `wrk` the other core. They take turns a second each; of the
//! ratios and differences of neighbours the median counts. Every request comes from another of ten thousand
//! addresses, by a proxy that the planes trust.
//!
//! Then people use a plane with the limits that it has by itself, while one address floods it and while its
//! Redis is killed.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{ExitCode, id};
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use reqwest::Method;
use tests::api::Client;
use tests::bench::bare::BareSettings;
use tests::bench::people::People;
use tests::bench::web::{
    self, Counted, ROUNDS, TOLERANCE, bare_process, median, median_share, pin,
};
use tests::bench::wrk::{Load, Target, Wrk};
use tests::bench::{Goal, Report, Row};
use tests::lab::{Plane, PlaneSettings, Process};
use tests::redis::{TestRedis, free_port};
use tests::{TestDb, wait_until};
use tokio::time::sleep;

const POOL_SIZE: u32 = 16;
const PATH: &str = "/api/v1/users/me";
const BANNED: &str = "198.51.100.77";
/// Nobody comes near, so that what is measured is the asking.
const WIDE: [(&str, &str); 6] = [
    ("TRUSTED_PROXIES", "127.0.0.1"),
    ("RATE_LIMIT_ADAPTIVE", "false"),
    ("RATE_LIMIT_DEFAULT", "1000000/1s+0"),
    ("IP_RATE_LIMIT", "1000000"),
    ("GLOBAL_RATE_LIMIT", "100000000"),
    ("DDOS_THRESHOLD", "1000000000"),
];
const OFF: [(&str, &str); 3] = [
    ("TRUSTED_PROXIES", "127.0.0.1"),
    ("RATE_LIMIT_ENABLED", "false"),
    ("DDOS_PROTECTION_ENABLED", "false"),
];
/// As it is by itself, but for one address's share: the people have one each and ask often.
fn attacked(redis: &str) -> [(&'static str, &str); 5] {
    [
        ("TRUSTED_PROXIES", "127.0.0.1"),
        ("RATE_LIMIT_ADAPTIVE", "false"),
        ("RATE_LIMIT_DEFAULT", "1000/1m+0"),
        ("IP_RATE_LIMIT", "1000"),
        ("REDIS_URL", redis),
    ]
}
const PEOPLE: u8 = 40;
const FLOOD: &str = "198.51.100.66";
/// Some two thousand requests a second, hundreds of times what is a flood: more would use up the core that
/// the people ask from, and measure that.
const PACED: &str = "function delay() return 8 end";
/// How long one part of an attack takes.
const ATTACK: Duration = Duration::from_secs(5);
const ADDRESSES: &str = r#"
function request()
    local n = math.random(0, 9999)
    wrk.headers["X-Forwarded-For"] = "203.0." .. math.floor(n / 100) .. "." .. n % 100
    return wrk.format()
end
"#;

#[derive(Debug, Parser)]
#[command(about = "Measures what protection costs")]
struct Arguments {
    /// How many connections are kept busy
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// How long each run takes
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    #[command(flatten)]
    report: Report,
}

impl Arguments {
    fn wrk(&self) -> anyhow::Result<Wrk> {
        let cores = std::thread::available_parallelism()?.get();
        Ok(Wrk {
            connections: self.connections,
            length: Duration::from_secs(self.seconds),
            core: (cores > 1).then_some(1),
        })
    }
}

fn main() -> anyhow::Result<ExitCode> {
    web::main(run())
}

async fn run() -> anyhow::Result<ExitCode> {
    tests::init();
    let arguments = Arguments::parse();
    let bench = Bench::set_up(&arguments).await?;
    let mut rows = bench.protected().await?;
    rows.extend(bench.banned().await?);
    drop(bench);
    rows.extend(under_attack(&arguments).await?);
    arguments.report.end("guard", &rows)
}

/// Runs with protection and without, one after the other.
#[derive(Default)]
struct Turns {
    with: Vec<Load>,
    without: Vec<Load>,
    /// Of those with protection.
    counted: Counted,
}

/// Fields are dropped in this order: what uses something goes before it.
struct Bench {
    with: Plane,
    without: Plane,
    /// Ended with this value.
    _bare: Process,
    bare_url: String,
    user: Client,
    wrk: Wrk,
    db: TestDb,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn set_up(arguments: &Arguments) -> anyhow::Result<Self> {
        let db = TestDb::new().await;
        db.execute("CREATE EXTENSION pg_stat_statements").await;
        let folder = tempfile::tempdir()?;
        let with = plane(folder.path(), "with", &db, &WIDE).await?;
        let without = plane(folder.path(), "without", &db, &OFF).await?;
        let user = with.client().sign_up("bench@example.org").await;
        ban(&db, &user).await;
        let body = user
            .request(Method::GET, PATH)
            .header("X-Forwarded-For", BANNED);
        let file = folder.path().join("refusal");
        std::fs::write(&file, user.send(body).await.body)?;
        let settings = BareSettings {
            port: free_port(),
            database_url: db.url().to_owned(),
            pool_size: POOL_SIZE,
            user: user.user(),
            me: file.clone(),
            servers: file.clone(),
            refresh: file,
            tokens: Vec::new(),
        };
        let (bare, bare_url) = bare_process(folder.path(), &settings).await?;
        let wrk = arguments.wrk()?;
        if wrk.core.is_some() {
            for process in [with.pid(), without.pid(), bare.pid()] {
                pin(process, 0)?;
            }
        }
        Ok(Self {
            with,
            without,
            _bare: bare,
            bare_url,
            user,
            wrk,
            db,
            folder,
        })
    }

    /// Throughput where the core is busy, latency where nobody waits for somebody else.
    async fn protected(&self) -> anyhow::Result<Vec<Row>> {
        let busy = self.take_turns(&self.wrk).await?;
        let single = Wrk {
            connections: 1,
            ..self.wrk.clone()
        };
        let alone = self.take_turns(&single).await?;
        let (share, added) = (
            median_share(&busy.with, &busy.without),
            added_ms(&alone.with, &alone.without),
        );
        let (with, without) = (median(busy.with), median(busy.without));
        Ok(vec![
            Row::new("GET /users/me: with protection", with.per_second, "req/s"),
            Row::new("GET /users/me: without", without.per_second, "req/s"),
            Row::new("GET /users/me: with of without", share, "").goal(Goal::AtLeast(0.6)),
            Row::new("GET /users/me: p50 alone", median(alone.with).p50_ms, "ms"),
            Row::new("GET /users/me: added to it", added, "ms").goal(Goal::AtMost(0.3)),
            Row::new(
                "GET /users/me: scripts of Redis",
                busy.counted.scripts(),
                "/request",
            )
            .goal(Goal::AtMost(1.0 + TOLERANCE)),
        ])
    }

    async fn take_turns(&self, wrk: &Wrk) -> anyhow::Result<Turns> {
        let mut turns = Turns::default();
        self.ask(wrk, &self.with).await?;
        self.ask(wrk, &self.without).await?;
        for _ in 0..ROUNDS {
            let before = self.count().await?;
            let load = self.ask(wrk, &self.with).await?;
            turns
                .counted
                .add(&before, &self.count().await?, load.requests);
            turns.with.push(load);
            turns.without.push(self.ask(wrk, &self.without).await?);
        }
        Ok(turns)
    }

    async fn banned(&self) -> anyhow::Result<Vec<Row>> {
        let (mut refused, mut bare) = (Vec::new(), Vec::new());
        let mut counted = Counted::default();
        self.ask_banned().await?;
        for _ in 0..ROUNDS {
            let before = self.count().await?;
            let load = self.ask_banned().await?;
            counted.add(&before, &self.count().await?, load.requests);
            refused.push(load);
            bare.push(self.ask_bare().await?);
        }
        let share = median_share(&refused, &bare);
        let (refused, bare) = (median(refused), median(bare));
        Ok(vec![
            Row::new("banned: refused", refused.per_second, "req/s"),
            Row::new("banned: bare actix, same body", bare.per_second, "req/s"),
            Row::new("banned: refused of bare", share, "").goal(Goal::AtLeast(0.7)),
            Row::new("banned: scripts of Redis", counted.scripts(), "/request")
                .goal(Goal::AtMost(0.0)),
            Row::new(
                "banned: CPU of the plane",
                counted.cpu_microseconds(),
                "us/request",
            ),
        ])
    }

    async fn count(&self) -> anyhow::Result<Counted> {
        Counted::now(&self.db, self.with.pid()).await
    }

    async fn ask(&self, wrk: &Wrk, plane: &Plane) -> anyhow::Result<Load> {
        let script = self.folder.path().join("addresses.lua");
        std::fs::write(&script, ADDRESSES)?;
        let target = Target {
            script: Some(script),
            ..self.target(format!("{}{PATH}", plane.url()))
        };
        wrk.run(&target).await
    }

    async fn ask_banned(&self) -> anyhow::Result<Load> {
        let url = format!("{}{PATH}", self.with.url());
        let target = Target {
            refused: true,
            ..self.banned_target(url)
        };
        self.wrk.run(&target).await
    }

    async fn ask_bare(&self) -> anyhow::Result<Load> {
        let url = format!("{}/static/me", self.bare_url);
        self.wrk.run(&self.banned_target(url)).await
    }

    fn banned_target(&self, url: String) -> Target {
        let mut target = self.target(url);
        target.headers.push(format!("X-Forwarded-For: {BANNED}"));
        target
    }

    fn target(&self, url: String) -> Target {
        Target {
            url,
            headers: vec![format!("Authorization: Bearer {}", self.user.token())],
            script: None,
            refused: false,
        }
    }
}

/// What people notice of a flood beside them, and of a Redis that dies and comes back.
async fn under_attack(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let db = TestDb::new().await;
    let folder = tempfile::tempdir()?;
    let mut redis = TestRedis::start().await;
    let (port, url) = (redis.port(), redis.url());
    let plane = plane(folder.path(), "attacked", &db, &attacked(&url)).await?;
    let people = People::sign_up(&plane.client(), PEOPLE).await;
    let wrk = arguments.wrk()?;
    if wrk.core.is_some() {
        pin(plane.pid(), 0)?;
    }
    let undisturbed = people.go_on(PATH, ATTACK).await?;
    let script = folder.path().join("paced.lua");
    std::fs::write(&script, PACED)?;
    let target = Target {
        url: format!("{}{PATH}", plane.url()),
        headers: vec![format!("X-Forwarded-For: {FLOOD}")],
        script: Some(script),
        refused: true,
    };
    let flood = Wrk {
        length: ATTACK,
        ..wrk
    };
    let (flood, beside) = tokio::join!(flood.run(&target), people.go_on(PATH, ATTACK));
    let (flood, beside) = (flood?, beside?);
    let client = plane.client();
    let request = client.request(Method::GET, PATH);
    let flooding = client.send(request.header("X-Forwarded-For", FLOOD)).await;
    ensure!(flooding.status == 403, "the flood is not banned");
    let (without, _redis) = tokio::join!(people.go_on(PATH, 3 * ATTACK), async {
        sleep(ATTACK).await;
        redis.kill();
        sleep(ATTACK).await;
        TestRedis::start_at(port).await
    });
    let without = without?;
    let (before, beside) = (undisturbed.quantile_ms(0.99), beside.quantile_ms(0.99));
    Ok(vec![
        Row::new("flood: refused", flood.per_second, "req/s"),
        Row::new("flood: p99 of others before", before, "ms"),
        Row::new("flood: p99 of others beside", beside, "ms"),
        Row::new("flood: p99 grown", beside / before, "x").goal(Goal::AtMost(2.0)),
        Row::new("Redis killed: p99", without.quantile_ms(0.99), "ms").goal(Goal::AtMost(100.0)),
        Row::new("Redis killed: slowest", without.quantile_ms(1.0), "ms"),
    ])
}

/// The middle one of what neighbours differ by.
fn added_ms(with: &[Load], without: &[Load]) -> f64 {
    let pairs = with.iter().zip(without);
    let mut added: Vec<_> = pairs
        .map(|(with, without)| with.p50_ms - without.p50_ms)
        .collect();
    added.sort_by(f64::total_cmp);
    added.get(added.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn plane(
    folder: &Path,
    name: &str,
    db: &TestDb,
    more: &[(&'static str, &str)],
) -> anyhow::Result<Plane> {
    let folder = folder.join(name);
    std::fs::create_dir(&folder)?;
    let mut settings = PlaneSettings {
        address: Ipv4Addr::LOCALHOST,
        database_url: db.url().to_owned(),
        tls: false,
        more: vec![
            ("DATABASE_POOL_SIZE", POOL_SIZE.to_string()),
            ("RUST_LOG", "error".to_owned()),
            ("WEB_CONCURRENCY", "1".to_owned()),
            ("MAIL_DIR", folder.join("mail").display().to_string()),
            ("DDOS_WHITELIST_IPS", "127.0.0.1".to_owned()),
        ],
    };
    let more = more
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    settings.more.extend(more);
    Ok(Plane::start(&folder, &settings).await)
}

/// Bans the address and waits until the plane refuses it.
async fn ban(db: &TestDb, user: &Client) {
    db.execute(&format!(
        "INSERT INTO bans (id, network, reason, made_by)
         VALUES (gen_random_uuid(), '{BANNED}', 'manual', 'bench:{}')",
        id()
    ))
    .await;
    wait_until(
        "the address is banned",
        Duration::from_secs(5),
        async || {
            let request = user.request(Method::GET, PATH);
            let reply = user.send(request.header("X-Forwarded-For", BANNED)).await;
            reply.status == 403
        },
    )
    .await;
}
