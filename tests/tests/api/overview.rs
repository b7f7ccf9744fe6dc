//! The whole at a glance.

use std::time::Duration;

use serde_json::{Value, json};
use tests::wait::scaled;
use tests::{TestApp, wait_until};

use crate::SOON;

const OVERVIEW: &str = "/api/v1/admin/overview";
const STREAM: &str = "/api/v1/admin/overview/stream";

fn count(view: &Value, pointer: &str) -> u64 {
    let number = view.pointer(pointer).and_then(Value::as_u64);
    number.unwrap_or_else(|| panic!("{pointer} in {view}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_counts_what_there_is_over_all_replicas() {
    let mut app = TestApp::replicas(2).await;
    let (node, other) = (app.node("fra").await, app.node("ams").await);
    app.wait_selectable_at(1, &node).await;
    app.wait_selectable_at(1, &other).await;
    let user = app.user().await;
    let support = app.user_with_role("support").await.at(app.url_of(1));
    let tunnel = user.connected(&json!({ "server_id": node.server() })).await;
    let _stream = user
        .events("/api/v1/connection/events")
        .await
        .expect("opens");
    app.db()
        .execute(
            "INSERT INTO security_alerts (id, kind, started_at, last_seen_at, count)
             VALUES (gen_random_uuid(), 'flood', now(), now(), 1);
             INSERT INTO jobs (id, kind, sealed, status, last_error, ended_at)
             VALUES (gen_random_uuid(), 'mail', 'x', 'failed', 'as wanted', now());
             INSERT INTO billing_reconciliations (id, started_at, ended_at, is_dry_run, is_complete, report)
             VALUES (gen_random_uuid(), now(), now(), false, true,
                 '{\"subscriptions\": {\"looked_at\": 1, \"repaired\": 0, \"failed\": 0},
                   \"payments\": {\"looked_at\": 0, \"repaired\": 0, \"failed\": 0},
                   \"refunds\": {\"looked_at\": 0, \"repaired\": 0, \"failed\": 0}, \"is_complete\": true}');
             UPDATE vpn_servers SET status = 'maintenance' WHERE hostname = 'ams'",
        )
        .await;
    app.refresh().await;

    wait_until("everything is counted", scaled(SOON), async || {
        node.add_traffic(tunnel.connection_id, 1_000_000, 2_000_000);
        node.report().await;
        let view = support.get(OVERVIEW).await.expect(200).json();
        count(&view, "/nodes/online") == 1
            && count(&view, "/nodes/maintenance") == 1
            && count(&view, "/nodes/total") == 2
            && count(&view, "/nodes/sessions") == 2
            && count(&view, "/connections/live") == 1
            && count(&view, "/traffic/upload_bps") > 0
            && count(&view, "/traffic/download_bps") > count(&view, "/traffic/upload_bps")
            && count(&view, "/traffic/moving") == 1
            && count(&view, "/traffic/viewers") == 1
            && count(&view, "/users/total") == 2
            && count(&view, "/sessions") >= 2
            && count(&view, "/jobs/failed") == 1
            && count(&view, "/alerts/open") == 1
            && count(&view, "/alerts/ongoing") == 1
            && view["last_reconciliation"]["is_clean"] == true
            && view["replicas"]
                .as_array()
                .is_some_and(|all| all.len() == 2)
    })
    .await;
    let view = support.get(OVERVIEW).await.expect(200).json();
    let plans = view["subscriptions"].as_array().expect("a list");
    let subscribed: u64 = plans.iter().map(|of| count(of, "/count")).sum();
    assert_eq!(subscribed, 2, "{view}");
    assert!(plans.iter().all(|of| of["status"] == "active"), "{view}");
    let text = view.to_string();
    assert!(
        !text.contains(&user.user().to_string()) && !text.contains('@'),
        "{text}"
    );

    // What is gone is not counted.
    let support = support.at(app.url());
    app.stop_replica(1).await;
    // At once by its own word, and without it when its last report is old.
    wait_until("one replica is left", scaled(SOON * 3), async || {
        let view = support.get(OVERVIEW).await.expect(200).json();
        view["replicas"]
            .as_array()
            .is_some_and(|all| all.len() == 1)
    })
    .await;
    assert_eq!(app.take_failed_jobs().await, ["as wanted"]);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_stream_has_the_same_every_two_seconds_and_ends_with_the_session() {
    let app = TestApp::start().await;
    app.wait_hearing(0, true).await;
    let support = app.user_with_role("support").await;
    let view = support.get(OVERVIEW).await.expect(200).json();
    let mut stream = support.events(STREAM).await.expect("opens");
    let told = stream.next_of("overview").await;
    let keys = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    assert_eq!(keys(&told), keys(&view));
    let next = tokio::time::timeout(SOON, stream.next_of("overview")).await;
    assert_ne!(next.expect("two seconds later")["at"], told["at"]);
    let _ = support
        .post("/api/v1/auth/logout", &json!({}))
        .await
        .expect(204);
    let last = tokio::time::timeout(scaled(Duration::from_secs(5)), stream.last()).await;
    let last = last.expect("it ends").expect("a last event");
    assert_eq!(
        (&*last.event, &last.data["reason"]),
        ("ended", &json!("unauthorized"))
    );
    app.finish(&[]).await;
}
