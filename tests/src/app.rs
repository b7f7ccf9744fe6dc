//! The real plane in this process: one replica or several over one database.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use control_plane::accounts::{Role, SessionId};
use control_plane::analytics;
use control_plane::app::{AppState, Application, RunningApp};
use control_plane::billing::customers;
use control_plane::billing::reconcile::{self, Report};
use control_plane::billing::subscription::{self, Reference, Seen};
use control_plane::billing::sync::Mode;
use control_plane::config::{Config, Variables};
use control_plane::fleet::identity::Enrolment;
use control_plane::fleet::selection::is_available;
use control_plane::tunnels;
use diesel_async::AsyncConnection;
use secrecy::ExposeSecret;
use shared::ids::{ConnectionId, UserId};
use shared::protocol::Load;
use uuid::Uuid;

use crate::api::Client;
use crate::mail::{self, Mail};
use crate::sim::SimConfig;
use crate::{SimNode, TestDb, init, redis, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// Where a server stands.
#[derive(Debug, Clone)]
pub struct Place {
    country: String,
    code: String,
    city: String,
    location: String,
    tier: i16,
}

impl Place {
    #[must_use]
    pub fn new(country: &str, code: &str, city: &str, location: &str) -> Self {
        Self {
            country: country.to_owned(),
            code: code.to_owned(),
            city: city.to_owned(),
            location: location.to_owned(),
            tier: 0,
        }
    }

    #[must_use]
    pub fn tier(self, tier: i16) -> Self {
        Self { tier, ..self }
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new("Germany", "DE", "Frankfurt", "eu-central")
    }
}

/// The plane, its database, and what a test does to it. End a test with [`TestApp::finish`].
#[derive(Debug)]
pub struct TestApp {
    replicas: Vec<Option<RunningApp>>,
    urls: Vec<String>,
    variables: Variables,
    mails: tempfile::TempDir,
    db: TestDb,
    users: AtomicU32,
    nodes: AtomicU32,
}

impl TestApp {
    /// One replica with the settings of the tests.
    pub async fn start() -> Self {
        Self::replicas(1).await
    }

    /// One replica with other variables.
    pub async fn with(change: impl Fn(&mut Variables)) -> Self {
        Self::replicas_with(1, change).await
    }

    pub async fn replicas(count: usize) -> Self {
        Self::replicas_with(count, |_| ()).await
    }

    pub async fn replicas_with(count: usize, change: impl Fn(&mut Variables)) -> Self {
        init();
        let db = TestDb::new().await;
        let mails = tempfile::tempdir().expect("a folder can be made");
        let mut variables = variables(db.url());
        let folder = mails.path().display().to_string();
        variables.insert("MAIL_DIR".to_owned(), folder);
        change(&mut variables);
        let mut app = Self {
            replicas: Vec::new(),
            urls: Vec::new(),
            variables,
            mails,
            db,
            users: AtomicU32::new(0),
            nodes: AtomicU32::new(0),
        };
        for _ in 0..count {
            app.start_replica().await;
        }
        app
    }

    /// One more replica like the others.
    pub async fn start_replica(&mut self) {
        let config = self.configuration();
        let running = Application::start(config).await.expect("the plane starts");
        self.urls.push(format!("http://{}", running.address));
        self.replicas.push(Some(running));
    }

    /// What the replicas are started with.
    #[must_use]
    pub fn configuration(&self) -> Config {
        Config::read(&self.variables).expect("the tests' configuration is valid")
    }

    /// The environment that the replicas are started with.
    #[must_use]
    pub const fn variables(&self) -> &Variables {
        &self.variables
    }

    #[must_use]
    pub fn db(&self) -> &TestDb {
        &self.db
    }

    /// The first replica's base URL.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url_of(0)
    }

    #[must_use]
    pub fn url_of(&self, replica: usize) -> &str {
        self.urls.get(replica).expect("so many replicas")
    }

    /// Where the first replica tells its metrics.
    #[must_use]
    pub fn metrics_url(&self) -> String {
        let running = self.replicas.first().and_then(Option::as_ref);
        let running = running.expect("the replica runs");
        format!("http://{}", running.metrics_address)
    }

    fn state_of(&self, replica: usize) -> &AppState {
        let running = self.replicas.get(replica).and_then(Option::as_ref);
        running.expect("the replica runs").state()
    }

    fn state(&self) -> &AppState {
        self.state_of(0)
    }

    /// What whoever changes a subscription does with it.
    pub async fn limits_changed(&self, user: UserId) {
        let mut connection = self.state().db().get().await.expect("a connection");
        let changed = tunnels::limits_changed(&mut connection, user).await;
        tunnels::signal_limits(self.state(), changed.expect("limits are written"));
    }

    /// What whoever changes a plan does afterwards.
    pub async fn limits_of_plan_changed(&self, plan: &str) {
        let changed = tunnels::limits_of_plan_changed(self.state(), plan).await;
        changed.expect("limits are written");
    }

    /// What whoever reads a subscription at Stripe does with what it says. `id` names the subscription.
    pub async fn subscription_seen(&self, user: UserId, id: &str, seen: &Seen) {
        let state = self.state();
        let mut connection = state.db().get().await.expect("a connection");
        let applied = connection
            .transaction(async |connection| {
                let reference = Reference::new(id, vec![id.as_bytes().to_vec()]);
                subscription::apply(state, connection, user, &reference, seen, Utc::now()).await
            })
            .await;
        applied.expect("it is folded").signal(state);
    }

    /// Makes this customer of Stripe's the person, as their first purchase does. Stripe has to be somebody who
    /// answers what it is told to.
    pub async fn customer(&self, client: &Client) -> String {
        let email = format!("{}@example.org", client.user());
        let made = customers::ensure(self.state(), client.user(), &email).await;
        made.expect("a customer is made").as_str().to_owned()
    }

    /// Compares everything with Stripe, as an operator's command does.
    pub async fn reconcile(&self, is_dry_run: bool) -> Report {
        let mode = if is_dry_run { Mode::Look } else { Mode::Write };
        let report = reconcile::reconcile(self.state(), mode).await;
        report.expect("it is compared")
    }

    /// Does with the rollups what time makes due, as if it were `now`.
    pub async fn keep_rollups(&self, now: DateTime<Utc>) {
        let kept = analytics::keep(self.state(), now).await;
        kept.expect("the rollups are kept");
    }

    /// Waits until a replica relies on what Redis tells of ended sessions, or until it does not.
    pub async fn wait_hearing(&self, replica: usize, hears: bool) {
        let revocations = self.state_of(replica).revocations();
        wait_until("word of ended sessions", SOON, async || {
            revocations.is_revoked(SessionId::generate()).is_some() == hears
        })
        .await;
    }

    /// Stops one replica as a deployment would.
    pub async fn stop_replica(&mut self, replica: usize) {
        let running = self.replicas.get_mut(replica).and_then(Option::take);
        running.expect("the replica runs").stop().await;
    }

    /// An anonymous client of the first replica.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.url())
    }

    /// A new person with five connections and tier 1.
    pub async fn user(&self) -> Client {
        self.user_on("premium_monthly").await
    }

    /// A new person on this plan, made in the database: hashing a password takes longer than most
    /// tests.
    pub async fn user_on(&self, plan: &str) -> Client {
        self.make_user(plan, Role::User, "user").await
    }

    pub async fn user_with_role(&self, role: &str) -> Client {
        let known: Role = serde_json::from_value(role.into()).expect("a role");
        self.make_user("free", known, role).await
    }

    async fn make_user(&self, plan: &str, role: Role, role_name: &str) -> Client {
        let number = self.users.fetch_add(1, Ordering::Relaxed);
        let (user, session) = (UserId::generate(), SessionId::generate());
        self.db
            .execute(&format!(
                "INSERT INTO users (id, email, hashed_password, role)
                 VALUES ('{user}', 'user{number}@example.org', 'none', '{role_name}');
                 INSERT INTO sessions (id, user_id, expires_at)
                 VALUES ('{}', '{user}', now() + interval '30 days');
                 INSERT INTO subscriptions (id, user_id, plan_id, plan_type, end_date, access_until)
                 SELECT '{}', '{user}', id, plan_type, ends_at, ends_at
                 FROM plans, LATERAL (SELECT CASE WHEN plan_type <> 'free' THEN now() + interval '30 days' END AS ends_at) AS period
                 WHERE id = '{plan}'",
                session.0,
                Uuid::now_v7()
            ))
            .await;
        let token = self.token(user, role, session, TimeDelta::zero());
        self.client().with_token(user, &token)
    }

    fn token(&self, user: UserId, role: Role, session: SessionId, issued_ago: TimeDelta) -> String {
        let issued = self
            .state()
            .tokens()
            .issue(user, role, session, Utc::now() - issued_ago);
        issued
            .expect("a token is signed")
            .token
            .expose_secret()
            .to_owned()
    }

    /// A token that ended a minute ago.
    #[must_use]
    pub fn expired_token(&self, user: UserId) -> String {
        let life = self.token_life();
        self.token(
            user,
            Role::User,
            SessionId::generate(),
            life + TimeDelta::minutes(1),
        )
    }

    /// A token of a session of its own that ends after this time.
    pub async fn token_for(&self, user: UserId, left: Duration) -> String {
        let left = TimeDelta::from_std(left).expect("a short time");
        let session = SessionId::generate();
        self.db
            .execute(&format!(
                "INSERT INTO sessions (id, user_id, expires_at)
                 VALUES ('{}', '{user}', now() + interval '30 days')",
                session.0
            ))
            .await;
        self.token(user, Role::User, session, self.token_life() - left)
    }

    fn token_life(&self) -> TimeDelta {
        let life = self.state().config().tokens.access_token_life;
        TimeDelta::from_std(life).expect("a short time")
    }

    /// A token that enrols this host.
    pub async fn enrolment_token(&self, hostname: &str) -> String {
        self.sign_enrolment(hostname, &Place::default(), TimeDelta::minutes(10))
            .await
    }

    pub async fn expired_enrolment_token(&self, hostname: &str) -> String {
        self.sign_enrolment(hostname, &Place::default(), TimeDelta::minutes(-1))
            .await
    }

    async fn sign_enrolment(&self, hostname: &str, place: &Place, left: TimeDelta) -> String {
        let id = Uuid::now_v7();
        let expires_at = Utc::now() + left;
        let Place {
            country,
            code,
            city,
            location,
            tier,
        } = place;
        self.db
            .execute(&format!(
                "INSERT INTO enrolment_tokens
                 (id, hostname, country, country_code, city, location, tier, expires_at)
                 VALUES ('{id}', '{hostname}', '{country}', '{code}', '{city}', '{location}', {tier},
                         '{}')",
                expires_at.to_rfc3339()
            ))
            .await;
        let enrolment = Enrolment {
            id,
            hostname: Some(hostname.to_owned()),
        };
        let identity = self.state().fleet().identity();
        identity
            .enrolment_token(&enrolment, expires_at)
            .expect("a token is signed")
    }

    /// A configuration whose endpoint no other node of this test has.
    #[must_use]
    pub fn config(&self, hostname: &str) -> SimConfig {
        let number = self.nodes.fetch_add(1, Ordering::Relaxed);
        SimConfig {
            endpoint: format!("192.0.2.{}:51820", 1 + number % 250),
            ..SimConfig::named(hostname)
        }
    }

    /// A node that takes clients.
    pub async fn node(&self, hostname: &str) -> SimNode {
        self.node_with(self.config(hostname)).await
    }

    pub async fn node_with(&self, config: SimConfig) -> SimNode {
        let node = self.enrolled(config).await;
        node.wait_online().await;
        self.wait_selectable(&node).await;
        node
    }

    pub async fn node_at(&self, hostname: &str, place: Place) -> SimNode {
        let config = self.config(hostname);
        let token = self
            .sign_enrolment(hostname, &place, TimeDelta::minutes(10))
            .await;
        let node = SimNode::enrol(self.url(), &token, config).await;
        let node = node.expect("the plane enrols it");
        self.wait_selectable(&node).await;
        node
    }

    /// A node that has enrolled and dials.
    pub async fn enrolled(&self, config: SimConfig) -> SimNode {
        let token = self.enrolment_token(&config.hostname).await;
        let node = SimNode::enrol(self.url(), &token, config).await;
        node.expect("the plane enrols it")
    }

    /// Reports this load and waits until selection knows it.
    pub async fn set_load(&self, node: &SimNode, current_load: f64) {
        node.set_load(Load {
            current_load,
            ..Load::default()
        })
        .await;
        wait_until("the load is known", SOON, async || {
            let view = self.state().fleet().view();
            let server = view.get(node.server());
            server.is_some_and(|server| {
                let live = server.live();
                (live.load - current_load).abs() < 0.01 && live.pending == 0
            })
        })
        .await;
    }

    /// The round trip to a node in milliseconds, as selection sees it.
    #[must_use]
    pub fn ping_of(&self, node: &SimNode) -> u32 {
        let view = self.state().fleet().view();
        view.get(node.server())
            .map_or(0, |server| server.live().ping)
    }

    /// Whether selection offers the node now.
    #[must_use]
    pub fn is_selectable(&self, node: &SimNode) -> bool {
        self.is_selectable_at(0, node)
    }

    /// Whether that replica's selection does.
    #[must_use]
    pub fn is_selectable_at(&self, replica: usize, node: &SimNode) -> bool {
        let view = self.state_of(replica).fleet().view();
        view.get(node.server())
            .is_some_and(|server| is_available(server, &server.live(), Utc::now()))
    }

    pub async fn wait_selectable(&self, node: &SimNode) {
        self.wait_selectable_at(0, node).await;
    }

    pub async fn wait_selectable_at(&self, replica: usize, node: &SimNode) {
        let name = &node.config().hostname;
        wait_until(&format!("{name} takes clients"), SOON, async || {
            self.is_selectable_at(replica, node)
        })
        .await;
    }

    /// Makes every replica see what the test wrote into the catalogue.
    pub async fn refresh(&self) {
        for running in self.replicas.iter().flatten() {
            let refreshed = running.state().fleet().refresh().await;
            refreshed.expect("the fleet can be read");
        }
    }

    /// The mails to this address so far, in order. Waits until everything posted has left.
    pub async fn mails_to(&self, address: &str) -> Vec<Mail> {
        self.jobs_end().await;
        mail::read(self.mails.path(), address)
    }

    /// Waits until every job has ended.
    pub async fn jobs_end(&self) {
        wait_until("every job has ended", SOON, async || {
            let waiting = "SELECT count(*) FROM jobs WHERE status = 'waiting'";
            self.db.number(waiting).await == 0
        })
        .await;
    }

    /// Why jobs failed, for a test that wants it so: they are not held against it at its end.
    pub async fn take_failed_jobs(&self) -> Vec<String> {
        let reasons = self
            .db
            .texts("SELECT last_error FROM jobs WHERE status = 'failed' ORDER BY id")
            .await;
        self.db
            .execute("DELETE FROM jobs WHERE status = 'failed'")
            .await;
        reasons
    }

    /// Ends the test: stops the plane and fails when something is left behind. Every node that
    /// still runs must hold exactly the peers of the live connections on it.
    pub async fn finish(self, nodes: &[&SimNode]) {
        wait_until("no connection is left half way", SOON, async || {
            let half =
                "SELECT count(*) FROM connections WHERE status IN ('connecting', 'disconnecting')";
            self.db.number(half).await == 0
        })
        .await;
        for node in nodes {
            self.assert_in_step(node).await;
        }
        if self.replicas.iter().any(Option::is_some) {
            self.jobs_end().await;
        }
        let failed = self.take_failed_jobs().await;
        assert!(failed.is_empty(), "jobs failed: {failed:?}");
        for running in self.replicas.into_iter().flatten() {
            let waiting = running.state().fleet().waiting();
            assert_eq!(waiting, 0, "requests that wait for nodes were leaked");
            // A graceful stop waits a second for connections that stay open; its own tests use it.
            running.state().shutdown().cancel();
        }
        let addresses = "SELECT count(*) FROM (SELECT 1 FROM connections WHERE status = 'connected'
            GROUP BY server_id, client_ip HAVING count(*) > 1) AS twice";
        assert_eq!(
            self.db.number(addresses).await,
            0,
            "an address was given twice"
        );
    }

    /// The node's peers are the live connections, neither more nor fewer.
    pub async fn assert_in_step(&self, node: &SimNode) {
        let mut live = Vec::new();
        wait_until(
            &format!("{} holds the live connections", node.config().hostname),
            SOON,
            async || {
                live = self.live_on(node).await;
                live == node.connections()
            },
        )
        .await;
    }

    async fn live_on(&self, node: &SimNode) -> Vec<ConnectionId> {
        let sql = format!(
            "SELECT id FROM connections WHERE status = 'connected' AND server_id = '{}'",
            node.server()
        );
        let ids = self.db.texts(&sql).await;
        let mut ids: Vec<_> = ids.iter().map(|id| id.parse().expect("a UUID")).collect();
        ids.sort_unstable();
        ids
    }
}

/// The environment of a replica in a test.
#[must_use]
pub fn variables(database_url: &str) -> Variables {
    let loopback = IpAddr::from([127, 0, 0, 1]).to_string();
    [
        ("DATABASE_URL", database_url),
        ("DATABASE_POOL_SIZE", "6"),
        ("REDIS_URL", &redis::shared_url()),
        ("REDIS_POOL_SIZE", "2"),
        ("HOST", &loopback),
        ("PORT", "0"),
        ("METRICS_PORT", "0"),
        ("WEB_CONCURRENCY", "1"),
        ("SECRET_KEY", "a-secret-of-the-tests-that-is-long-enough"),
        ("JWT_SECRET_KEY", "another-secret-of-the-tests-long-enough"),
        ("SHUTDOWN_TIMEOUT", "5"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}
