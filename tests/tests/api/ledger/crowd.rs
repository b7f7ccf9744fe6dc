//! People who move bytes through simulated nodes, and what the books may say of it meanwhile.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use shared::ids::ConnectionId;
use shared::wireguard::{PrivateKey, PublicKey};
use tests::api::{Client, Tunnel};
use tests::lab::{Plane, try_connect};
use tests::sim::SimConfig;
use tests::{SimNode, wait_until};
use tokio::time::{sleep, timeout};

const NODES: usize = 2;
const PEOPLE: usize = 6;
/// Of a person's bytes in one direction at a time.
const MOST: u64 = 20_000;
/// Between two steps.
const STEP: Duration = Duration::from_millis(30);
/// A request that a dead plane or database keeps waiting is given up.
const PATIENCE: Duration = Duration::from_millis(300);
/// Within which everything is stored once nothing is in the way.
const SETTLED: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Bytes {
    sent: u64,
    received: u64,
}

impl Bytes {
    fn is_at_least(self, other: Self) -> bool {
        self.sent >= other.sent && self.received >= other.received
    }
}

type Totals = HashMap<ConnectionId, Bytes>;

/// At most one connection, always of the same key.
struct Person {
    client: Client,
    key: PublicKey,
    live: Option<ConnectionId>,
}

pub(super) struct Crowd {
    pub(super) random: StdRng,
    /// Those that are asked for the live figures.
    planes: Vec<String>,
    database_url: String,
    database: Option<AsyncPgConnection>,
    nodes: Vec<SimNode>,
    people: Vec<Person>,
    /// What the nodes counted.
    counted: Totals,
    booked: Totals,
    /// What each plane said last.
    shown: HashMap<String, Totals>,
    readings: usize,
    answers: usize,
    renewals: usize,
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: u64 = self.counted.values().map(|it| it.sent + it.received).sum();
        let (connections, renewals) = (self.counted.len(), self.renewals);
        let (readings, answers) = (self.readings, self.answers);
        write!(
            f,
            "{bytes} bytes of {connections} connections, {renewals} interfaces made anew; \
             the books were read {readings} times, the live figures {answers} times"
        )
    }
}

impl Crowd {
    /// Nodes with a session at this plane, and people who are connected.
    pub(super) async fn gather(plane: &Plane, database_url: &str, seed: u64) -> Self {
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let config = SimConfig {
                endpoint: format!("192.0.2.{}:51820", number + 1),
                ..SimConfig::named(&format!("node-{number}"))
            };
            let token = plane.enrolment_token(&config.hostname);
            let node = SimNode::enrol(plane.url(), &token, config).await;
            nodes.push(node.expect("the plane enrols it"));
        }
        let mut people = Vec::new();
        for number in 0..PEOPLE {
            let email = format!("person{number}@example.org");
            people.push(Person {
                client: plane.client().sign_up(&email).await,
                key: PrivateKey::generate().public_key(),
                live: None,
            });
        }
        let mut crowd = Self {
            random: StdRng::seed_from_u64(seed),
            planes: vec![plane.url().to_owned()],
            database_url: database_url.to_owned(),
            database: None,
            nodes,
            people,
            counted: Totals::new(),
            booked: Totals::new(),
            shown: HashMap::new(),
            readings: 0,
            answers: 0,
            renewals: 0,
        };
        crowd.meet().await;
        crowd
    }

    /// Waits until everybody is connected, by the connection of an answer that was lost where there is one.
    async fn meet(&mut self) {
        wait_until("everybody is connected", SETTLED, async || {
            for who in 0..PEOPLE {
                if self.people[who].live.is_none() {
                    self.come(who).await;
                }
            }
            self.people.iter().all(|person| person.live.is_some())
        })
        .await;
    }

    /// Asks this plane too.
    pub(super) fn ask(&mut self, plane: &Plane) {
        self.planes.push(plane.url().to_owned());
    }

    /// Lets bytes flow for this time.
    pub(super) async fn move_for(&mut self, time: Duration) {
        self.move_while(sleep(time)).await;
    }

    /// Lets bytes flow until this is done.
    pub(super) async fn move_while<T>(&mut self, act: impl Future<Output = T>) -> T {
        let over = Cell::new(false);
        let acting = async {
            let done = act.await;
            over.set(true);
            done
        };
        let moving = async {
            while !over.get() {
                self.step().await;
            }
        };
        tokio::join!(acting, moving).0
    }

    /// The node dials this plane from now on.
    pub(super) async fn move_node(&mut self, number: usize, plane: &str) {
        let mut node = self.nodes.remove(number);
        node.stop().await;
        let mut node = node.moved_to(plane);
        node.start();
        node.wait_online().await;
        self.nodes.insert(number, node);
    }

    /// How many totals this plane, which is dead, had shown and not stored.
    pub(super) async fn lost_with(&mut self, plane: &str) -> usize {
        self.read_books().await;
        let shown = self.shown.remove(plane).unwrap_or_default();
        let lost = shown
            .iter()
            .filter(|(connection, shown)| !self.of(connection).is_at_least(**shown));
        lost.count()
    }

    fn of(&self, connection: &ConnectionId) -> Bytes {
        self.booked.get(connection).copied().unwrap_or_default()
    }

    /// Waits until the books have everything, then has everybody go and insists on the same.
    pub(super) async fn leave(&mut self) {
        self.meet().await;
        self.settle("what was counted is stored").await;
        wait_until("everybody has left", SETTLED, async || {
            for who in 0..PEOPLE {
                self.move_bytes(who);
                self.go(who).await;
            }
            let people = self.people.iter().all(|person| person.live.is_none());
            people && self.nodes.iter().all(|node| node.peer_count() == 0)
        })
        .await;
        self.settle("final counters are stored").await;
    }

    async fn settle(&mut self, what: &str) {
        let counted = |it: &Self| it.counted.keys().all(|id| it.of(id) == it.counted[id]);
        wait_until(what, SETTLED, async || {
            self.read_books().await;
            counted(self)
        })
        .await;
    }

    async fn step(&mut self) {
        for _ in 0..PEOPLE {
            let who = self.random.random_range(0..PEOPLE);
            self.move_bytes(who);
        }
        if self.random.random_ratio(1, 10) {
            let number = self.random.random_range(0..NODES);
            self.nodes[number].reset_counters();
            self.renewals += 1;
        }
        if self.random.random_ratio(1, 6) {
            let who = self.random.random_range(0..PEOPLE);
            match self.people[who].live {
                Some(_) => self.go(who).await,
                None => self.come(who).await,
            }
        }
        self.read_books().await;
        for plane in 0..self.planes.len() {
            self.read_figures(plane).await;
        }
        sleep(STEP).await;
    }

    fn node_of(&self, who: usize) -> &SimNode {
        &self.nodes[who % NODES]
    }

    fn move_bytes(&mut self, who: usize) {
        let mut bytes = || self.random.random_range(0..MOST);
        let (sent, received) = (bytes(), bytes());
        let Some(connection) = self.people[who].live else {
            return;
        };
        // The peer may be gone already.
        if let Some(passed) = self.node_of(who).pass_traffic(connection, sent, received) {
            assert_eq!(passed, sent + received, "the quota is far away");
            let counted = self.counted.entry(connection).or_default();
            counted.sent += sent;
            counted.received += received;
        }
    }

    /// Somebody connects, if the plane can.
    async fn come(&mut self, who: usize) {
        let person = &self.people[who];
        let body =
            json!({ "server_id": self.node_of(who).server(), "client_public_key": person.key });
        let request = person.client.request(Method::POST, "/api/v1/vpn/connect");
        let answer = answer(request.json(&body)).await;
        if let Some(tunnel) = answer {
            let tunnel: Tunnel = serde_json::from_value(tunnel).expect("a connection");
            self.people[who].live = Some(tunnel.connection_id);
            self.counted.entry(tunnel.connection_id).or_default();
        }
    }

    /// Somebody disconnects, if the plane can.
    async fn go(&mut self, who: usize) {
        let person = &self.people[who];
        let Some(connection) = person.live else {
            return;
        };
        let path = format!("/api/v1/vpn/disconnect/{connection}");
        let request = person.client.request(Method::POST, &path);
        if answer(request).await.is_some() {
            self.people[who].live = None;
        }
    }

    /// The books at one moment, if the database answers.
    async fn read_books(&mut self) {
        if self.database.is_none() {
            self.database = try_connect(&self.database_url).await;
        }
        let Some(database) = &mut self.database else {
            return;
        };
        let Ok(booked) = read(database).await else {
            self.database = None;
            return;
        };
        self.readings += 1;
        for (connection, now) in &booked {
            let before = self.of(connection);
            assert!(now.is_at_least(before), "{before:?} became {now:?}");
            self.assert_counted(connection, *now);
        }
        let all_there = self.booked.keys().all(|it| booked.contains_key(it));
        assert!(all_there, "a connection is gone from the books");
        self.booked = booked;
    }

    /// What a plane shows of everybody, if it answers.
    async fn read_figures(&mut self, plane: usize) {
        for who in 0..PEOPLE {
            let plane = &self.planes[plane];
            let client = self.people[who].client.at(plane);
            let request = client.request(Method::GET, "/api/v1/connection/status");
            let Some(status) = answer(request).await else {
                return;
            };
            self.answers += 1;
            let shown = self.shown.entry(plane.clone()).or_default();
            let mut seen = Vec::new();
            for live in status["connections"].as_array().expect("a list") {
                let id = live["connection_id"].as_str().expect("an id");
                let connection: ConnectionId = id.parse().expect("an id");
                let number = |name: &str| live[name].as_u64().expect("a number");
                let now = Bytes {
                    sent: number("bytes_sent"),
                    received: number("bytes_received"),
                };
                let before = shown.insert(connection, now).unwrap_or_default();
                assert!(
                    now.is_at_least(before),
                    "{before:?} became {now:?} at {plane}"
                );
                seen.push((connection, now));
            }
            for (connection, now) in seen {
                self.assert_counted(&connection, now);
            }
        }
    }

    fn assert_counted(&self, connection: &ConnectionId, said: Bytes) {
        let counted = self.counted.get(connection).copied().unwrap_or_default();
        assert!(
            counted.is_at_least(said),
            "{said:?} of {connection}, where nodes counted {counted:?}"
        );
    }
}

/// The answer to a request that succeeds, in time.
async fn answer(request: reqwest::RequestBuilder) -> Option<Value> {
    let asking = async {
        let response = request.send().await.ok()?;
        let response = response.error_for_status().ok()?;
        response.json().await.ok()
    };
    timeout(PATIENCE, asking).await.ok().flatten()
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = BigInt)]
    sent: i64,
    #[diesel(sql_type = BigInt)]
    received: i64,
    #[diesel(sql_type = BigInt)]
    differing: i64,
}

/// What each connection came to. Insists that hours of users and of servers come to the same at that moment.
async fn read(database: &mut AsyncPgConnection) -> diesel::QueryResult<Totals> {
    const SQL: &str = "
        WITH grown AS (
            SELECT user_id, server_id, sum(bytes_sent) AS sent, sum(bytes_received) AS received
              FROM connections GROUP BY 1, 2
        ), of_users AS (
            SELECT user_id, server_id, sum(bytes_sent) AS sent, sum(bytes_received) AS received
              FROM usage_hours GROUP BY 1, 2
        ), of_servers AS (
            SELECT server_id, sum(bytes_sent) AS sent, sum(bytes_received) AS received
              FROM server_hours GROUP BY 1
        ), differing AS (
            SELECT g.sent - u.sent FROM grown g FULL JOIN of_users u USING (user_id, server_id)
             WHERE (coalesce(g.sent, 0), coalesce(g.received, 0))
                   IS DISTINCT FROM (coalesce(u.sent, 0), coalesce(u.received, 0))
             UNION ALL
            SELECT g.sent - s.sent
              FROM (SELECT server_id, sum(sent) AS sent, sum(received) AS received FROM grown GROUP BY 1) g
              FULL JOIN of_servers s USING (server_id)
             WHERE (coalesce(g.sent, 0), coalesce(g.received, 0))
                   IS DISTINCT FROM (coalesce(s.sent, 0), coalesce(s.received, 0))
        )
        SELECT id::text, bytes_sent AS sent, bytes_received AS received,
               (SELECT count(*) FROM differing) AS differing
          FROM connections";
    let rows: Vec<Row> = diesel::sql_query(SQL).load(database).await?;
    let count = |bytes: i64| u64::try_from(bytes).expect("not negative");
    let total = |row: &Row| {
        assert_eq!(row.differing, 0, "rollups that differ from connections");
        let bytes = Bytes {
            sent: count(row.sent),
            received: count(row.received),
        };
        (row.id.parse().expect("an id"), bytes)
    };
    Ok(rows.iter().map(total).collect())
}
