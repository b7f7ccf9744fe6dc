//! What protection costs: `GET /users/me` with and without it, and a banned address beside a bare actix.
//! `scripts/bench guard` builds, starts Postgres and Redis, and runs this.
//!
//! The planes have one worker on one core, and `wrk` the other core. They take turns a second each; of the
//! ratios and differences of neighbours the median counts. Every request comes from another of ten thousand
//! addresses, by a proxy that the planes trust.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, id};
use std::time::Duration;

use clap::Parser;
use reqwest::Method;
use tests::api::Client;
use tests::bench::bare::{self, BareSettings};
use tests::bench::web::{Counted, bare_process, median, median_share, pin};
use tests::bench::wrk::{Load, Target, Wrk};
use tests::bench::{Goal, Row, report};
use tests::lab::{Plane, PlaneSettings, Process};
use tests::redis::free_port;
use tests::{TestDb, wait_until};

const POOL_SIZE: u32 = 16;
const ROUNDS: usize = 11;
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
    /// Where the figures go
    #[arg(long, default_value = "target/bench/guard.json")]
    out: PathBuf,
    /// Fail when a goal is missed
    #[arg(long)]
    check: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    if let Ok(settings) = std::env::var(bare::VARIABLE) {
        let serving = bare::serve(serde_json::from_str(&settings)?);
        actix_web::rt::System::new().block_on(serving)?;
        return Ok(ExitCode::SUCCESS);
    }
    tokio::runtime::Runtime::new()?.block_on(run())
}

async fn run() -> anyhow::Result<ExitCode> {
    tests::init();
    let arguments = Arguments::parse();
    let bench = Bench::set_up(&arguments).await?;
    let mut rows = bench.protected().await?;
    rows.extend(bench.banned().await?);
    report(&rows, &arguments.out)?;
    let missed = rows.iter().any(|row| row.holds == Some(false));
    Ok(if missed && arguments.check {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
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
        let cores = std::thread::available_parallelism()?.get();
        if cores > 1 {
            for process in [with.pid(), without.pid(), bare.pid()] {
                pin(process, 0)?;
            }
        }
        let wrk = Wrk {
            connections: arguments.connections,
            length: Duration::from_secs(arguments.seconds),
            core: (cores > 1).then_some(1),
        };
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

    async fn protected(&self) -> anyhow::Result<Vec<Row>> {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let mut counted = Counted::default();
        self.ask(&self.with).await?;
        self.ask(&self.without).await?;
        for _ in 0..ROUNDS {
            let before = self.count().await?;
            let load = self.ask(&self.with).await?;
            counted.add(&before, &self.count().await?, &load);
            with.push(load);
            without.push(self.ask(&self.without).await?);
        }
        let (share, added) = (median_share(&with, &without), added_ms(&with, &without));
        let (with, without) = (median(with), median(without));
        Ok(vec![
            Row::new("GET /users/me: with protection", with.per_second, "req/s"),
            Row::new("GET /users/me: without", without.per_second, "req/s"),
            Row::new("GET /users/me: with of without", share, "").goal(Goal::AtLeast(0.6)),
            Row::new("GET /users/me: added to p50", added, "ms").goal(Goal::AtMost(0.3)),
            // The plane's own upkeep asks Redis beside the requests, but by no script.
            Row::new(
                "GET /users/me: scripts of Redis",
                counted.scripts(),
                "/request",
            )
            .goal(Goal::AtMost(1.0)),
        ])
    }

    async fn banned(&self) -> anyhow::Result<Vec<Row>> {
        let (mut refused, mut bare) = (Vec::new(), Vec::new());
        let mut counted = Counted::default();
        self.ask_banned().await?;
        for _ in 0..ROUNDS {
            let before = self.count().await?;
            let load = self.ask_banned().await?;
            counted.add(&before, &self.count().await?, &load);
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

    async fn ask(&self, plane: &Plane) -> anyhow::Result<Load> {
        let script = self.folder.path().join("addresses.lua");
        std::fs::write(&script, ADDRESSES)?;
        self.run(format!("{}{PATH}", plane.url()), None, Some(script), false)
            .await
    }

    async fn ask_banned(&self) -> anyhow::Result<Load> {
        let url = format!("{}{PATH}", self.with.url());
        self.run(url, Some(BANNED), None, true).await
    }

    async fn ask_bare(&self) -> anyhow::Result<Load> {
        let url = format!("{}/static/me", self.bare_url);
        self.run(url, Some(BANNED), None, false).await
    }

    async fn run(
        &self,
        url: String,
        address: Option<&str>,
        script: Option<PathBuf>,
        refused: bool,
    ) -> anyhow::Result<Load> {
        let mut headers = vec![format!("Authorization: Bearer {}", self.user.token())];
        headers.extend(address.map(|it| format!("X-Forwarded-For: {it}")));
        let target = Target {
            url,
            headers,
            script,
            refused,
        };
        self.wrk.run(&target).await
    }
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
