//! Health and readiness, also while a dependency is away.

use serde_json::json;
use tests::redis::TestRedis;
use tests::{TestApp, wait_until};

use crate::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn alive_and_ready() {
    let app = TestApp::start().await;
    let client = app.client();
    for path in ["/health", "/health/live", "/api/v1/health", "/health/ready"] {
        let reply = client.get(path).await.expect(200);
        assert!(
            reply.json()["status"].is_string(),
            "{path}: {}",
            reply.text()
        );
    }
    let ready = client.get("/health/ready").await.json().to_string();
    assert!(
        ready.contains("postgres") && ready.contains("redis"),
        "{ready}"
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_in_the_middle_stops_no_connect() {
    let mut redis = TestRedis::start().await;
    let app = TestApp::with(|vars| {
        vars.insert("REDIS_URL".to_owned(), redis.url());
    })
    .await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let first = user.connected(&json!({})).await;
    redis.kill();
    let second = user.connected(&json!({})).await;
    user.disconnected(first.connection_id).await;
    assert_eq!(node.connections(), [second.connection_id]);
    wait_until("readiness tells", SOON, async || {
        let ready = app.client().get("/health/ready").await;
        ready.json()["status"] == "degraded"
    })
    .await;
    let _ = app.client().get("/health").await.expect(200);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_gone_is_said_fast_and_the_tunnel_stays() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    user.connected(&json!({})).await;
    let gone = app.db().take_away().await;
    let refused = user.connect(&json!({})).await;
    assert!(
        matches!(refused.status.as_u16(), 500 | 503),
        "{}",
        refused.text()
    );
    let ready = app.client().get("/health/ready").await;
    assert_eq!(ready.status.as_u16(), 503, "{}", ready.text());
    let _ = app.client().get("/health").await.expect(200);
    assert_eq!(node.peer_count(), 1);
    gone.bring_back().await;
    wait_until("connects work again", SOON, async || {
        user.connect(&json!({})).await.status.is_success()
    })
    .await;
    app.finish(&[&node]).await;
}
