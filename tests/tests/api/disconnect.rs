//! Disconnect in every form, and the counters that it settles.

use rstest::rstest;
use serde_json::{Value, json};
use shared::ids::ConnectionId;
use tests::api::Ended;
use tests::{TestApp, wait_until};

use crate::SOON;

#[rstest]
#[case::seed_by_id("/vpn/disconnect/ID", json!({}))]
#[case::by_id("/api/v1/vpn/disconnect/ID", json!({}))]
#[case::the_only_one("/api/v1/vpn/disconnect", json!({}))]
#[case::seed_claim("/vpn/disconnect", json!({ "bytes_sent": 999_999, "bytes_received": 1 }))]
#[case::second_seed("/api/v1/connection/disconnect", json!({}))]
#[case::by_body("/api/v1/connection/disconnect", json!({ "connection_id": "ID" }))]
#[tokio::test(flavor = "multi_thread")]
async fn every_form_ends_with_the_nodes_counters(#[case] path: &str, #[case] body: Value) {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    let id = tunnel.connection_id.to_string();
    // Moved, and not yet reported: the removal's answer brings it.
    node.add_traffic(tunnel.connection_id, 1_000_000, 2_000_000);
    let body: Value = serde_json::from_str(&body.to_string().replace("ID", &id)).expect("JSON");
    let reply = user.post(&path.replace("ID", &id), &body).await.expect(200);
    let ended: Ended = reply.read();
    assert_eq!(ended.connection_id, tunnel.connection_id);
    assert_eq!(ended.status, "ended");
    assert_eq!(
        (ended.bytes_sent, ended.bytes_received),
        (1_000_000, 2_000_000)
    );
    assert_eq!(ended.total_bytes, 3_000_000);
    assert_eq!(ended.duration, ended.duration_seconds);
    assert!(ended.ended_at >= ended.started_at);
    assert!(ended.summary["avg_speed"].is_string() && ended.summary["peak_speed"].is_string());
    assert_eq!(node.peer_count(), 0);
    if let Some(claim) = body.get("bytes_sent").and_then(Value::as_i64) {
        let claimed = "SELECT claimed_bytes_sent FROM connections";
        assert_eq!(app.db().number(claimed).await, claim, "kept as a claim");
    }
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twice_is_as_good_as_once() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    node.add_traffic(tunnel.connection_id, 10, 20);
    let first = user.disconnected(tunnel.connection_id).await;
    let second = user.disconnected(tunnel.connection_id).await;
    assert_eq!(first.ended_at, second.ended_at);
    assert_eq!((second.bytes_sent, second.bytes_received), (10, 20));
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_ends_what_is_not_theirs() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let (ada, eve) = (app.user().await, app.user().await);
    let tunnel = ada.connected(&json!({})).await;
    for id in [tunnel.connection_id, ConnectionId::generate()] {
        eve.disconnect(id)
            .await
            .expect_error(404, "CONNECTION_NOT_FOUND");
    }
    let none = eve.post("/api/v1/vpn/disconnect", &json!({})).await;
    none.expect_error(404, "CONNECTION_NOT_FOUND");
    assert_eq!(node.connections(), [tunnel.connection_id]);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_does_not_hold_the_user() {
    let app = TestApp::with(|vars| {
        vars.insert("CONNECT_ACK_TIMEOUT_MS".to_owned(), "300".to_owned());
    })
    .await;
    let mut node = app.node("fra").await;
    let user = app.user_on("free").await;
    let tunnel = user.connected(&json!({})).await;
    node.add_traffic(tunnel.connection_id, 5, 6);
    node.stop().await;
    let ended = user.disconnected(tunnel.connection_id).await;
    assert_eq!(ended.status, "ended");
    node.start();
    wait_until("the peer goes with the node's return", SOON, async || {
        node.peer_count() == 0
    })
    .await;
    wait_until("the final counters arrive", SOON, async || {
        app.db()
            .number("SELECT bytes_sent + bytes_received FROM connections")
            .await
            == 11
    })
    .await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_add_up() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    for _ in 0..3 {
        node.add_traffic(tunnel.connection_id, 100, 1000);
        node.report().await;
        node.reset_counters();
    }
    node.add_traffic(tunnel.connection_id, 1, 2);
    let ended = user.disconnected(tunnel.connection_id).await;
    assert_eq!((ended.bytes_sent, ended.bytes_received), (301, 3002));
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_negative_claim_is_refused() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    let reply = user
        .post("/api/v1/vpn/disconnect", &json!({ "bytes_sent": -1 }))
        .await;
    let named = reply.expect_error(400, "INVALID_INPUT");
    assert!(named == ["bytes_sent"] || named == ["body"], "{named:?}");
    assert_eq!(node.connections(), [tunnel.connection_id]);
    app.finish(&[&node]).await;
}
