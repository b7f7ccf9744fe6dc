//! What the hot routes cost: requests a second, latency, round trips and CPU time a request, beside
//! a bare actix in the same run. `scripts/bench api` builds, starts Postgres and Redis, and runs this.
//!
//! The server under load has one worker on one core, and `wrk` the other core. Ours and the two
//! limits take turns a second each, because the machine itself is now faster and now slower; of the runs and
//! of the ratios of neighbours the median counts. All are sent the same requests.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use control_plane::secrets::SecretToken;
use secrecy::ExposeSecret;
use serde_json::json;
use shared::ids::UserId;
use tests::TestDb;
use tests::api::Client;
use tests::bench::bare::BareSettings;
use tests::bench::web::{
    self, Counted, ROUNDS, TOLERANCE, bare_process, median, median_share, pin,
};
use tests::bench::wrk::{Load, Target, Wrk};
use tests::bench::{Goal, Report, Row};
use tests::lab::{Plane, PlaneSettings, Process};
use tests::redis::free_port;

const POOL_SIZE: u32 = 16;
/// A token works once: each answer brings the next.
const REFRESHING: &str = r#"
local tokens = { TOKENS }
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
function request()
    return wrk.format(nil, nil, nil, '{"refresh_token":"' .. table.remove(tokens) .. '"}')
end
function response(status, headers, body)
    table.insert(tokens, body:match('"refresh_token":"([^"]+)"'))
end
"#;
/// Of what the round trips alone allow.
const SHARE: f64 = 0.7;

#[derive(Debug, Parser)]
#[command(about = "Measures the hot routes")]
struct Arguments {
    /// How many connections are kept busy
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// How long each run takes
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    /// How many servers the list has
    #[arg(long, default_value_t = 20)]
    servers: usize,
    #[command(flatten)]
    report: Report,
}

fn main() -> anyhow::Result<ExitCode> {
    web::main(run())
}

async fn run() -> anyhow::Result<ExitCode> {
    tests::init();
    let arguments = Arguments::parse();
    let bench = Bench::set_up(&arguments).await?;
    let mut rows = Vec::new();
    for route in Route::ALL {
        rows.extend(bench.measure(route).await?);
    }
    arguments.report.end("api", &rows)
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Me,
    Servers,
    Refresh,
}

impl Route {
    const ALL: [Self; 3] = [Self::Me, Self::Servers, Self::Refresh];

    const fn name(self) -> &'static str {
        match self {
            Self::Me => "GET /users/me",
            Self::Servers => "GET /servers",
            Self::Refresh => "POST /auth/refresh",
        }
    }

    const fn ours(self) -> &'static str {
        match self {
            Self::Me => "/api/v1/users/me",
            Self::Servers => "/api/v1/servers?per_page=20",
            Self::Refresh => "/api/v1/auth/refresh",
        }
    }

    const fn bare(self) -> &'static str {
        match self {
            Self::Me => "/static/me",
            Self::Servers => "/static/servers",
            Self::Refresh => "/static/refresh",
        }
    }

    /// The bare answer after the same round trips; the bare one itself where there are none.
    const fn trips(self) -> &'static str {
        match self {
            Self::Me => "/trips/me",
            Self::Servers => "/static/servers",
            Self::Refresh => "/trips/refresh",
        }
    }

    /// Postgres queries a request at most, where that is promised.
    const fn queries(self) -> Option<f64> {
        match self {
            Self::Me => Some(1.0),
            Self::Servers | Self::Refresh => None,
        }
    }
}

/// Fields are dropped in this order: what uses something goes before it.
struct Bench {
    plane: Plane,
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
        db.execute(&servers(arguments.servers)).await;
        let folder = tempfile::tempdir()?;
        let settings = PlaneSettings {
            address: Ipv4Addr::LOCALHOST,
            database_url: db.url().to_owned(),
            tls: false,
            more: vec![
                ("DATABASE_POOL_SIZE", POOL_SIZE.to_string()),
                ("RUST_LOG", "warn".to_owned()),
                ("WEB_CONCURRENCY", "1".to_owned()),
                ("MAIL_DIR", folder.path().join("mail").display().to_string()),
            ],
        };
        let plane = Plane::start(folder.path(), &settings).await;
        let user = plane.client().sign_up("bench@example.org").await;
        let (bare, bare_url) = bare_server(folder.path(), &db, &user).await?;
        let cores = std::thread::available_parallelism()?.get();
        if cores > 1 {
            pin(plane.pid(), 0)?;
            pin(bare.pid(), 0)?;
        }
        let wrk = Wrk {
            connections: arguments.connections,
            length: Duration::from_secs(arguments.seconds),
            core: (cores > 1).then_some(1),
        };
        Ok(Self {
            plane,
            _bare: bare,
            bare_url,
            user,
            wrk,
            db,
            folder,
        })
    }

    async fn measure(&self, route: Route) -> anyhow::Result<Vec<Row>> {
        let (mut ours, mut trips, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        let mut counted = Counted::default();
        self.ours(route).await?;
        for _ in 0..ROUNDS {
            let before = Counted::now(&self.db, self.plane.pid()).await?;
            let load = self.ours(route).await?;
            counted.add(
                &before,
                &Counted::now(&self.db, self.plane.pid()).await?,
                load.requests,
            );
            ours.push(load);
            trips.push(self.limit(route, route.trips()).await?);
            bare.push(self.limit(route, route.bare()).await?);
        }
        let share = median_share(&ours, &trips);
        let (ours, trips, bare) = (median(ours), median(trips), median(bare));
        let name = |what: &str| format!("{}: {what}", route.name());
        let queries = Row::new(name("Postgres queries"), counted.queries(), "/request");
        Ok(vec![
            Row::new(name("ours"), ours.per_second, "req/s"),
            Row::new(name("ours, p99"), ours.p99_ms, "ms"),
            Row::new(
                name("same round trips, nothing else"),
                trips.per_second,
                "req/s",
            ),
            Row::new(name("same round trips, p99"), trips.p99_ms, "ms"),
            Row::new(name("bare actix, same body"), bare.per_second, "req/s"),
            Row::new(name("bare actix, p99"), bare.p99_ms, "ms"),
            Row::new(name("ours of same round trips"), share, "").goal(Goal::AtLeast(SHARE)),
            match route.queries() {
                Some(most) => queries.goal(Goal::AtMost(most + TOLERANCE)),
                None => queries,
            },
            Row::new(name("Redis round trips"), counted.commands(), "/request"),
            Row::new(
                name("CPU of the plane"),
                counted.cpu_microseconds(),
                "us/request",
            ),
        ])
    }

    async fn ours(&self, route: Route) -> anyhow::Result<Load> {
        let script = match route {
            Route::Refresh => Some(self.refreshing().await?),
            _ => None,
        };
        let target = Target {
            url: format!("{}{}", self.plane.url(), route.ours()),
            headers: self.headers(),
            script,
            refused: false,
        };
        self.wrk.run(&target).await
    }

    fn headers(&self) -> Vec<String> {
        vec![format!("Authorization: Bearer {}", self.user.token())]
    }

    async fn limit(&self, route: Route, path: &str) -> anyhow::Result<Load> {
        let script = match route {
            Route::Refresh => Some(self.script("post", "wrk.method = \"POST\"\n")?),
            _ => None,
        };
        let target = Target {
            url: format!("{}{path}", self.bare_url),
            headers: self.headers(),
            script,
            refused: false,
        };
        self.wrk.run(&target).await
    }

    /// A script that gives each answer's token back, with sessions of its own to begin with.
    async fn refreshing(&self) -> anyhow::Result<PathBuf> {
        let tokens = open_sessions(&self.db, self.user.user(), self.wrk.connections * 4).await;
        let tokens: Vec<_> = tokens.iter().map(|token| format!("{token:?}")).collect();
        let text = REFRESHING.replace("TOKENS", &tokens.join(","));
        self.script("refresh", &text)
    }

    fn script(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(format!("{name}.lua"));
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

/// This program again, as the bare server, with the bodies that ours answers.
async fn bare_server(
    folder: &Path,
    db: &TestDb,
    user: &Client,
) -> anyhow::Result<(Process, String)> {
    let body = async |name: &str, path: &str| -> anyhow::Result<PathBuf> {
        let file = folder.join(name);
        std::fs::write(&file, user.get(path).await.expect(200).body)?;
        Ok(file)
    };
    let settings = BareSettings {
        port: free_port(),
        database_url: db.url().to_owned(),
        pool_size: POOL_SIZE,
        user: user.user(),
        me: body("me", Route::Me.ours()).await?,
        servers: body("servers", Route::Servers.ours()).await?,
        refresh: refreshed(folder, user).await?,
        tokens: open_sessions(db, user.user(), 256).await,
    };
    bare_process(folder, &settings).await
}

/// What a refresh answers.
async fn refreshed(folder: &Path, user: &Client) -> anyhow::Result<PathBuf> {
    let token = user.refresh_token();
    let body = json!({ "refresh_token": token });
    let file = folder.join("refresh");
    let answer = user.post(Route::Refresh.ours(), &body).await.expect(200);
    std::fs::write(&file, answer.body)?;
    Ok(file)
}

/// Sessions of this person, and their refresh tokens.
async fn open_sessions(db: &TestDb, user: UserId, number: usize) -> Vec<String> {
    let tokens: Vec<_> = (0..number).map(|_| SecretToken::generate()).collect();
    let rows = tokens.iter().map(|token| {
        let hash = token.hash();
        let hash: String = hash
            .as_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("(gen_random_uuid(), '\\x{hash}'::bytea)")
    });
    let rows: Vec<_> = rows.collect();
    db.execute(&format!(
        "WITH made (id, hash) AS MATERIALIZED (VALUES {}), opened AS (
             INSERT INTO sessions (id, user_id, expires_at)
             SELECT id, '{user}', now() + interval '30 days' FROM made RETURNING id)
         INSERT INTO refresh_tokens (token_hash, session_id)
         SELECT hash, id FROM made JOIN opened USING (id)",
        rows.join(",")
    ))
    .await;
    let text = |token: &SecretToken| token.expose_secret().to_owned();
    tokens.iter().map(text).collect()
}

/// A catalogue, and the means to count queries.
fn servers(number: usize) -> String {
    format!(
        "CREATE EXTENSION pg_stat_statements;
         INSERT INTO vpn_servers (id, hostname, country, country_code, city, location, ip_address,
             endpoint, public_key, available_ips, capacity, streaming_services, features)
         SELECT gen_random_uuid(), 'node-' || n || '.example.org', 'Germany', 'DE', 'Frankfurt',
             'eu-central', ('192.0.2.' || n)::inet, '192.0.2.' || n || ':51820',
             encode(sha256(n::text::bytea), 'base64'), '10.8.0.0/16', 65000, '{{netflix}}', '{{p2p}}'
         FROM generate_series(1, {number}) AS n;
         INSERT INTO nodes (server_id) SELECT id FROM vpn_servers"
    )
}
