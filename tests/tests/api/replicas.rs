//! Two replicas over one database and one Redis.

use serde_json::json;
use tests::redis::TestRedis;
use tests::{TestApp, wait_until};

use crate::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_on_one_reaches_a_node_on_the_other() {
    let app = TestApp::replicas(2).await;
    let node = app.node("fra").await;
    app.wait_selectable_at(1, &node).await;
    let here = app.user().await;
    let there = here.at(app.url_of(1));
    let tunnel = there.connected(&json!({})).await;
    assert_eq!(node.connections(), [tunnel.connection_id]);

    node.add_traffic(tunnel.connection_id, 7, 8);
    let ended = there.disconnected(tunnel.connection_id).await;
    assert_eq!((ended.bytes_sent, ended.bytes_received), (7, 8));
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_holder_asks_postgres() {
    let mut redis = TestRedis::start().await;
    let url = redis.url();
    let app = TestApp::replicas_with(2, |vars| {
        vars.insert("REDIS_URL".to_owned(), url.clone());
        vars.insert("CONNECT_ACK_TIMEOUT_MS".to_owned(), "4000".to_owned());
    })
    .await;
    let node = app.node("fra").await;
    app.wait_selectable_at(1, &node).await;
    redis.kill();
    let there = app.user().await.at(app.url_of(1));
    let tunnel = there.connected(&json!({})).await;
    assert_eq!(node.connections(), [tunnel.connection_id]);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_moves_to_the_other_replica_resumes() {
    let mut app = TestApp::replicas(2).await;
    let mut node = app.node("fra").await;
    let user = app.user().await.at(app.url_of(1));
    app.wait_selectable_at(1, &node).await;
    let first = user.connected(&json!({})).await;
    app.stop_replica(0).await;
    node.stop().await;
    let operations = node.operations();
    let mut node = node.moved_to(app.url_of(1));
    node.start();
    node.wait_online().await;
    app.wait_selectable_at(1, &node).await;
    assert_eq!(node.connections(), [first.connection_id]);
    assert_eq!(
        node.operations(),
        operations,
        "nothing changed, nothing programmed"
    );
    user.disconnected(first.connection_id).await;
    wait_until("the peer goes", SOON, async || node.peer_count() == 0).await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plans_limit_holds_over_both() {
    let app = TestApp::replicas(2).await;
    let node = app.node("fra").await;
    app.wait_selectable_at(1, &node).await;
    let user = app.user_on("free").await;
    let other = user.at(app.url_of(1));
    let body = json!({});
    let attempts = (0..8).map(|number| match number % 2 {
        0 => user.connect(&body),
        _ => other.connect(&body),
    });
    let replies = futures_util::future::join_all(attempts).await;
    let won = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(won, 1);
    app.finish(&[&node]).await;
}
