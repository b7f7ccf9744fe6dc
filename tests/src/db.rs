//! A database a test, cloned from a migrated template.
//!
//! The template's name carries a hash of the migrations, so that a changed migration makes a new
//! one; it is built under an advisory lock, because every test may be a process of its own. It is
//! made under a working name and renamed when it is complete: a killed build leaves no half template
//! that looks whole.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

const TEMPLATE_PREFIX: &str = "primevpn_template_";
const TEST_PREFIX: &str = "primevpn_test_";
const LOCK: i64 = 0x7072_696d_6576_706e;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A database of this test alone, dropped with this value.
#[derive(Debug)]
pub struct TestDb {
    name: String,
    url: String,
}

impl TestDb {
    /// A fresh database with the current schema.
    pub async fn new() -> Self {
        let template = template().await;
        Self::create(&format!("TEMPLATE {template}")).await
    }

    /// A database without any table.
    pub async fn empty() -> Self {
        Self::create("TEMPLATE template0").await
    }

    async fn create(options: &str) -> Self {
        let name = format!(
            "{TEST_PREFIX}{}_{}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        let mut admin = connect(&admin_url()).await;
        admin
            .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            .await
            .expect("the leftover of an earlier process with this id can be dropped");
        admin
            .batch_execute(&format!("CREATE DATABASE {name} {options}"))
            .await
            .expect("the test's database can be made");
        let url = with_database(&admin_url(), &name);
        Self { name, url }
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection outside of any pool.
    pub async fn connect(&self) -> AsyncPgConnection {
        connect(&self.url).await
    }

    /// Runs statements without parameters.
    pub async fn execute(&self, sql: &str) {
        self.connect()
            .await
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    /// The one number that a query gives as `value`.
    pub async fn number(&self, sql: &str) -> i64 {
        let row: Number = diesel::sql_query(format!("SELECT ({sql})::BIGINT AS value"))
            .get_result(&mut self.connect().await)
            .await
            .unwrap_or_else(|error| panic!("{error}: {sql}"));
        row.value
    }

    /// The first column of a query, as text.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let rows: Vec<Line> =
            diesel::sql_query(format!("SELECT q.value::TEXT FROM ({sql}) AS q(value)"))
                .load(&mut self.connect().await)
                .await
                .unwrap_or_else(|error| panic!("{error}: {sql}"));
        rows.into_iter().map(|row| row.value).collect()
    }
}

impl TestDb {
    /// Where anything in any column of any table matches the pattern: the table's name and what was found. Bytes
    /// are looked at as the letters that they are.
    pub async fn find(&self, pattern: &str) -> Vec<String> {
        let columns = self
            .texts(
                "SELECT quote_ident(table_name) || ' ' || quote_ident(column_name) || ' ' || udt_name
                   FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
                  WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
                    AND table_name NOT LIKE '\\_\\_diesel%'",
            )
            .await;
        let pattern = pattern.replace('\'', "''");
        let mut found = Vec::new();
        for column in &columns {
            let mut words = column.split(' ');
            let mut word = || words.next().expect("three words");
            let (table, column, kind) = (word(), word(), word());
            let text = match kind {
                "bytea" => format!("encode({column}, 'escape')"),
                _ => format!("{column}::text"),
            };
            let query = format!(
                "SELECT '{table} ' || left({text}, 200) FROM {table} WHERE {text} ~ '{pattern}' LIMIT 3"
            );
            found.extend(self.texts(&query).await);
        }
        found
    }
}

/// A database that answers nobody.
#[derive(Debug)]
#[must_use]
pub struct TakenAway(String);

impl TestDb {
    /// Ends every connection and takes no new ones, as a Postgres that is down.
    pub async fn take_away(&self) -> TakenAway {
        let name = &self.name;
        connect(&admin_url())
            .await
            .batch_execute(&format!(
                "ALTER DATABASE {name} ALLOW_CONNECTIONS false;
                 SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            ))
            .await
            .expect("the database can be closed");
        TakenAway(name.clone())
    }
}

impl TakenAway {
    pub async fn bring_back(self) {
        connect(&admin_url())
            .await
            .batch_execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.0))
            .await
            .expect("the database can be opened");
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        // The test's runtime may be gone or be the one that runs this.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut admin = AsyncPgConnection::establish(&admin_url()).await?;
                admin
                    .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                    .await?;
                anyhow::Ok(())
            })
        })
        .join();
        if !matches!(dropped, Ok(Ok(()))) {
            eprintln!("a test database was left behind: {dropped:?}");
        }
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    value: String,
}

#[derive(QueryableByName)]
struct Exists {
    #[diesel(sql_type = Bool)]
    value: bool,
}

/// Where the tests may make databases.
#[must_use]
pub fn admin_url() -> String {
    std::env::var("TEST_DATABASE_URL").expect(
        "TEST_DATABASE_URL must name a Postgres in which databases can be made, such as \
         postgres://postgres@127.0.0.1:5432/postgres",
    )
}

async fn connect(url: &str) -> AsyncPgConnection {
    AsyncPgConnection::establish(url)
        .await
        .expect("Postgres answers at TEST_DATABASE_URL")
}

/// The same server with another database.
fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url
        .split_once('?')
        .map_or((url, None), |(b, q)| (b, Some(q)));
    let server = base.rsplit_once('/').map_or(base, |(server, _)| server);
    match query {
        Some(query) => format!("{server}/{name}?{query}"),
        None => format!("{server}/{name}"),
    }
}

/// Makes sure of the template and names it.
async fn template() -> String {
    let name = format!("{TEMPLATE_PREFIX}{:016x}", migrations_hash());
    let mut admin = connect(&admin_url()).await;
    if exists(&mut admin, &name).await {
        return name;
    }
    admin
        .batch_execute(&format!("SELECT pg_advisory_lock({LOCK})"))
        .await
        .expect("the template's lock can be taken");
    // The lock ends with `admin`'s session.
    if !exists(&mut admin, &name).await {
        build(&mut admin, &name).await;
    }
    name
}

async fn build(admin: &mut AsyncPgConnection, name: &str) {
    let stale: Vec<Line> = diesel::sql_query(format!(
        "SELECT datname::TEXT AS value FROM pg_database WHERE datname LIKE '{TEMPLATE_PREFIX}%'"
    ))
    .load(admin)
    .await
    .expect("databases can be listed");
    for Line { value } in stale {
        // Another checkout's tests may be cloning it; its owner builds it again when needed.
        let _ = admin
            .batch_execute(&format!("DROP DATABASE IF EXISTS {value}"))
            .await;
    }
    let working = format!("{name}_building");
    admin
        .batch_execute(&format!("DROP DATABASE IF EXISTS {working} WITH (FORCE)"))
        .await
        .expect("a half template can be dropped");
    admin
        .batch_execute(&format!("CREATE DATABASE {working} TEMPLATE template0"))
        .await
        .expect("the template can be made");
    control_plane::db::run(&with_database(&admin_url(), &working))
        .await
        .expect("the migrations run");
    admin
        .batch_execute(&format!("ALTER DATABASE {working} RENAME TO {name}"))
        .await
        .expect("the template can be named");
}

async fn exists(admin: &mut AsyncPgConnection, name: &str) -> bool {
    let row: Exists = diesel::sql_query(format!(
        "SELECT EXISTS (SELECT FROM pg_database WHERE datname = '{name}') AS value"
    ))
    .get_result(admin)
    .await
    .expect("databases can be listed");
    row.value
}

/// Over the names and the texts of all migrations.
fn migrations_hash() -> u64 {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let mut folders: Vec<_> = std::fs::read_dir(&root)
        .expect("the migrations are there")
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    let mut hasher = DefaultHasher::new();
    for folder in folders {
        folder.file_name().hash(&mut hasher);
        std::fs::read(folder.join("up.sql"))
            .expect("every migration has an up.sql")
            .hash(&mut hasher);
    }
    hasher.finish()
}
