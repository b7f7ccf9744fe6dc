//! A month's quota over several connections on several nodes, whatever happens to the reports.

use std::time::Duration;

use serde_json::json;
use tests::api::{Client, Tunnel};
use tests::sim::{Answer, Reports};
use tests::{SimNode, TestApp, wait_until};

use crate::SOON;

const QUOTA: u64 = 50_000_000;
/// For several rounds of reports, flushes and shares.
const LONG: Duration = Duration::from_secs(60);

/// A plane with a plan of 50 MB and five connections.
async fn start() -> TestApp {
    let app = TestApp::start().await;
    app.db()
        .execute(&format!(
            "INSERT INTO plans (id, name, plan_type, max_devices, max_connections, quota_bytes)
             VALUES ('small', 'Small', 'free', 5, 5, {QUOTA})"
        ))
        .await;
    app
}

async fn connected(user: &Client, node: &SimNode) -> Tunnel {
    user.connected(&json!({ "server_id": node.server() })).await
}

fn allowance(node: &SimNode, tunnel: &Tunnel) -> Option<u64> {
    node.peer_of(tunnel.connection_id)?.limits.allowance
}

async fn wait_allowance(node: &SimNode, tunnel: &Tunnel, bytes: u64) {
    wait_until(&format!("an allowance of {bytes}"), SOON, async || {
        allowance(node, tunnel) == Some(bytes)
    })
    .await;
}

async fn end_reasons(app: &TestApp) -> Vec<String> {
    let ended = "SELECT DISTINCT end_reason FROM connections WHERE status = 'disconnected'";
    app.db().texts(ended).await
}

/// As if the month that is now were over.
async fn turn_the_month(app: &TestApp) {
    app.db()
        .execute(
            "UPDATE quota_usage SET month = month - interval '1 month';
             UPDATE quota_shares SET month = month - interval '1 month'",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_has_it_all_and_ends_with_it() {
    let app = start().await;
    let node = app.node("fra").await;
    let user = app.user_on("small").await;
    let tunnel = connected(&user, &node).await;
    assert_eq!(allowance(&node, &tunnel), Some(QUOTA));
    // Its node alone holds it to the byte, however late the plane hears.
    let passed = node.pass_traffic(tunnel.connection_id, QUOTA / 2, QUOTA);
    assert_eq!(passed, Some(QUOTA));
    wait_until("it ends", SOON, async || node.peer_count() == 0).await;
    app.db().number("SELECT 1").await;
    wait_until("for its reason", SOON, async || {
        end_reasons(&app).await == ["quota"]
    })
    .await;
    user.connect(&json!({}))
        .await
        .expect_error(403, "QUOTA_EXHAUSTED");
    turn_the_month(&app).await;
    let next = connected(&user, &node).await;
    assert_eq!(allowance(&node, &next), Some(QUOTA));
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_is_warned_once() {
    let app = start().await;
    let node = app.node("fra").await;
    let user = app.user_on("small").await;
    let tunnel = connected(&user, &node).await;
    node.add_traffic(tunnel.connection_id, QUOTA / 100 * 85, 0);
    wait_until("it is stored", SOON, async || {
        let used = "SELECT coalesce(sum(consumed), 0) FROM quota_usage";
        app.db().number(used).await >= 42_500_000
    })
    .await;
    let socket = user.metrics(user.user(), user.token()).await;
    let mut socket = socket.expect("the socket opens");
    let mut stream = user
        .events("/api/v1/connection/events")
        .await
        .expect("opens");
    let told = stream.next_of("quota_warning").await;
    assert_eq!(told["percent"], 80);
    assert_eq!(told["quota_bytes"], QUOTA);
    assert_eq!(told["used_bytes"], 42_500_000);
    let told = socket.next_of("quota_warning").await;
    assert_eq!(told["percent"], 80);
    for _ in 0..3 {
        let next = stream.next().await.expect("an event");
        assert_eq!(next.event, "metrics");
    }
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_plan_opens_what_a_quota_closed() {
    let app = start().await;
    let node = app.node("fra").await;
    let user = app.user_on("small").await;
    let tunnel = connected(&user, &node).await;
    node.add_traffic(tunnel.connection_id, QUOTA, 0);
    wait_until("it ends", SOON, async || node.peer_count() == 0).await;
    app.db()
        .execute(&format!(
            "UPDATE plans SET quota_bytes = {} WHERE id = 'small'",
            2 * QUOTA
        ))
        .await;
    let next = connected(&user, &node).await;
    assert_eq!(allowance(&node, &next), Some(QUOTA));
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_turn_of_the_month_raises_what_is_live() {
    const USED: u64 = 20_000_000;
    let app = start().await;
    let node = app.node("fra").await;
    let user = app.user_on("small").await;
    let tunnel = connected(&user, &node).await;
    node.add_traffic(tunnel.connection_id, USED, 0);
    let known = "SELECT coalesce(sum(consumed), 0) FROM quota_usage";
    wait_until("the plane knows", SOON, async || {
        app.db().number(known).await == i64::try_from(USED).expect("small")
    })
    .await;
    let operations = node.operations();
    turn_the_month(&app).await;
    wait_allowance(&node, &tunnel, USED + QUOTA).await;
    assert_eq!(node.operations(), operations);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_gives_its_part_back_and_repeats_count_once() {
    const MB: u64 = 1_000_000;
    let app = start().await;
    let (fra, nyc) = (app.node("fra").await, app.node("nyc").await);
    let user = app.user_on("small").await;
    let first = connected(&user, &fra).await;
    let second = connected(&user, &nyc).await;
    wait_allowance(&fra, &first, 25 * MB).await;
    wait_allowance(&nyc, &second, 25 * MB).await;
    nyc.set_reports(Reports::Repeated);
    for _ in 0..3 {
        nyc.add_traffic(second.connection_id, MB, MB);
        nyc.report().await;
    }
    // Its last word on the quota never comes; its final counters do.
    nyc.set_reports(Reports::Held);
    nyc.add_traffic(second.connection_id, MB, MB);
    user.disconnected(second.connection_id).await;
    wait_allowance(&fra, &first, 42 * MB).await;
    assert_eq!(
        app.db().number("SELECT consumed FROM quota_usage").await,
        8_000_000
    );
    app.finish(&[&fra, &nyc]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_away_keeps_what_it_holds_and_no_more() {
    const MB: u64 = 1_000_000;
    let app = start().await;
    let (mut fra, nyc) = (app.node("fra").await, app.node("nyc").await);
    let user = app.user_on("small").await;
    let first = connected(&user, &fra).await;
    fra.stop().await;
    // What starts meanwhile is bounded, however often it starts.
    let mut total = 0;
    for _ in 0..6 {
        let tunnel = connected(&user, &nyc).await;
        let passed = nyc.pass_traffic(tunnel.connection_id, 10 * MB, 0);
        total += passed.expect("the peer is there");
        user.disconnected(tunnel.connection_id).await;
    }
    assert_eq!(total, 2 * MB, "four starters of one percent");
    let second = connected(&user, &nyc).await;
    total += fra
        .pass_traffic(first.connection_id, 0, 20 * MB)
        .expect("the peer stays without a plane");
    fra.start();
    let half = (QUOTA - total) / 2;
    wait_allowance(&fra, &first, 20 * MB + half).await;
    wait_allowance(&nyc, &second, half).await;
    app.finish(&[&fra, &nyc]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_that_no_node_answered_holds_nothing() {
    let app = start().await;
    let (fra, nyc) = (app.node("fra").await, app.node("nyc").await);
    let user = app.user_on("small").await;
    app.set_load(&nyc, 50.0).await;
    fra.set_answer(Answer::Never);
    let tunnel = user.connected(&json!({})).await;
    assert_eq!(tunnel.server.id, nyc.server());
    assert_eq!(allowance(&nyc, &tunnel), Some(QUOTA));
    fra.set_answer(Answer::Promptly);
    fra.hang_up().await;
    app.finish(&[&fra, &nyc]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connects_at_once_do_not_each_get_everything() {
    let app = start().await;
    let node = app.node("fra").await;
    let user = app.user_on("small").await;
    let body = json!({});
    let attempts: [_; 5] = std::array::from_fn(|_| user.connect(&body));
    for reply in futures_util::future::join_all(attempts).await {
        let _ = reply.expect(200);
    }
    let held = "SELECT sum(allowance_held) FROM connections";
    let held = u64::try_from(app.db().number(held).await).expect("a sum");
    assert!(held <= QUOTA / 100 * 104, "{held}");
    wait_until("each has its part", SOON, async || {
        let parts = node.peers();
        let mut parts = parts.iter().map(|peer| peer.limits.allowance);
        parts.all(|part| part == Some(QUOTA / 5))
    })
    .await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_connections_on_two_nodes_stay_within_five_percent() {
    const STEP: u64 = 150_000;
    let app = start().await;
    let (mut fra, nyc) = (app.node("fra").await, app.node("nyc").await);
    let user = app.user_on("small").await;
    let first = connected(&user, &fra).await;
    let second = connected(&user, &nyc).await;
    fra.set_reports(Reports::Repeated);
    nyc.set_reports(Reports::Held);
    let (mut total, mut restarts) = (0, 0);
    let end = tokio::time::Instant::now() + LONG;
    while fra.peer_count() + nyc.peer_count() > 0 {
        assert!(tokio::time::Instant::now() < end, "{total} passed so far");
        total += fra
            .pass_traffic(first.connection_id, STEP, STEP)
            .unwrap_or(0);
        total += nyc.pass_traffic(second.connection_id, 0, STEP).unwrap_or(0);
        if restarts == 0 && total > QUOTA / 4 {
            restarts += 1;
            fra.stop().await;
            fra.start();
        }
        if total > QUOTA / 2 {
            nyc.set_reports(Reports::Repeated);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(restarts, 1);
    assert!(total <= QUOTA / 100 * 105, "{total} of {QUOTA}");
    assert!(total >= QUOTA / 1000 * 998, "{total} of {QUOTA}");
    wait_until("both ended for their reason", SOON, async || {
        end_reasons(&app).await == ["quota"]
    })
    .await;
    user.connect(&json!({}))
        .await
        .expect_error(403, "QUOTA_EXHAUSTED");
    app.finish(&[&fra, &nyc]).await;
}
