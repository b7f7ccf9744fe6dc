//! Analytics over millions of rollup rows, through HTTP. `scripts/bench analytics` builds, starts Postgres and
//! Redis, and runs this.
//!
//! A month of hours is made by Postgres alone; the plane closes its days by itself. Then support asks for
//! one user's month after the other's, and for everybody's.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;
use nix::unistd::Pid;
use serde_json::Value;
use tests::api::Client;
use tests::bench::process::cpu_seconds;
use tests::bench::{Goal, Report, Row, Samples};
use tests::lab::{Plane, PlaneSettings};
use tests::{TestDb, wait_until};
use uuid::Uuid;

const DAYS: u32 = 30;
const HOURS: u32 = DAYS * 24;
const SERVERS: u32 = 200;
/// For the upkeep, which runs once a minute.
const LONG: Duration = Duration::from_secs(20 * 60);

#[derive(Debug, Parser)]
#[command(about = "Measures analytics over many rollup rows")]
struct Arguments {
    /// Rows of users and hours
    #[arg(long, default_value_t = 10_000_000)]
    rows: u32,
    /// How often each thing is asked for
    #[arg(long, default_value_t = 500)]
    requests: u32,
    #[command(flatten)]
    report: Report,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    tests::init();
    let arguments = Arguments::parse();
    let users = arguments.rows.div_ceil(HOURS);
    let (db, folder) = (TestDb::new().await, tempfile::tempdir()?);
    open_since(&db, DAYS + 1).await;
    let settings = PlaneSettings {
        address: [127, 0, 0, 1].into(),
        database_url: db.url().to_owned(),
        tls: false,
        more: vec![("RATE_LIMIT_ENABLED", "false".to_owned())],
    };
    let plane = Plane::start(folder.path(), &settings).await;
    // Its first upkeep makes the months.
    closed(&db).await;
    let began = Instant::now();
    fill(&db, users).await;
    let filled = began.elapsed();
    let began = Instant::now();
    open_since(&db, DAYS).await;
    closed(&db).await;
    let closing = began.elapsed();
    db.execute("VACUUM ANALYZE").await;
    let support = support(&db, &plane).await;
    let bench = Bench {
        support,
        plane: plane.pid(),
        users,
        requests: arguments.requests,
    };
    let count = async |table: &str| {
        let rows = db.number(&format!("SELECT count(*) FROM {table}")).await;
        u32::try_from(rows).map(f64::from)
    };
    let mut rows = vec![
        Row::new("rows of users and hours", count("usage_hours").await?, ""),
        Row::new("rows of users and days", count("usage_days").await?, ""),
        Row::new("made in", filled.as_secs_f64(), "s"),
        Row::new("30 days closed within", closing.as_secs_f64(), "s"),
    ];
    let of_a_user = [
        ("a user's month by day", "interval=day", Some(50.0)),
        ("a user's day by hour", "interval=hour", None),
        ("a user's year by month", "interval=month", None),
    ];
    for (name, query, goal) in of_a_user {
        rows.extend(bench.users(name, query).await?.rows(goal));
    }
    let hours = hours_of_a_month();
    let of_the_fleet = [
        ("the fleet's month by day", "interval=day", Some(300.0)),
        ("the fleet's 31 days by hour", &hours, None),
    ];
    for (name, query, goal) in of_the_fleet {
        rows.extend(bench.fleet(name, query).await?.rows(goal));
    }
    arguments.report.end("analytics", &rows)
}

fn hours_of_a_month() -> String {
    let since = chrono::Utc::now() - chrono::TimeDelta::days(31);
    let since = since + chrono::TimeDelta::minutes(10);
    format!(
        "interval=hour&from={}",
        since.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    )
}

/// As if no day of the last `days` were closed.
async fn open_since(db: &TestDb, days: u32) {
    db.execute(&format!(
        "DELETE FROM usage_days; DELETE FROM server_days;
         UPDATE rollup_state SET closed_until = (now() AT TIME ZONE 'UTC')::date - {days}"
    ))
    .await;
}

/// Waits until every day that is over is closed.
async fn closed(db: &TestDb) {
    let is_closed = "SELECT count(*) FROM rollup_state
                      WHERE closed_until = ((now() - interval '1 hour') AT TIME ZONE 'UTC')::date";
    wait_until("days are closed", LONG, async || {
        db.number(is_closed).await == 1
    })
    .await;
}

/// SQL for the id of this number; [`Uuid::from_u128`] says the same.
fn id(number: &str) -> String {
    format!("lpad(to_hex({number}), 32, '0')::uuid")
}

/// Everybody used one server in every hour of the month. Rows come as they do in life, hour by hour.
async fn fill(db: &TestDb, users: u32) {
    let (user, server) = (id("u"), id(&format!("(u * 31 + h) % {SERVERS}")));
    db.execute(&format!(
        "INSERT INTO usage_hours
         SELECT {user}, date_trunc('hour', now(), 'UTC') - h * interval '1 hour', {server},
                (u * 7919 + h) * 1000::bigint, (u * 104729 + h) * 1000::bigint, 5000000, 1, 1, 1800
           FROM generate_series({HOURS} - 1, 0, -1) h, generate_series(1, {users}) u;
         INSERT INTO server_hours
         SELECT server_id, hour, sum(bytes_sent), sum(bytes_received), max(peak_bytes_per_second), sum(connects),
                sum(ends), sum(connected_seconds), 60, 60 * 30, 90, 60 * 500, 600
           FROM usage_hours GROUP BY server_id, hour"
    ))
    .await;
}

async fn support(db: &TestDb, plane: &Plane) -> Client {
    let email = "support@example.org";
    let client = plane.client().sign_up(email).await;
    let promote = format!(
        "UPDATE users SET role = 'support' WHERE id = '{}'",
        client.user()
    );
    db.execute(&promote).await;
    plane.client().log_in(email).await
}

struct Bench {
    support: Client,
    plane: Pid,
    users: u32,
    requests: u32,
}

impl Bench {
    /// One user after the other, those of a step of many so that neighbours are not.
    async fn users(&self, name: &'static str, query: &str) -> anyhow::Result<Measured> {
        let path = |number: u32| {
            let user = number.wrapping_mul(7919) % self.users + 1;
            let user = Uuid::from_u128(user.into());
            format!("/api/v1/analytics/usage?{query}&user_id={user}")
        };
        self.measure(name, "/totals/total_bytes", path).await
    }

    async fn fleet(&self, name: &'static str, query: &str) -> anyhow::Result<Measured> {
        let path = format!("/api/v1/analytics/usage?{query}");
        self.measure(name, "/totals/total_bytes", |_| path.clone())
            .await
    }

    /// What is at `used` in the answers has to be something.
    async fn measure(
        &self,
        name: &'static str,
        used: &str,
        path: impl Fn(u32) -> String,
    ) -> anyhow::Result<Measured> {
        let (mut samples, cpu) = (Samples::default(), cpu_seconds(self.plane)?);
        for number in 0..self.requests {
            let path = path(number);
            let began = Instant::now();
            let reply = self.support.get(&path).await.expect(200);
            samples.push(began.elapsed());
            let bytes = reply.json().pointer(used).and_then(Value::as_u64);
            ensure!(bytes > Some(0), "nothing was used: {path}");
        }
        Ok(Measured {
            name,
            p99: samples.quantile_ms(0.99),
            cpu: cpu_seconds(self.plane)? - cpu,
            requests: self.requests,
        })
    }
}

/// What asking for something often came to.
struct Measured {
    name: &'static str,
    /// In milliseconds.
    p99: f64,
    /// Of the plane's process alone, in seconds.
    cpu: f64,
    requests: u32,
}

impl Measured {
    fn rows(&self, goal: Option<f64>) -> [Row; 2] {
        let each = self.cpu * 1000.0 / f64::from(self.requests);
        let p99 = Row::new(format!("{}, p99", self.name), self.p99, "ms");
        [
            match goal {
                Some(milliseconds) => p99.goal(Goal::AtMost(milliseconds)),
                None => p99,
            },
            Row::new(format!("{}, CPU of the plane", self.name), each, "ms"),
        ]
    }
}
