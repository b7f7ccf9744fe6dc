//! Which server a person gets.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use shared::protocol::Load;
use tests::{Place, TestApp, wait_until};

use crate::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn the_least_loaded_first() {
    let app = TestApp::start().await;
    let nodes = [
        app.node("a").await,
        app.node("b").await,
        app.node("c").await,
    ];
    let user = app.user().await;
    for (first, loads) in [
        (1, [40.0, 10.0, 30.0]),
        (2, [40.0, 50.0, 30.0]),
        (0, [5.0, 50.0, 30.0]),
    ] {
        for (node, load) in nodes.iter().zip(loads) {
            app.set_load(node, load).await;
        }
        let tunnel = user.connected(&json!({})).await;
        assert_eq!(tunnel.server.id, nodes[first].server(), "{loads:?}");
        user.disconnected(tunnel.connection_id).await;
    }
    app.finish(&nodes.each_ref()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_alike_the_nearer() {
    let app = TestApp::start().await;
    let (far, near) = (
        app.enrolled(app.config("far")).await,
        app.enrolled(app.config("near")).await,
    );
    far.set_latency(Duration::from_millis(120));
    for node in [&far, &near] {
        app.wait_selectable(node).await;
    }
    wait_until(
        "the far node's ping is known",
        Duration::from_secs(20),
        async || app.ping_of(&far) >= 100,
    )
    .await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    assert_eq!(tunnel.server.id, near.server());
    app.finish(&[&far, &near]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_spreads() {
    let app = TestApp::start().await;
    let nodes = [
        app.node("a").await,
        app.node("b").await,
        app.node("c").await,
    ];
    let mut users = Vec::new();
    for _ in 0..12 {
        users.push(app.user().await);
    }
    let body = json!({});
    let connects = users.iter().map(|user| user.connected(&body));
    let tunnels = futures_util::future::join_all(connects).await;
    let mut shares = BTreeMap::new();
    for tunnel in tunnels {
        *shares.entry(tunnel.server.id).or_insert(0) += 1;
    }
    assert_eq!(shares.len(), 3, "{shares:?}");
    assert!(
        shares.values().all(|share| (2..=6).contains(share)),
        "{shares:?}"
    );
    app.finish(&nodes.each_ref()).await;
}

async fn refuses(app: &TestApp, reason: &str) {
    let user = app.user().await;
    let reply = user.connect(&json!({})).await;
    assert_eq!(reply.status.as_u16(), 503, "{reason}: {}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_no_clients_gets_none() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;

    let draining = Load {
        draining: true,
        ..Load::default()
    };
    node.set_load(draining).await;
    wait_until("the node drains", SOON, async || !app.is_selectable(&node)).await;
    refuses(&app, "draining").await;
    node.set_load(Load::default()).await;
    app.wait_selectable(&node).await;

    app.db()
        .execute("UPDATE vpn_servers SET status = 'maintenance'")
        .await;
    app.refresh().await;
    refuses(&app, "in maintenance").await;
    app.db()
        .execute("UPDATE vpn_servers SET status = 'active', tier = 2")
        .await;
    app.refresh().await;
    refuses(&app, "above the plan's tier").await;
    app.db().execute("UPDATE vpn_servers SET tier = 1").await;
    app.refresh().await;
    app.user().await.connected(&json!({})).await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_left_is_no_candidate() {
    let app = TestApp::start().await;
    let mut node = app.node("fra").await;
    node.stop().await;
    wait_until("the node is missed", SOON, async || {
        !app.is_selectable(&node)
    })
    .await;
    refuses(&app, "away").await;
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_fell_silent_is_no_candidate() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    node.freeze().await;
    wait_until(
        "the node counts as offline",
        Duration::from_secs(25),
        async || !app.is_selectable(&node),
    )
    .await;
    refuses(&app, "silent").await;
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_beats_a_load() {
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
    app.set_load(&fra, 90.0).await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({ "location": "DE" })).await;
    assert_eq!(tunnel.server.id, fra.server());
    app.finish(&[&fra, &nyc]).await;
}
