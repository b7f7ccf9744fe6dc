//! Make before break: what clients are offered when their server is drained or falls silent.

use serde_json::{Value, json};
use shared::wireguard::{PrivateKey, PublicKey};
use tests::api::{Client, Metrics, Tunnel};
use tests::sim::Answer;
use tests::{SimNode, TestApp, wait_until};

use crate::SOON;

async fn open(user: &Client) -> Metrics {
    let socket = user.metrics(user.user(), user.token()).await;
    socket.expect("the socket opens")
}

async fn next_of(socket: &mut Metrics, kind: &str) -> Value {
    let next = tokio::time::timeout(SOON * 3, socket.next_of(kind)).await;
    next.unwrap_or_else(|_| panic!("no {kind} in time"))
}

fn replacement(event: &Value) -> Tunnel {
    serde_json::from_value(event["replacement"].clone()).expect("a whole connection")
}

fn new_key() -> PublicKey {
    PrivateKey::generate().public_key()
}

/// The operator wants the node empty.
async fn drain(app: &TestApp, node: &SimNode) {
    set(app, node, "drain_requested_at = now()").await;
}

async fn set(app: &TestApp, node: &SimNode, change: &str) {
    let sql = format!(
        "UPDATE nodes SET {change} WHERE server_id = '{}'",
        node.server()
    );
    app.db().execute(&sql).await;
    app.refresh().await;
}

/// One client on the first of two nodes, on a plan of one connection.
struct Scene {
    app: TestApp,
    first: SimNode,
    second: SimNode,
    user: Client,
    key: PublicKey,
    old: Tunnel,
    socket: Metrics,
}

impl Scene {
    async fn set() -> Self {
        Self::on(TestApp::start().await).await
    }

    async fn with(name: &'static str, value: &'static str) -> Self {
        let app = TestApp::with(|vars| {
            vars.insert(name.to_owned(), value.to_owned());
        });
        Self::on(app.await).await
    }

    async fn on(app: TestApp) -> Self {
        let (first, second) = (app.node("first").await, app.node("second").await);
        let (user, key) = (app.user_on("free").await, new_key());
        let body = json!({ "client_public_key": key, "server_id": first.server() });
        let old = user.connected(&body).await;
        let socket = open(&user).await;
        Self {
            app,
            first,
            second,
            user,
            key,
            old,
            socket,
        }
    }

    /// Drains the first node and waits for the offer.
    async fn drained(&mut self) -> Tunnel {
        drain(&self.app, &self.first).await;
        let event = next_of(&mut self.socket, "server_draining").await;
        assert_eq!(event["connection_id"], self.old.connection_id.to_string());
        assert!(event["replacement_expires_at"].is_string(), "{event}");
        replacement(&event)
    }

    async fn reason(&self, tunnel: &Tunnel) -> Option<String> {
        let sql = format!(
            "SELECT coalesce(end_reason, '') FROM connections WHERE id = '{}' AND status = 'disconnected'",
            tunnel.connection_id
        );
        self.app.db().texts(&sql).await.pop()
    }

    async fn ends(&self, tunnel: &Tunnel, reason: &str) {
        wait_until(&format!("it ends: {reason}"), SOON, async || {
            self.reason(tunnel).await.as_deref() == Some(reason)
        })
        .await;
    }

    /// Connections that hold a place of the plan, and those that a client may use without one.
    async fn places(&self) -> (i64, i64) {
        let live = "SELECT count(*) FROM connections WHERE status IN ('connecting', 'connected')";
        let held = format!("{live} AND user_slot IS NOT NULL");
        let loose = format!("{live} AND user_slot IS NULL AND offered_until IS NULL");
        let db = self.app.db();
        (db.number(&held).await, db.number(&loose).await)
    }

    async fn finish(self) {
        self.app.finish(&[&self.first, &self.second]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_servers_client_moves_without_a_gap() {
    let mut scene = Scene::set().await;
    scene.first.add_traffic(scene.old.connection_id, 100, 200);
    scene.first.report().await;
    let new = scene.drained().await;
    assert_eq!(new.server.id, scene.second.server());
    assert_eq!(new.server_public_key, scene.second.config().public_key);
    let peer = scene.second.peer_of(new.connection_id);
    let peer = peer.expect("the node holds the peer before the client hears of it");
    assert_eq!(
        (peer.public_key, peer.addresses.v4),
        (scene.key, new.assigned_ip)
    );
    assert!(!new.wg_config.lines().any(|it| it.starts_with("PrivateKey")));
    assert!(new.wg_config.contains(&new.server_endpoint));

    // Nothing ended, and nothing more is used of the plan.
    assert_eq!(scene.first.connections(), [scene.old.connection_id]);
    assert_eq!(scene.places().await, (1, 0));
    let status = scene.user.status().await;
    assert_eq!(status["connections"].as_array().map(Vec::len), Some(1));

    scene.first.add_traffic(scene.old.connection_id, 1, 2);
    scene.second.add_traffic(new.connection_id, 5, 7);
    scene.second.report().await;
    let ended = next_of(&mut scene.socket, "disconnected").await;
    assert_eq!(ended["connection_id"], scene.old.connection_id.to_string());
    let began = next_of(&mut scene.socket, "connected").await;
    assert_eq!(began["connection_id"], new.connection_id.to_string());
    scene.ends(&scene.old, "moved").await;
    assert_eq!(scene.first.peer_count(), 0);
    assert_eq!(scene.places().await, (1, 0));
    let last = scene.user.disconnected(scene.old.connection_id).await;
    assert_eq!((last.bytes_sent, last.bytes_received), (101, 202));
    let kept = scene.user.disconnected(new.connection_id).await;
    assert_eq!((kept.bytes_sent, kept.bytes_received), (5, 7));
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_and_the_agents_own_drain_are_the_same() {
    let mut scene = Scene::set().await;
    let sql = format!(
        "UPDATE vpn_servers SET status = 'maintenance' WHERE id = '{}'",
        scene.first.server()
    );
    scene.app.db().execute(&sql).await;
    scene.app.refresh().await;
    let event = next_of(&mut scene.socket, "server_draining").await;
    assert_eq!(replacement(&event).server.id, scene.second.server());

    let other = scene.app.user().await;
    let mut socket = open(&other).await;
    let tunnel = other.connected(&json!({})).await;
    assert_eq!(tunnel.server.id, scene.second.server());
    let third = scene.app.node("third").await;
    scene
        .second
        .set_load(shared::protocol::Load {
            draining: true,
            ..Default::default()
        })
        .await;
    let event = next_of(&mut socket, "server_draining").await;
    assert_eq!(event["connection_id"], tunnel.connection_id.to_string());
    assert_eq!(replacement(&event).server.id, third.server());
    scene.app.finish(&[&scene.first, &third]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_nobody_uses_frees_its_address_and_its_peer() {
    let mut scene = Scene::with("OFFER_LIFETIME", "1s").await;
    let new = scene.drained().await;
    // Whoever does not look is offered nothing more.
    scene.socket = open(&scene.app.user().await).await;
    scene.ends(&new, "unused").await;
    assert_eq!(scene.second.peer_count(), 0);
    assert_eq!(scene.first.connections(), [scene.old.connection_id]);
    assert_eq!(scene.places().await, (1, 0));
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_look_is_offered_nothing() {
    let scene = Scene::set().await;
    let support = scene.app.user_with_role("support").await;
    drop(scene.socket);
    let looking = support.metrics(scene.user.user(), support.token()).await;
    let mut looking = looking.expect("support may look");
    drain(&scene.app, &scene.first).await;
    for _ in 0..4 {
        next_of(&mut looking, "metrics").await;
    }
    assert_eq!(scene.second.peer_count(), 0);
    let mut socket = open(&scene.user).await;
    next_of(&mut socket, "server_draining").await;
    // What is the client's alone is not shown to others.
    let event = next_of(&mut looking, "server_draining").await;
    assert!(event["replacement"].is_null(), "{event}");
    scene.app.finish(&[&scene.first, &scene.second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_takes_the_offer() {
    let mut scene = Scene::set().await;
    let new = scene.drained().await;
    let operations = scene.second.operations();
    let body = json!({ "client_public_key": scene.key });
    let taken = scene.user.connected(&body).await;
    assert_eq!(taken.connection_id, new.connection_id);
    assert_eq!(scene.second.operations(), operations, "it is there already");
    scene.ends(&scene.old, "moved").await;
    assert_eq!(scene.places().await, (1, 0));
    let offered = "SELECT count(*) FROM connections WHERE offered_until IS NOT NULL";
    assert_eq!(scene.app.db().number(offered).await, 0);
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_elsewhere_leaves_the_offer() {
    let mut scene = Scene::set().await;
    let new = scene.drained().await;
    let third = scene.app.node("third").await;
    let body = json!({ "client_public_key": scene.key, "server_id": third.server() });
    let chosen = scene.user.connected(&body).await;
    assert_eq!(chosen.server.id, third.server());
    scene.ends(&scene.old, "moved").await;
    scene.ends(&new, "withdrawn").await;
    assert_eq!(scene.places().await, (1, 0));
    assert_eq!(scene.second.peer_count(), 0);
    scene
        .app
        .finish(&[&scene.first, &scene.second, &third])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnecting_leaves_the_offer_its_place_until_somebody_needs_it() {
    let mut scene = Scene::set().await;
    let new = scene.drained().await;
    scene.user.disconnected(scene.old.connection_id).await;
    assert_eq!(scene.places().await, (1, 0));
    // The client may have changed over just now, and goes on.
    scene.second.add_traffic(new.connection_id, 1, 1);
    scene.second.report().await;
    let began = next_of(&mut scene.socket, "connected").await;
    assert_eq!(began["connection_id"], new.connection_id.to_string());
    let full = scene
        .user
        .connect(&json!({ "client_public_key": new_key() }))
        .await;
    full.expect_error(403, "CONNECTION_LIMIT");
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_without_a_cause_makes_room() {
    let mut scene = Scene::set().await;
    let new = scene.drained().await;
    scene.user.disconnected(scene.old.connection_id).await;
    let other = scene
        .user
        .connected(&json!({ "client_public_key": new_key() }))
        .await;
    assert_eq!(other.server.id, scene.second.server());
    scene.ends(&new, "moved").await;
    assert_eq!(scene.places().await, (1, 0));
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_another_server_the_client_is_told_so() {
    let mut scene = Scene::set().await;
    drain(&scene.app, &scene.second).await;
    drain(&scene.app, &scene.first).await;
    let event = next_of(&mut scene.socket, "server_draining").await;
    assert_eq!(event["connection_id"], scene.old.connection_id.to_string());
    assert!(event["replacement"].is_null(), "{event}");
    assert_eq!(scene.first.connections(), [scene.old.connection_id]);

    // Once one has room, and some time after the last attempt, it is offered.
    set(&scene.app, &scene.second, "drain_requested_at = NULL").await;
    let later = "UPDATE connections SET offer_tried_at = offer_tried_at - interval '1 minute'";
    scene.app.db().execute(later).await;
    let event = next_of(&mut scene.socket, "server_draining").await;
    assert_eq!(replacement(&event).server.id, scene.second.server());
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_is_not_offered() {
    let mut scene = Scene::with("CONNECT_ACK_TIMEOUT_MS", "300").await;
    let third = scene.app.node("third").await;
    scene.app.set_load(&third, 90.0).await;
    scene.second.set_answer(Answer::Never);
    let new = scene.drained().await;
    assert_eq!(new.server.id, third.server());
    scene.second.set_answer(Answer::Promptly);
    scene.second.hang_up().await;
    scene
        .app
        .finish(&[&scene.first, &scene.second, &third])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_whose_server_is_drained_too_is_replaced() {
    let mut scene = Scene::set().await;
    let new = scene.drained().await;
    let third = scene.app.node("third").await;
    drain(&scene.app, &scene.second).await;
    let later = "UPDATE connections SET offer_tried_at = offer_tried_at - interval '1 minute'";
    scene.app.db().execute(later).await;
    let event = next_of(&mut scene.socket, "server_draining").await;
    assert_eq!(replacement(&event).server.id, third.server());
    scene.ends(&new, "withdrawn").await;
    scene
        .app
        .finish(&[&scene.first, &scene.second, &third])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_nodes_client_is_offered_another_and_no_byte_counts_twice() {
    let mut scene = Scene::with("OFFER_AFTER_SILENCE", "2s").await;
    let old = scene.old.connection_id;
    scene.first.add_traffic(old, 100, 200);
    scene.first.report().await;
    scene.first.stop().await;
    wait_until("no new clients there", SOON, async || {
        !scene.app.is_selectable(&scene.first)
    })
    .await;
    let event = next_of(&mut scene.socket, "server_unreachable").await;
    let new = replacement(&event);
    assert_eq!(new.server.id, scene.second.server());

    // The plane does not see it, and packets may flow for a while.
    scene.first.add_traffic(old, 20, 30);
    scene.second.add_traffic(new.connection_id, 5, 7);
    scene.second.report().await;
    let ended = next_of(&mut scene.socket, "disconnected").await;
    assert_eq!(ended["connection_id"], old.to_string());
    assert_eq!(scene.places().await, (1, 0));

    scene.first.start();
    scene.ends(&scene.old, "moved").await;
    assert_eq!(scene.first.peer_count(), 0);
    let last = scene.user.disconnected(old).await;
    assert_eq!((last.bytes_sent, last.bytes_received), (120, 230));
    let kept = scene.user.disconnected(new.connection_id).await;
    assert_eq!((kept.bytes_sent, kept.bytes_received), (5, 7));
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_make_one_offer() {
    let mut scene = Scene::on(TestApp::replicas(2).await).await;
    for node in [&scene.first, &scene.second] {
        scene.app.wait_selectable_at(1, node).await;
    }
    let mut there = open(&scene.user.at(scene.app.url_of(1))).await;
    next_of(&mut there, "metrics").await;
    let new = scene.drained().await;
    let event = next_of(&mut there, "server_draining").await;
    assert_eq!(replacement(&event).connection_id, new.connection_id);
    for _ in 0..3 {
        next_of(&mut there, "metrics").await;
    }
    let offers = "SELECT count(*) FROM connections WHERE supersedes IS NOT NULL";
    assert_eq!(scene.app.db().number(offers).await, 1);
    assert_eq!(scene.second.connections(), [new.connection_id]);
    // Whoever comes back to a socket is told again.
    let mut again = open(&scene.user).await;
    let event = next_of(&mut again, "server_draining").await;
    assert_eq!(replacement(&event).connection_id, new.connection_id);

    scene.second.add_traffic(new.connection_id, 1, 1);
    scene.second.report().await;
    for socket in [&mut there, &mut scene.socket] {
        let ended = next_of(socket, "disconnected").await;
        assert_eq!(ended["connection_id"], scene.old.connection_id.to_string());
    }
    scene.ends(&scene.old, "moved").await;
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_are_offered_others_and_nobody_holds_two_places() {
    let app = TestApp::start().await;
    let (first, second) = (app.node("first").await, app.node("second").await);
    let mut clients = Vec::new();
    for _ in 0..12 {
        let user = app.user_on("free").await;
        let body = json!({ "client_public_key": new_key(), "server_id": first.server() });
        let old = user.connected(&body).await;
        let socket = open(&user).await;
        clients.push((user, old, socket));
    }
    drain(&app, &first).await;
    let mut offered = Vec::new();
    for (_, _, socket) in &mut clients {
        offered.push(replacement(&next_of(socket, "server_draining").await));
    }
    for new in &offered {
        second.add_traffic(new.connection_id, 1, 1);
    }
    second.report().await;
    wait_until("the first is empty", SOON, async || first.peer_count() == 0).await;
    assert_eq!(second.peer_count(), clients.len());
    let twice = "SELECT count(*) FROM (SELECT FROM connections
        WHERE status IN ('connecting', 'connected') GROUP BY user_id HAVING count(*) > 1) AS twice";
    assert_eq!(app.db().number(twice).await, 0);
    app.finish(&[&first, &second]).await;
}
