//! The catalogue, for people and for operators.

use reqwest::Method;
use serde_json::{Value, json};
use tests::api::{Client, Reply};
use tests::{TestApp, wait_until};

use crate::SOON;

const ADMIN: &str = "/api/v1/admin/plans";

async fn put(client: &Client, plan: &str, body: &Value) -> Reply {
    let request = client.request(Method::PUT, &format!("{ADMIN}/{plan}"));
    client.send(request.json(body)).await
}

/// A plan that can be made.
fn team() -> Value {
    json!({
        "id": "team_monthly", "billing_period": "monthly", "name": "Team", "price": 49.5, "currency": "eur",
        "features": ["20_devices"], "streaming_support": true, "max_devices": 20, "max_connections": 10,
        "tier": 1, "stripe_price_id": "price_secret",
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut body = team();
    body[name] = value;
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn anybody_reads_what_can_be_had() {
    let app = TestApp::start().await;
    let answer = app.client().get("/api/v1/subscriptions/plans").await;
    let answer = answer.expect(200).json();
    let ids: Vec<_> = answer["plans"]
        .as_array()
        .expect("plans")
        .iter()
        .map(|plan| &plan["id"])
        .collect();
    assert_eq!(ids, ["free", "premium_monthly", "premium_yearly"]);
    assert_eq!(
        answer["plans"][1],
        json!({
            "id": "premium_monthly",
            "name": "Premium Monthly",
            "price": 9.99,
            "currency": "USD",
            "billing_period": "monthly",
            "trial_days": 0,
            "features": ["unlimited_bandwidth", "all_locations", "5_devices"],
            "details": {
                "max_devices": 5, "max_connections": 5, "streaming_support": true,
                "download_mbps": null, "upload_mbps": null, "quota_bytes": null,
            },
        })
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_keeps_the_catalogue() {
    let app = TestApp::start().await;
    let admin = app.user_with_role("admin").await;
    let made = admin.post(ADMIN, &team()).await.expect(201).json();
    assert_eq!(
        (&made["price"], &made["currency"]),
        (&json!(49.5), &json!("EUR"))
    );
    assert_eq!(
        (&made["has_stripe_price"], &made["is_offered"]),
        (&json!(true), &json!(true))
    );
    admin
        .post(ADMIN, &team())
        .await
        .expect_error(409, "PLAN_EXISTS");

    // What is not said of the price at Stripe leaves it.
    let mut cheaper = with("price", json!(39));
    cheaper
        .as_object_mut()
        .expect("a body")
        .remove("stripe_price_id");
    let edited = put(&admin, "team_monthly", &cheaper)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&edited["price"], &edited["has_stripe_price"]),
        (&json!(39.0), &json!(true))
    );
    let cleared = put(&admin, "team_monthly", &with("stripe_price_id", json!(""))).await;
    assert_eq!(cleared.expect(200).json()["has_stripe_price"], false);

    let path = format!("{ADMIN}/team_monthly");
    let _ = admin.delete(&path).await.expect(204);
    let _ = admin.delete(&path).await.expect(204);
    let offered = app.client().get("/api/v1/subscriptions/plans").await;
    assert!(!offered.expect(200).text().contains("team_monthly"));
    let all = admin.get(ADMIN).await.expect(200).json();
    assert_eq!(all["meta"]["total"], 4);
    assert_eq!(all["data"][3]["is_offered"], false);
    admin
        .delete(&format!("{ADMIN}/none"))
        .await
        .expect_error(404, "PLAN_NOT_FOUND");
    put(&admin, "none", &team())
        .await
        .expect_error(404, "PLAN_NOT_FOUND");

    let actions = "SELECT action FROM audit_log WHERE subject = 'team_monthly' ORDER BY id";
    let actions = app.db().texts(actions).await;
    assert_eq!(
        actions,
        ["plan.create", "plan.edit", "plan.edit", "plan.withdraw"]
    );
    let leaks = "SELECT count(*) FROM audit_log WHERE concat(before, after) LIKE '%price_secret%'";
    assert_eq!(app.db().number(leaks).await, 0);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_plan_is_refused() {
    let app = TestApp::start().await;
    let admin = app.user_with_role("admin").await;
    for (name, value) in [
        ("id", json!("Team Monthly")),
        ("id", Value::Null),
        ("billing_period", Value::Null),
        ("billing_period", json!("weekly")),
        ("price", json!(-1)),
        ("price", json!(9.999)),
        ("price", json!(1e300)),
        ("price", json!(0)),
        ("price", json!("9.99")),
        ("currency", json!("dollars")),
        ("max_devices", json!(0)),
        ("max_connections", json!(2_000)),
        ("quota_bytes", json!(0)),
        ("trial_days", json!(-1)),
        ("stripe_price_id", json!("price 1")),
    ] {
        let refused = admin.post(ADMIN, &with(name, value.clone())).await;
        let fields = refused.expect_error(400, "INVALID_INPUT");
        assert_eq!(fields, [name], "{value}");
    }
    // Yen have no decimals.
    let yen = |price: Value| {
        let mut body = with("currency", json!("JPY"));
        body["price"] = price;
        body
    };
    admin
        .post(ADMIN, &yen(json!(0.5)))
        .await
        .expect_error(400, "INVALID_INPUT");
    let made = admin
        .post(ADMIN, &yen(json!(1500)))
        .await
        .expect(201)
        .json();
    assert_eq!(made["price"], 1500.0);
    let stored = "SELECT price_minor FROM plans WHERE id = 'team_monthly'";
    assert_eq!(app.db().number(stored).await, 1500);
    put(
        &admin,
        "team_monthly",
        &with("billing_period", json!("yearly")),
    )
    .await
    .expect_error(400, "INVALID_INPUT");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_free_plan_stays_and_reaches_whoever_has_it() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let admin = app.user_with_role("admin").await;
    let user = app.user_on("free").await;
    let tunnel = user.connected(&json!({})).await;
    let free = |name: &str, value: Value| {
        let mut body = json!({
            "name": "Free", "price": 0, "currency": "USD", "max_devices": 1, "max_connections": 1,
            "download_mbps": 10, "upload_mbps": 10,
        });
        body[name] = value;
        body
    };
    admin
        .delete(&format!("{ADMIN}/free"))
        .await
        .expect_error(409, "CONFLICT");
    for body in [
        free("is_offered", json!(false)),
        free("price", json!(1)),
        free("trial_days", json!(7)),
        free("stripe_price_id", json!("price_1")),
    ] {
        put(&admin, "free", &body)
            .await
            .expect_error(409, "CONFLICT");
    }
    let _ = put(&admin, "free", &free("download_mbps", json!(25)))
        .await
        .expect(200);
    wait_until("the node knows", SOON, async || {
        let peer = node.peer_of(tunnel.connection_id);
        peer.is_some_and(|peer| peer.limits.download_bps == Some(25_000_000))
    })
    .await;
    app.finish(&[&node]).await;
}
