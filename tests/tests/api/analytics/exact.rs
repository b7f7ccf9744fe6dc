//! Hours are what the connections grew by, to the byte, whatever nodes repeat.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;
use shared::ids::ConnectionId;
use shared::wireguard::{PrivateKey, PublicKey};
use tests::api::Client;
use tests::sim::Reports;
use tests::{SimNode, TestApp, wait_until};

use super::{books, data, sum};
use crate::SOON;

const PEOPLE: usize = 3;
const NODES: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    Traffic(usize, u64, u64),
    Report,
    /// Everything that nodes say comes twice from now on, or not.
    Repeat(bool),
    /// The node makes its interface anew.
    Renew(usize),
    /// A client goes to a node, from the other one if it is there, or connects.
    Go(usize, usize),
    Leave(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = || 0..50_000_000_u64;
    let step = prop_oneof![
        6 => (0..PEOPLE, bytes(), bytes()).prop_map(|(who, sent, received)| Step::Traffic(who, sent, received)),
        4 => Just(Step::Report),
        1 => any::<bool>().prop_map(Step::Repeat),
        1 => (0..NODES).prop_map(Step::Renew),
        3 => (0..PEOPLE, 0..NODES).prop_map(|(who, node)| Step::Go(who, node)),
        1 => (0..PEOPLE).prop_map(Step::Leave),
    ];
    proptest::collection::vec(step, 60)
}

struct Person {
    client: Client,
    key: PublicKey,
    live: Option<(usize, ConnectionId)>,
    moved: (u64, u64),
    connects: u64,
}

struct World {
    app: TestApp,
    nodes: Vec<SimNode>,
    people: Vec<Person>,
}

impl World {
    async fn new() -> Self {
        let app = TestApp::start().await;
        let mut nodes = Vec::new();
        for number in 0..NODES {
            nodes.push(app.node(&format!("node-{number}")).await);
        }
        let mut people = Vec::new();
        for _ in 0..PEOPLE {
            people.push(Person {
                client: app.user().await,
                key: PrivateKey::generate().public_key(),
                live: None,
                moved: (0, 0),
                connects: 0,
            });
        }
        Self { app, nodes, people }
    }

    async fn report(&self) {
        for node in &self.nodes {
            node.report().await;
        }
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Traffic(who, sent, received) => {
                let person = &mut self.people[*who];
                if let Some((node, connection)) = person.live {
                    self.nodes[node].add_traffic(connection, *sent, *received);
                    person.moved.0 += sent;
                    person.moved.1 += received;
                }
            }
            Step::Report => self.report().await,
            Step::Repeat(again) => {
                let reports = if *again {
                    Reports::Repeated
                } else {
                    Reports::Once
                };
                self.nodes.iter().for_each(|node| node.set_reports(reports));
            }
            Step::Renew(node) => {
                self.nodes[*node].report().await;
                self.nodes[*node].reset_counters();
            }
            Step::Go(who, node) => {
                let server = self.nodes[*node].server();
                let person = &mut self.people[*who];
                if person.live.is_none_or(|(there, _)| there != *node) {
                    let body = json!({ "server_id": server, "client_public_key": person.key });
                    let tunnel = person.client.connected(&body).await;
                    person.live = Some((*node, tunnel.connection_id));
                    person.connects += 1;
                }
            }
            Step::Leave(who) => {
                let person = &mut self.people[*who];
                if let Some((_, connection)) = person.live.take() {
                    person.client.disconnected(connection).await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rollups_are_what_connections_grew_by() {
    let mut world = World::new().await;
    let mut runner = TestRunner::default();
    let steps = steps().new_tree(&mut runner).expect("steps").current();
    for step in &steps {
        world.take(step).await;
    }
    for who in 0..PEOPLE {
        world.take(&Step::Leave(who)).await;
    }
    let app = &world.app;
    let moved: u64 = world.people.iter().map(|it| it.moved.0 + it.moved.1).sum();
    let moved = i64::try_from(moved).expect("few bytes");
    wait_until("every byte is stored", SOON, async || {
        books(app).await == [moved; 3]
    })
    .await;
    // The same by user and server, and the connections themselves.
    let differing = "
        WITH grown AS (
            SELECT user_id, server_id, sum(bytes_sent) AS sent, sum(bytes_received) AS received, count(*) AS connects,
                   sum(extract(epoch FROM ended_at - connected_at)::bigint) AS seconds
              FROM connections WHERE connected_at IS NOT NULL GROUP BY 1, 2
        ), rolled AS (
            SELECT user_id, server_id, sum(bytes_sent) AS sent, sum(bytes_received) AS received,
                   sum(connects) AS connects, sum(ends) AS ends, sum(connected_seconds) AS seconds
              FROM usage_hours GROUP BY 1, 2
        )
        SELECT count(*) FROM grown g FULL JOIN rolled r USING (user_id, server_id)
         WHERE (g.sent, g.received, g.connects, g.connects, g.seconds)
               IS DISTINCT FROM (r.sent, r.received, r.connects, r.ends, r.seconds)";
    wait_until("every connection is counted", SOON, async || {
        app.db().number(differing).await == 0
    })
    .await;
    for person in &world.people {
        let points = data(&person.client, super::USAGE).await;
        let figures = (sum(&points, "bytes_sent"), sum(&points, "bytes_received"));
        assert_eq!(figures, person.moved, "{steps:?}");
        let points = data(&person.client, "/api/v1/analytics/connections").await;
        let figures = (sum(&points, "started"), sum(&points, "ended"));
        assert_eq!(figures, (person.connects, person.connects), "{steps:?}");
    }
    let nodes: Vec<_> = world.nodes.iter().collect();
    world.app.finish(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_of_a_server_or_user_that_goes() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let (user, support) = (app.user().await, app.user_with_role("support").await);
    let tunnel = user.connected(&json!({})).await;
    node.add_traffic(tunnel.connection_id, 1000, 2000);
    user.disconnected(tunnel.connection_id).await;
    wait_until("it is stored", SOON, async || {
        books(&app).await == [3000; 3]
    })
    .await;
    app.db()
        .execute(&format!(
            "DELETE FROM vpn_servers WHERE id = '{}'",
            node.server()
        ))
        .await;
    app.refresh().await;
    assert_eq!(sum(&data(&user, super::USAGE).await, "total_bytes"), 3000);
    let rows = data(&support, "/api/v1/analytics/servers/usage").await;
    assert_eq!(rows[0]["total_bytes"], 3000);
    assert!(rows[0]["hostname"].is_null(), "{rows:?}");

    app.db()
        .execute(&format!(
            "UPDATE users SET deleted_at = now() - interval '1 day' WHERE id = '{}'",
            user.user()
        ))
        .await;
    let mut connection = app.db().connect().await;
    let life = std::time::Duration::from_secs(60);
    let swept = control_plane::accounts::deletion::sweep(&mut connection, life, 10).await;
    assert_eq!(swept.expect("it sweeps"), 1);
    let rows = "SELECT count(*) FROM usage_hours";
    assert_eq!(app.db().number(rows).await, 0);
    assert_eq!(
        sum(&data(&support, super::USAGE).await, "total_bytes"),
        3000
    );
    app.finish(&[]).await;
}
