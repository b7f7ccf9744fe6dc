//! What a subscription gives, on the node too: every step reaches the live peer without a reconnect.

use chrono::{DateTime, TimeDelta, Utc};
use control_plane::billing::subscription::{Seen, Status, StripeStatus, Subscription, entitles};
use serde_json::json;
use shared::protocol::Limits;
use tests::api::{Client, Tunnel};
use tests::{Place, SimNode, TestApp, wait_until};

use super::{hours, seen};
use crate::SOON;

const SUBSCRIPTION: &str = "sub_1";

async fn connected(user: &Client, node: &SimNode) -> Tunnel {
    user.connected(&json!({ "server_id": node.server() })).await
}

fn rate(node: &SimNode, tunnel: &Tunnel) -> Option<u64> {
    let peer = node.peer_of(tunnel.connection_id);
    peer.expect("the node holds the peer").limits.download_bps
}

async fn wait_rate(node: &SimNode, tunnel: &Tunnel, mbps: Option<u64>) {
    let bps = mbps.map(|mbps| mbps * 1_000_000);
    wait_until(&format!("a rate of {bps:?}"), SOON, async || {
        rate(node, tunnel) == bps
    })
    .await;
}

fn end(node: &SimNode, tunnel: &Tunnel) -> Option<DateTime<Utc>> {
    node.peer_of(tunnel.connection_id)?.not_after
}

async fn wait_end(node: &SimNode, tunnel: &Tunnel, end_at: DateTime<Utc>) {
    wait_until(&format!("an end at {end_at}"), SOON, async || {
        end(node, tunnel) == Some(end_at)
    })
    .await;
}

async fn wait_gone(app: &TestApp, tunnel: &Tunnel) {
    let reason = format!(
        "SELECT end_reason FROM connections WHERE id = '{}' AND status = 'disconnected'",
        tunnel.connection_id
    );
    wait_until("it ends for the plan", SOON, async || {
        app.db().texts(&reason).await == ["plan"]
    })
    .await;
}

/// As if the grace were over.
async fn let_grace_pass(app: &TestApp) {
    app.db()
        .execute(
            "UPDATE subscriptions SET access_until = now() - interval '1 second' WHERE status = 'past_due'",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_peer_follows_every_step() {
    let app = TestApp::with(|variables| {
        variables.insert("PAST_DUE_THROTTLE_MBPS".to_owned(), "2".to_owned());
    })
    .await;
    let fra = app.node("fra").await;
    let vip = app.node_at("vip", Place::default().tier(1)).await;
    let user = app.user_on("free").await;
    let is = async |seen: &Seen| app.subscription_seen(user.user(), SUBSCRIPTION, seen).await;
    user.connect(&json!({ "server_id": vip.server() }))
        .await
        .expect_error(403, "PLAN_REQUIRED");
    let ordinary = connected(&user, &fra).await;
    wait_rate(&fra, &ordinary, Some(10)).await;
    let operations = fra.operations();

    // Bought: more speed at once, and the premium server.
    let active = seen(StripeStatus::Active);
    is(&active).await;
    wait_rate(&fra, &ordinary, None).await;
    let premium = connected(&user, &vip).await;
    let until = active.period_end + TimeDelta::hours(24);
    assert_eq!(premium.expires_at, Some(until));
    assert_eq!(end(&vip, &premium), Some(until));
    assert_eq!(end(&fra, &ordinary), None, "the free plan opens it as well");
    let premium_operations = vip.operations();

    // Canceled, resumed, renewed: the premium peer's end follows.
    let canceling = Seen {
        cancel_at_period_end: true,
        ..active.clone()
    };
    is(&canceling).await;
    wait_end(&vip, &premium, active.period_end).await;
    let renewed = Seen {
        period_end: hours(1200),
        ..active
    };
    is(&renewed).await;
    wait_end(&vip, &premium, renewed.period_end + TimeDelta::hours(24)).await;

    // Not paid: slower while the grace lasts.
    is(&seen(StripeStatus::PastDue)).await;
    wait_rate(&fra, &ordinary, Some(2)).await;
    wait_rate(&vip, &premium, Some(2)).await;
    assert_eq!(vip.operations(), premium_operations);

    // The grace is over: the free plan's rates, and no premium server.
    let_grace_pass(&app).await;
    wait_gone(&app, &premium).await;
    wait_rate(&fra, &ordinary, Some(10)).await;

    // Paid after all.
    is(&seen(StripeStatus::Active)).await;
    wait_rate(&fra, &ordinary, None).await;
    let again = connected(&user, &vip).await;
    is(&Seen {
        ended_at: Some(hours(0)),
        ..seen(StripeStatus::Canceled)
    })
    .await;
    wait_gone(&app, &again).await;
    wait_rate(&fra, &ordinary, Some(10)).await;
    assert_eq!(fra.operations(), operations, "the tunnel was never touched");
    app.finish(&[&fra, &vip]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_keeps_the_one_place_that_is_left() {
    let app = TestApp::start().await;
    let fra = app.node("fra").await;
    let user = app.user_on("free").await;
    app.subscription_seen(user.user(), SUBSCRIPTION, &seen(StripeStatus::Active))
        .await;
    let first = connected(&user, &fra).await;
    let second = connected(&user, &fra).await;
    let third = connected(&user, &fra).await;
    user.disconnected(first.connection_id).await;
    let over = Seen {
        ended_at: Some(hours(0)),
        ..seen(StripeStatus::Canceled)
    };
    app.subscription_seen(user.user(), SUBSCRIPTION, &over)
        .await;
    wait_gone(&app, &third).await;
    assert_eq!(fra.connections(), [second.connection_id]);
    let places = "SELECT user_slot::text FROM connections WHERE status = 'connected'";
    assert_eq!(app.db().texts(places).await, ["1"]);
    let free = Limits {
        download_bps: Some(10_000_000),
        upload_bps: Some(10_000_000),
        allowance: Some(10 << 30),
    };
    wait_until("the free plan's limits", SOON, async || {
        fra.peer_of(second.connection_id).map(|peer| peer.limits) == Some(free)
    })
    .await;
    user.connect(&json!({}))
        .await
        .expect_error(403, "CONNECTION_LIMIT");
    app.finish(&[&fra]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_by_hand_is_brought_in_line() {
    let app = TestApp::start().await;
    let fra = app.node("fra").await;
    let vip = app.node_at("vip", Place::default().tier(1)).await;
    let user = app.user().await;
    let kept = connected(&user, &fra).await;
    let closed = connected(&user, &vip).await;
    let spare = connected(&user, &fra).await;
    app.db()
        .execute(
            "UPDATE subscriptions SET plan_id = 'free', plan_type = 'free', access_until = NULL",
        )
        .await;
    wait_gone(&app, &closed).await;
    wait_gone(&app, &spare).await;
    wait_rate(&fra, &kept, Some(10)).await;
    app.finish(&[&fra, &vip]).await;
}

/// The view and the rule are two writings of one thing.
#[tokio::test(flavor = "multi_thread")]
async fn the_view_says_what_the_rule_says() {
    let app = TestApp::start().await;
    let user = app.user().await;
    let now = Utc::now();
    for status in [Status::Active, Status::PastDue, Status::Canceled] {
        for access_until in [None, Some(hours(-1)), Some(hours(1))] {
            let subscription = Subscription {
                plan: "premium_monthly".to_owned(),
                status,
                started_at: hours(-2),
                period_end: None,
                trial_end: None,
                cancel_at_period_end: false,
                access_until,
                throttle_mbps: None,
                lapsed_at: Some(now),
                is_billed: false,
            };
            let until =
                access_until.map_or("NULL".to_owned(), |at| format!("'{}'", at.to_rfc3339()));
            app.db()
                .execute(&format!(
                    "UPDATE subscriptions SET status = '{}', access_until = {until}, lapsed_at = now()
                      WHERE user_id = '{}'",
                    status.as_str(),
                    user.user()
                ))
                .await;
            let plan = format!(
                "SELECT plan_id FROM entitlements WHERE user_id = '{}'",
                user.user()
            );
            let expected = match entitles(&subscription, now) {
                true => "premium_monthly",
                false => "free",
            };
            assert_eq!(app.db().texts(&plan).await, [expected], "{subscription:?}");
        }
    }
    app.finish(&[]).await;
}
