//! Totals by connections and by periods.

use chrono::{TimeDelta, Utc};
use serde_json::json;
use tests::{TestApp, wait_until};

use crate::SOON;

const STATISTICS: &str = "/api/v1/connection/statistics";

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_told_by_connections_and_by_periods() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let (user, other) = (app.user().await, app.user().await);
    let first = user.connected(&json!({})).await;
    let theirs = other.connected(&json!({})).await;
    node.add_traffic(theirs.connection_id, 7, 7);
    node.add_traffic(first.connection_id, 1000, 2000);
    user.disconnected(first.connection_id).await;
    let second = user.connected(&json!({})).await;
    node.add_traffic(second.connection_id, 30, 50);
    node.report().await;

    let mut told = json!(null);
    wait_until("all of it is told", SOON, async || {
        told = user.get(STATISTICS).await.expect(200).json();
        told["totals"]["total_bytes"] == 3080 && told["totals"]["ended"] == 1
    })
    .await;
    assert_eq!(told["interval"], "day");
    assert_eq!(told["totals"]["started"], 2);
    let buckets = told["buckets"].as_array().expect("a list");
    assert_eq!(buckets.len(), 31);
    assert_eq!(buckets[30]["bytes_sent"], 1030);
    assert_eq!(buckets[30]["bytes_received"], 2050);
    assert_eq!(buckets[29]["total_bytes"], 0);
    let connections = told["connections"]["data"].as_array().expect("a list");
    let figures = |row: &serde_json::Value| {
        let names = [
            "connection_id",
            "status",
            "bytes_sent",
            "bytes_received",
            "total_bytes",
        ];
        json!(names.map(|name| &row[name]))
    };
    assert_eq!(
        connections.iter().map(figures).collect::<Vec<_>>(),
        [
            json!([second.connection_id, "active", 30, 50, 80]),
            json!([first.connection_id, "ended", 1000, 2000, 3000]),
        ]
    );
    assert_eq!(connections[1]["server"]["hostname"], "fra");
    assert!(connections[1]["ended_at"].is_string());
    assert_eq!(connections[0]["ended_at"], json!(null));
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_and_a_period_of_them() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    for days in [0, 10, 40] {
        let tunnel = user.connected(&json!({})).await;
        user.disconnected(tunnel.connection_id).await;
        let id = tunnel.connection_id;
        let earlier = format!(
            "UPDATE connections SET started_at = started_at - interval '{days} days',
                    ended_at = ended_at - interval '{days} days' WHERE id = '{id}'"
        );
        app.db().execute(&earlier).await;
    }
    // One that no node ever acknowledged.
    node.set_answer(tests::sim::Answer::Fail(
        shared::protocol::FailureReason::Interface,
    ));
    let _ = user.connect(&json!({})).await;
    let count = async |query: &str| {
        let told = user.get(&format!("{STATISTICS}{query}")).await;
        let list = told.expect(200).json()["connections"].take();
        let here = list["data"].as_array().expect("a list").len();
        (
            list["meta"]["total"].clone(),
            here,
            list["links"]["next"].clone(),
        )
    };
    assert_eq!(count("").await, (json!(2), 2, json!(null)));
    let ago = |days| (Utc::now() - TimeDelta::days(days)).format("%FT%TZ");
    let (from, to) = (ago(60), ago(5));
    let query = format!("?from={from}&to={to}&per_page=1");
    let next = format!("{STATISTICS}?from={from}&to={to}&page=2&per_page=1");
    assert_eq!(count(&query).await, (json!(2), 1, json!(next)));
    let refused = user.get(&format!("{STATISTICS}?from={to}&to={from}")).await;
    assert_eq!(refused.expect_error(400, "INVALID_INPUT"), ["from"]);
    app.finish(&[&node]).await;
}
