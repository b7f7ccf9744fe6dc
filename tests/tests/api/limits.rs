//! What a plan limits, at the node: from the first moment on, and changed while the tunnel stays.

use serde_json::json;
use shared::protocol::Limits;
use tests::api::{Client, Tunnel};
use tests::sim::SimConfig;
use tests::{SimNode, TestApp, wait_until};

use crate::SOON;

/// An allowance that never ends: the peer is counted, and no quota is in force.
const UNLIMITED: u64 = i64::MAX.unsigned_abs();

fn limits_of(node: &SimNode, tunnel: &Tunnel) -> Limits {
    let peer = node.peer_of(tunnel.connection_id);
    peer.expect("the node holds the peer").limits
}

async fn wait_limits(node: &SimNode, tunnel: &Tunnel, limits: Limits) {
    wait_until(&format!("{limits:?}"), SOON, async || {
        limits_of(node, tunnel) == limits
    })
    .await;
}

async fn move_to(app: &TestApp, user: &Client, plan: &str) {
    let sql = format!(
        "UPDATE subscriptions SET plan_id = p.id, plan_type = p.plan_type FROM plans p
         WHERE p.id = '{plan}' AND user_id = '{}'",
        user.user()
    );
    app.db().execute(&sql).await;
}

const fn limits(mbps: u64, allowance: u64) -> Limits {
    Limits {
        download_bps: Some(mbps * 1_000_000),
        upload_bps: Some(mbps * 1_000_000),
        allowance: Some(allowance),
    }
}

/// The free plan as it is seeded.
const FREE: Limits = limits(10, 10 << 30);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_knows_the_limits_when_the_client_is_answered() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let (free, paid) = (app.user_on("free").await, app.user().await);
    let limited = free.connected(&json!({})).await;
    assert_eq!(limits_of(&node, &limited), FREE);
    let unlimited = paid.connected(&json!({})).await;
    assert_eq!(limits_of(&node, &unlimited), Limits::default());
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_plan_changes_limits_and_not_the_tunnel() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user_on("free").await;
    let tunnel = user.connected(&json!({})).await;
    let operations = node.operations();

    move_to(&app, &user, "premium_monthly").await;
    app.limits_changed(user.user()).await;
    let counted = Limits {
        allowance: Some(UNLIMITED),
        ..Limits::default()
    };
    wait_limits(&node, &tunnel, counted).await;

    // Nothing is used of the quota by what passed without one.
    node.add_traffic(tunnel.connection_id, 1_000, 2_000);
    node.report().await;
    let known = "SELECT consumed FROM connections";
    wait_until("the plane knows", SOON, async || {
        app.db().number(known).await == 3_000
    })
    .await;
    move_to(&app, &user, "free").await;
    app.limits_changed(user.user()).await;
    wait_limits(&node, &tunnel, limits(10, (10 << 30) + 3_000)).await;
    assert_eq!(node.limit_changes(), 2);
    assert_eq!(node.operations(), operations, "the peer was not touched");
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_plan_itself_reaches_everybody_under_it() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let (ada, bob, paid) = (
        app.user_on("free").await,
        app.user_on("free").await,
        app.user().await,
    );
    let first = ada.connected(&json!({})).await;
    let second = bob.connected(&json!({})).await;
    let other = paid.connected(&json!({})).await;
    let change = "UPDATE plans SET download_mbps = 25, upload_mbps = 25, quota_bytes = 1 << 30 WHERE id = 'free'";
    app.db().execute(change).await;
    app.limits_of_plan_changed("free").await;
    for tunnel in [&first, &second] {
        wait_limits(&node, tunnel, limits(25, 1 << 30)).await;
    }
    assert_eq!(limits_of(&node, &other), Limits::default());
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_by_hand_is_found() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    move_to(&app, &user, "free").await;
    wait_limits(&node, &tunnel, FREE).await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_gets_the_limits_as_they_are() {
    let app = TestApp::start().await;
    let mut node = app.node("fra").await;
    let user = app.user_on("free").await;
    let tunnel = user.connected(&json!({})).await;
    node.stop().await;
    app.db()
        .execute("UPDATE plans SET download_mbps = 5, upload_mbps = 5 WHERE id = 'free'")
        .await;
    app.limits_of_plan_changed("free").await;
    assert_eq!(limits_of(&node, &tunnel), FREE);
    node.start();
    wait_limits(&node, &tunnel, limits(5, 10 << 30)).await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_knows_no_limits_takes_nobody_who_has_some() {
    let app = TestApp::start().await;
    let config = SimConfig {
        protocol: 1,
        ..app.config("old")
    };
    let old = app.node_with(config).await;
    let (free, paid) = (app.user_on("free").await, app.user().await);
    free.connect(&json!({}))
        .await
        .expect_error(503, "NO_SERVER_AVAILABLE");
    free.connect(&json!({ "server_id": old.server() }))
        .await
        .expect_error(503, "NO_SERVER_AVAILABLE");
    let tunnel = paid.connected(&json!({})).await;
    assert_eq!(old.connections(), [tunnel.connection_id]);
    let new = app.node("new").await;
    let limited = free.connected(&json!({})).await;
    assert_eq!(limited.server.id, new.server());
    app.finish(&[&old, &new]).await;
}
