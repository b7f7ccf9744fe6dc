//! The live state of a person's connections.

use serde_json::{Value, json};
use tests::{TestApp, wait_for, wait_until};

use crate::SOON;

/// The one connection that the status shows.
fn only(status: &Value) -> &Value {
    let connections = status["connections"].as_array().expect("a list");
    assert_eq!(connections.len(), 1, "{status}");
    &connections[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn live_counters_are_the_nodes() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    assert_eq!(user.status().await["connections"], json!([]));

    let tunnel = user.connected(&json!({})).await;
    let status = user.status().await;
    let fresh = only(&status);
    assert_eq!(fresh["connection_id"], tunnel.connection_id.to_string());
    assert_eq!(fresh["assigned_ip"], tunnel.assigned_ip.to_string());
    assert_eq!(
        (&fresh["bytes_sent"], &fresh["bytes_received"]),
        (&0.into(), &0.into())
    );
    assert!(fresh["last_handshake"].is_null());

    for step in 1..=3_u64 {
        node.add_traffic(tunnel.connection_id, 1000, 500);
        node.report().await;
        wait_until("the counters arrive", SOON, async || {
            let status = user.status().await;
            let live = only(&status);
            live["bytes_sent"] == step * 1000 && live["bytes_received"] == step * 500
        })
        .await;
    }
    assert!(only(&user.status().await)["last_handshake"].is_string());
    user.disconnected(tunnel.connection_id).await;
    assert_eq!(user.status().await["connections"], json!([]));
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_outlive_the_plane() {
    let mut app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    node.add_traffic(tunnel.connection_id, 123, 456);
    node.report().await;
    wait_until("the counters arrive", SOON, async || {
        only(&user.status().await)["bytes_sent"] == 123
    })
    .await;
    app.stop_replica(0).await;
    let stored = "SELECT bytes_sent * 1000 + bytes_received FROM connections";
    assert_eq!(
        app.db().number(stored).await,
        123_456,
        "a stop flushes what is in memory"
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_survive_every_order_of_reports_and_returns() {
    let app = TestApp::start().await;
    let mut node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    let mut total = 0;
    for round in 1..=4 {
        node.add_traffic(tunnel.connection_id, round, 0);
        total += round;
        if round % 2 == 0 {
            node.stop().await;
            node.start();
            node.wait_online().await;
        }
        node.report().await;
    }
    // Nothing moved since the last reports: only the final counters are sure to bring the rest.
    let ended = user.disconnected(tunnel.connection_id).await;
    assert_eq!(ended.bytes_sent, total);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_their_own() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let (ada, eve) = (app.user().await, app.user().await);
    let tunnel = ada.connected(&json!({})).await;
    assert_eq!(eve.status().await["connections"], json!([]));
    let mine = wait_for("the connection shows", SOON, async || {
        let status = ada.status().await;
        status["connections"].as_array()?.first().cloned()
    })
    .await;
    assert_eq!(mine["connection_id"], tunnel.connection_id.to_string());
    app.finish(&[&node]).await;
}
