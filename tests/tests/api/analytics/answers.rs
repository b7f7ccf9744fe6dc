//! What is answered to whom, in which form.

use reqwest::Method;
use reqwest::header::ACCEPT;
use rstest::rstest;
use serde_json::json;
use tests::{TestApp, wait_until};

use super::{USAGE, books, data, sum};
use crate::SOON;

const ALL: [&str; 8] = [
    "usage",
    "connections",
    "bandwidth",
    "servers/status",
    "servers/load",
    "servers/usage",
    "users/top",
    "plans",
];

fn path(what: &str) -> String {
    format!("/api/v1/analytics/{what}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_their_own_and_support_everybodys() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let (ada, eve) = (app.user_on("free").await, app.user().await);
    let support = app.user_with_role("support").await;
    let (of_ada, of_eve) = (
        ada.connected(&json!({})).await,
        eve.connected(&json!({})).await,
    );
    node.add_traffic(of_ada.connection_id, 1_000_000, 2_000_000);
    node.add_traffic(of_eve.connection_id, 5_000_000, 6_000_000);
    node.report().await;
    wait_until("it is stored", SOON, async || {
        books(&app).await == [14_000_000; 3]
    })
    .await;
    ada.disconnected(of_ada.connection_id).await;

    let mine = ada.get(USAGE).await.expect(200).json();
    assert_eq!(mine["interval"], "day");
    assert_eq!(mine["user_id"], ada.user().to_string());
    assert_eq!(mine["totals"]["total_bytes"], 3_000_000);
    assert_eq!(
        sum(mine["data"].as_array().expect("days"), "bytes_sent"),
        1_000_000
    );
    let quota = mine["quotas"]
        .as_array()
        .and_then(|it| it.last())
        .expect("a month");
    assert_eq!(quota["used_bytes"], 3_000_000, "{quota}");
    assert_eq!(quota["quota_bytes"], 10_737_418_240_u64);
    assert_eq!(quota["remaining_bytes"], 10_734_418_240_u64);

    let of = |user: &tests::api::Client| format!("{USAGE}?user_id={}", user.user());
    ada.get(&of(&eve)).await.expect_error(403, "FORBIDDEN");
    assert_eq!(sum(&data(&ada, &of(&ada)).await, "total_bytes"), 3_000_000);
    assert_eq!(
        sum(&data(&support, &of(&eve)).await, "total_bytes"),
        11_000_000
    );
    let fleet = support.get(USAGE).await.expect(200).json();
    assert_eq!(fleet["totals"]["total_bytes"], 14_000_000);
    assert_eq!(fleet["quotas"], json!([]));
    let there = format!("{USAGE}?interval=hour&server_id={}", node.server());
    assert_eq!(
        sum(&data(&support, &there).await, "total_bytes"),
        14_000_000
    );
    let nowhere = format!("{USAGE}?interval=hour&server_id={}", ada.user());
    assert_eq!(sum(&data(&support, &nowhere).await, "total_bytes"), 0);

    let top = data(&support, &path("users/top?limit=1")).await;
    assert_eq!(top.len(), 1);
    assert_eq!(top[0]["user_id"], eve.user().to_string());
    assert_eq!(top[0]["total_bytes"], 11_000_000);
    let plans = data(&support, &path("plans")).await;
    let plans: Vec<_> = plans
        .iter()
        .map(|it| {
            (
                it["plan_id"].as_str(),
                it["users"].as_u64(),
                it["total_bytes"].as_u64(),
            )
        })
        .collect();
    let expected = [
        (Some("premium_monthly"), Some(1), Some(11_000_000)),
        (Some("free"), Some(1), Some(3_000_000)),
    ];
    assert_eq!(plans, expected);
    let servers = data(&support, &path("servers/usage")).await;
    assert_eq!(servers[0]["hostname"], "fra");
    assert_eq!(servers[0]["total_bytes"], 14_000_000);
    let status = data(&support, &path("servers/status")).await;
    assert_eq!(status[0]["is_online"], true, "{status:?}");
    assert_eq!(status[0]["last_day"]["total_bytes"], 14_000_000);
    for only in &ALL[3..] {
        eve.get(&path(only)).await.expect_error(403, "FORBIDDEN");
    }
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bandwidth_is_bytes_over_time_and_loads_are_means() {
    let app = TestApp::start().await;
    let (user, support) = (app.user().await, app.user_with_role("support").await);
    let server = uuid::Uuid::now_v7();
    // 3600 MB in the hour before this one: a megabyte a second.
    app.db()
        .execute(&format!(
            "INSERT INTO usage_hours VALUES ('{}', date_trunc('hour', now(), 'UTC') - interval '1 hour', '{server}',
                                             900000000, 3600000000, 2500000, 3, 2, 500);
             INSERT INTO server_hours VALUES
                 ('{server}', date_trunc('hour', now(), 'UTC') - interval '1 hour', 0, 0, 0, 0, 0, 0, 4, 100, 70, 40, 15),
                 (gen_random_uuid(), date_trunc('hour', now(), 'UTC') - interval '1 hour', 0, 0, 0, 0, 0, 0, 1, 50, 50, 2, 2)",
            user.user()
        ))
        .await;
    let points = data(&user, &path("bandwidth?interval=hour")).await;
    let busy: Vec<_> = points
        .iter()
        .filter(|it| it["download_mbps"] != 0.0)
        .collect();
    assert_eq!(busy.len(), 1, "{points:?}");
    assert_eq!(busy[0]["upload_mbps"], 2.0);
    assert_eq!(busy[0]["download_mbps"], 8.0);
    assert_eq!(busy[0]["peak_mbps"], 20.0);
    let points = data(&user, &path("connections?interval=hour")).await;
    let ended: Vec<_> = points.iter().filter(|it| it["ended"] == 2).collect();
    assert_eq!(ended[0]["average_seconds"], 250, "{points:?}");
    assert_eq!(
        points
            .iter()
            .filter(|it| it["average_seconds"].is_null())
            .count(),
        points.len() - 1
    );

    let points = data(&support, &path("servers/load?interval=hour")).await;
    let looked: Vec<_> = points
        .iter()
        .filter(|it| !it["load_pct"].is_null())
        .collect();
    assert_eq!(looked.len(), 1, "{points:?}");
    assert_eq!(looked[0]["load_pct"], 30.0);
    assert_eq!(looked[0]["peak_load_pct"], 70.0);
    assert_eq!(looked[0]["connections"], 12.0);
    assert_eq!(looked[0]["peak_connections"], 15);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_a_table_too() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let (user, support) = (app.user().await, app.user_with_role("support").await);
    let tunnel = user.connected(&json!({})).await;
    node.add_traffic(tunnel.connection_id, 10, 20);
    user.disconnected(tunnel.connection_id).await;
    wait_until("it is stored", SOON, async || books(&app).await == [30; 3]).await;
    for what in ALL {
        let rows = data(&support, &path(what)).await;
        let reply = support
            .get(&path(&format!("{what}?format=csv")))
            .await
            .expect(200);
        assert_eq!(
            reply.header("content-type"),
            Some("text/csv; charset=utf-8")
        );
        let name = reply.header("content-disposition").expect("a file");
        assert!(name.contains(".csv"), "{name}");
        let text = reply.text();
        let mut lines = text.lines();
        let columns = lines.next().expect("a header").split(',').count();
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines.len(), rows.len(), "{what}: {text}");
        assert!(!lines.is_empty(), "{what}");
        for line in lines {
            assert_eq!(line.split(',').count(), columns, "{what}: {line}");
        }
    }
    let asked = async |accept: &str, path: &str| {
        let request = user.request(Method::GET, path).header(ACCEPT, accept);
        let reply = user.send(request).await.expect(200);
        reply.header("content-type").expect("a type").to_owned()
    };
    assert!(asked("text/csv", USAGE).await.starts_with("text/csv"));
    assert_eq!(asked("*/*", USAGE).await, "application/json");
    assert_eq!(
        asked("text/csv", &format!("{USAGE}?format=json")).await,
        "application/json"
    );
    app.finish(&[&node]).await;
}

#[rstest]
#[case::backwards("usage?from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z", "from")]
#[case::no_time("usage?from=yesterday", "from")]
#[case::no_interval("usage?interval=week", "interval")]
#[case::no_user("usage?user_id=me", "user_id")]
#[case::no_format("usage?format=xml", "format")]
#[case::many_hours(
    "connections?interval=hour&from=2026-01-01T00:00:00Z&to=2026-03-01T00:00:00Z",
    "from"
)]
#[case::many_days("bandwidth?from=2020-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "from")]
#[case::many_months(
    "usage?interval=month&from=2001-01-01T00:00:00Z&to=2026-01-01T00:00:00Z",
    "from"
)]
#[case::long_list("users/top?from=2026-01-01T00:00:00Z&to=2026-03-01T00:00:00Z", "from")]
#[case::no_limit("users/top?limit=0", "limit")]
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_named(#[case] asked: &str, #[case] field: &str) {
    let app = TestApp::start().await;
    let support = app.user_with_role("support").await;
    let reply = support.get(&path(asked)).await;
    assert_eq!(reply.expect_error(400, "INVALID_INPUT"), [field]);
    app.finish(&[]).await;
}
