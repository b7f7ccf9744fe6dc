//! Connect in every form of the contract.

use std::collections::BTreeSet;
use std::str::FromStr;

use reqwest::Method;
use serde_json::{Value, json};
use shared::wireguard::{PrivateKey, PublicKey};
use tests::api::{Client, Tunnel};
use tests::{Place, SimNode, TestApp, wait_until};
use uuid::Uuid;

use crate::SOON;

fn new_key() -> PublicKey {
    PrivateKey::generate().public_key()
}

/// The node holds exactly what the answer promises.
fn assert_programmed(node: &SimNode, tunnel: &Tunnel, key: PublicKey) {
    let peer = node
        .peer_of(tunnel.connection_id)
        .expect("the node holds the peer");
    assert_eq!(peer.public_key, key);
    assert_eq!(peer.addresses.v4, tunnel.assigned_ip);
    assert_eq!(peer.addresses.v6, tunnel.assigned_ipv6);
    let psk = peer
        .preshared_key
        .map(|key| key.expose_base64().to_string());
    assert_eq!(psk, tunnel.preshared_key);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_the_private_half_stays_with_the_client() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let key = new_key();
    let tunnel = user.connected(&json!({ "client_public_key": key })).await;
    assert_eq!(tunnel.status, "active");
    assert_eq!(tunnel.server.id, node.server());
    assert_eq!(tunnel.server.hostname, "fra");
    assert_eq!(tunnel.server_endpoint, node.config().endpoint);
    assert_eq!(tunnel.server.endpoint, node.config().endpoint);
    assert_eq!(tunnel.server_public_key, node.config().public_key);
    assert!(!tunnel.dns.is_empty());
    let mut lines = tunnel.wg_config.lines();
    assert!(
        !lines.any(|line| line.starts_with("PrivateKey")),
        "{}",
        tunnel.wg_config
    );
    assert!(
        tunnel
            .wg_config
            .contains(&format!("PublicKey = {}", tunnel.server_public_key))
    );
    assert_programmed(&node, &tunnel, key);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_the_plane_makes_a_pair_and_forgets_it() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    let private = tunnel
        .wg_config
        .lines()
        .find_map(|line| line.strip_prefix("PrivateKey = "))
        .expect("a private key in the configuration");
    let key = PrivateKey::from_str(private).expect("a key").public_key();
    assert_programmed(&node, &tunnel, key);
    let rows = app.db().texts("SELECT c::TEXT FROM connections c").await;
    assert!(
        rows.iter().all(|row| !row.contains(private)),
        "never stored"
    );
    let shown = user
        .get(&format!(
            "/api/v1/connection/{}/config",
            tunnel.connection_id
        ))
        .await;
    assert!(!shown.text().contains(private), "returned once");
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_routes_and_no_body_at_all() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    for path in [
        "/vpn/connect",
        "/api/v1/vpn/connect",
        "/api/v1/connection/connect",
    ] {
        let reply = user
            .send(user.request(Method::POST, path))
            .await
            .expect(200);
        let tunnel: Tunnel = reply.read();
        user.disconnected(tunnel.connection_id).await;
    }
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn location_by_body_and_by_query() {
    let app = TestApp::start().await;
    let fra = app
        .node_at(
            "fra",
            Place::new("Germany", "DE", "Frankfurt", "eu-central"),
        )
        .await;
    let nyc = app
        .node_at(
            "nyc",
            Place::new("United States", "US", "New York", "us-east"),
        )
        .await;
    let user = app.user().await;
    for (place, node) in [
        ("us-east", &nyc),
        ("US", &nyc),
        ("germany", &fra),
        ("Frankfurt", &fra),
    ] {
        let by_body = user.connected(&json!({ "location": place })).await;
        assert_eq!(by_body.server.id, node.server(), "{place}");
        let query = format!("/api/v1/vpn/connect?location={place}");
        let by_query: Tunnel = user.post(&query, &json!({})).await.expect(200).read();
        assert_eq!(by_query.server.id, node.server(), "{place}");
        user.disconnected(by_body.connection_id).await;
        user.disconnected(by_query.connection_id).await;
    }
    user.connect(&json!({ "location": "Atlantis" }))
        .await
        .expect_error(503, "NO_SERVER_AVAILABLE");
    app.finish(&[&fra, &nyc]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_again_is_the_same_connection() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let body = json!({ "client_public_key": new_key(), "server_id": node.server() });
    let first = user.connected(&body).await;
    let operations = node.operations();
    let again = user.connected(&body).await;
    assert_eq!(again.connection_id, first.connection_id);
    assert_eq!(again.assigned_ip, first.assigned_ip);
    assert_eq!(again.preshared_key, first.preshared_key);
    assert_eq!(node.operations(), operations, "nothing to program");
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_elsewhere_moves() {
    let app = TestApp::start().await;
    let (fra, nyc) = (app.node("fra").await, app.node("nyc").await);
    // A plan of one connection: the move needs no second place.
    let user = app.user_on("free").await;
    let key = new_key();
    let body = |node: &SimNode| json!({ "client_public_key": key, "server_id": node.server() });
    let first = user.connected(&body(&fra)).await;
    let second = user.connected(&body(&nyc)).await;
    assert_ne!(second.connection_id, first.connection_id);
    assert_programmed(&nyc, &second, key);
    wait_until("the old peer goes", SOON, async || fra.peer_count() == 0).await;
    app.finish(&[&fra, &nyc]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_fails_keeps_the_old_connection() {
    let app = TestApp::start().await;
    let (fra, nyc) = (app.node("fra").await, app.node("nyc").await);
    let user = app.user_on("free").await;
    let key = new_key();
    let body = |node: &SimNode| json!({ "client_public_key": key, "server_id": node.server() });
    let first = user.connected(&body(&fra)).await;
    nyc.set_answer(tests::sim::Answer::Fail(
        shared::protocol::FailureReason::PoolExhausted,
    ));
    user.connect(&body(&nyc))
        .await
        .expect_error(503, "NO_SERVER_AVAILABLE");
    assert_eq!(fra.connections(), [first.connection_id]);
    let again = user.connected(&body(&fra)).await;
    assert_eq!(again.connection_id, first.connection_id);
    app.finish(&[&fra, &nyc]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_key_is_refused() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let (ada, eve) = (app.user().await, app.user().await);
    let body = json!({ "client_public_key": new_key(), "server_id": node.server() });
    let tunnel = ada.connected(&body).await;
    eve.connect(&body).await.expect_error(409, "KEY_IN_USE");
    assert_eq!(node.connections(), [tunnel.connection_id]);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_brings_its_key() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let (ada, eve) = (app.user().await, app.user().await);
    let (device, key) = (Uuid::now_v7(), new_key());
    app.db()
        .execute(&format!(
            "INSERT INTO devices (id, user_id, name, public_key) VALUES ('{device}', '{}', 'phone', '{key}')",
            ada.user()
        ))
        .await;
    let tunnel = ada.connected(&json!({ "device_id": device })).await;
    assert_programmed(&node, &tunnel, key);
    eve.connect(&json!({ "device_id": device }))
        .await
        .expect_error(404, "DEVICE_NOT_FOUND");
    let unknown = json!({ "device_id": Uuid::now_v7() });
    ada.connect(&unknown)
        .await
        .expect_error(404, "DEVICE_NOT_FOUND");
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_name_the_field() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let small_order = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for (field, value) in [
        ("client_public_key", json!("nonsense")),
        ("client_public_key", json!(zero)),
        ("client_public_key", json!(small_order)),
        ("client_public_key", json!(5)),
        ("server_id", json!("here")),
        ("device_id", json!("mine")),
        ("location", json!("x".repeat(5000))),
    ] {
        let reply = user.connect(&json!({ field: value })).await;
        let named = reply.expect_error(400, "INVALID_INPUT");
        // What cannot be read at all is the body's fault.
        assert!(
            named == [field] || named == ["body"],
            "{named:?} for {field}: {value}"
        );
    }
    assert_eq!(node.operations(), 0);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_connects_without_a_token() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    app.client()
        .connect(&json!({}))
        .await
        .expect_error(401, "UNAUTHORIZED");
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_five_gives_five_to_twenty_at_once() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let body = json!({});
    let attempts: [_; 20] = std::array::from_fn(|_| user.connect(&body));
    let replies = futures_util::future::join_all(attempts).await;
    let (won, lost): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 200);
    assert_eq!(won.len(), 5);
    for reply in lost {
        reply.expect_error(403, "CONNECTION_LIMIT");
    }
    let addresses: BTreeSet<_> = won
        .iter()
        .map(|reply| reply.read::<Tunnel>().assigned_ip)
        .collect();
    assert_eq!(addresses.len(), 5, "no address twice");
    wait_until("five peers and no more", SOON, async || {
        node.peer_count() == 5
    })
    .await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_connection_makes_room() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user_on("free").await;
    for _ in 0..3 {
        let tunnel = user.connected(&json!({})).await;
        user.connect(&json!({}))
            .await
            .expect_error(403, "CONNECTION_LIMIT");
        user.disconnected(tunnel.connection_id).await;
    }
    app.finish(&[&node]).await;
}

async fn connect_with_key(user: &Client, key: &str, body: &Value) -> tests::api::Reply {
    let request = user.request(Method::POST, "/api/v1/vpn/connect");
    user.send(request.header("idempotency-key", key).json(body))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_connects_once() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let body = json!({ "client_public_key": new_key() });
    let attempts: [_; 4] = std::array::from_fn(|_| connect_with_key(&user, "once", &body));
    let replies = futures_util::future::join_all(attempts).await;
    let ids: BTreeSet<_> = replies
        .into_iter()
        .map(|reply| reply.expect(200).read::<Tunnel>().connection_id)
        .collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(node.peer_count(), 1);

    // Somebody else's key of the same name is another one.
    let other = app.user().await;
    let theirs: Tunnel = connect_with_key(&other, "once", &json!({}))
        .await
        .expect(200)
        .read();
    assert!(!ids.contains(&theirs.connection_id));
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_says_where_the_time_went() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let reply = user.connect(&json!({})).await.expect(200);
    let timing = reply
        .header("server-timing")
        .expect("a Server-Timing header");
    for part in ["db", "session", "agent", "ledger", "netlink"] {
        let share = tests::api::server_timing(timing, part);
        assert!(
            share.is_some_and(|ms| (0.0..10_000.0).contains(&ms)),
            "{part} in {timing}"
        );
    }
    app.finish(&[&node]).await;
}
