//! From an event to the subscription, and what becomes of those that fail.

use reqwest::Method;
use serde_json::{Value, json};
use tests::api::Client;
use uuid::Uuid;

use super::{EVENTS, deliver, event, pays, plane, running, stored, subscription, wait_stored};
use crate::stripe::script::Answer;

const UPDATED: &str = "customer.subscription.updated";

async fn list(client: &Client, query: &str) -> Value {
    let reply = client.get(&format!("{EVENTS}{query}")).await;
    reply.expect(200).json()
}

async fn replay(client: &Client, id: &str) -> tests::api::Reply {
    let path = format!("{EVENTS}/{id}/replay");
    client.send(client.request(Method::POST, &path)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_what_stripe_says_now() {
    let (app, stripe) = plane().await;
    let user = app.user_on("free").await;
    pays(&app, &stripe, &user).await;
    // The event tells of yesterday.
    let told = subscription("sub_1", "incomplete", "price_monthly");
    stripe.put(
        "/v1/subscriptions/sub_1",
        subscription("sub_1", "active", "price_yearly"),
    );
    let _ = deliver(
        &app,
        &event("evt_1", "customer.subscription.created", &told),
    )
    .await
    .expect(200);
    wait_stored(&app, &["customer.subscription.created done"]).await;
    assert_eq!(running(&app, &user).await, ["premium_yearly active"]);

    stripe.put(
        "/v1/subscriptions/sub_1",
        subscription("sub_1", "canceled", "price_yearly"),
    );
    let invoice = json!({ "id": "in_1", "subscription": "sub_1" });
    let _ = deliver(&app, &event("evt_2", "invoice.voided", &invoice))
        .await
        .expect(200);
    wait_stored(
        &app,
        &["customer.subscription.created done", "invoice.voided done"],
    )
    .await;
    assert_eq!(running(&app, &user).await, ["free active"]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_id_of_stripes_is_in_the_database() {
    let (app, stripe) = plane().await;
    let user = app.user_on("free").await;
    pays(&app, &stripe, &user).await;
    let it = subscription("sub_1", "active", "price_monthly");
    stripe.put("/v1/subscriptions/sub_1", it.clone());
    let _ = deliver(&app, &event("evt_1", UPDATED, &it))
        .await
        .expect(200);
    wait_stored(&app, &[&format!("{UPDATED} done")]).await;
    let tables = "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'";
    for table in app.db().texts(tables).await {
        for part in ["cus_1", "sub_1", "evt_1", "price_monthly"] {
            // As text, and as bytes.
            let bytes: String = part.bytes().map(|byte| format!("{byte:02x}")).collect();
            let found = format!(
                "SELECT count(*) FROM {table} AS t WHERE t::text LIKE '%{}%' OR t::text LIKE '%{bytes}%'",
                part.replace('_', r"\_")
            );
            assert_eq!(app.db().number(&found).await, 0, "{part} in {table}");
        }
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nobodys_here_changes_nothing() {
    let (app, stripe) = plane().await;
    let it = subscription("sub_9", "active", "price_of_another_shop");
    stripe.put("/v1/subscriptions/sub_9", it.clone());
    let _ = deliver(&app, &event("evt_1", UPDATED, &it))
        .await
        .expect(200);
    wait_stored(&app, &[&format!("{UPDATED} done")]).await;
    assert_eq!(
        app.db().number("SELECT count(*) FROM subscriptions").await,
        0
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_good_is_parked_seen_and_tried_again() {
    let (app, stripe) = plane().await;
    let user = app.user_on("free").await;
    pays(&app, &stripe, &user).await;
    let wrong = subscription("sub_1", "active", "price_nobody_knows");
    stripe.put("/v1/subscriptions/sub_1", wrong.clone());
    let _ = deliver(&app, &event("evt_1", UPDATED, &wrong))
        .await
        .expect(200);
    let _ = deliver(&app, &event("evt_2", "product.created", &json!({})))
        .await
        .expect(200);
    wait_stored(
        &app,
        &[&format!("{UPDATED} parked"), "product.created done"],
    )
    .await;

    let (admin, support) = (
        app.user_with_role("admin").await,
        app.user_with_role("support").await,
    );
    assert_eq!(list(&support, "").await["meta"]["total"], 2);
    let parked = list(&support, "?status=parked").await["data"].take();
    let parked = parked.as_array().expect("a list");
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0]["type"], UPDATED);
    assert_eq!(parked[0]["attempts"], 1);
    assert_eq!(
        parked[0]["last_error"],
        "the subscription's price is no plan's"
    );
    assert!(!parked[0].to_string().contains("_1"), "{}", parked[0]);
    let id = parked[0]["id"].as_str().expect("an id");

    replay(&support, id).await.expect_error(403, "FORBIDDEN");
    stripe.put(
        "/v1/subscriptions/sub_1",
        subscription("sub_1", "active", "price_monthly"),
    );
    let shown = replay(&admin, id).await.expect(200).json();
    assert_eq!(
        (&shown["status"], &shown["attempts"]),
        (&json!("waiting"), &json!(0))
    );
    wait_stored(&app, &[&format!("{UPDATED} done"), "product.created done"]).await;
    assert_eq!(running(&app, &user).await, ["premium_monthly active"]);
    replay(&admin, &Uuid::now_v7().to_string())
        .await
        .expect_error(404, "BILLING_EVENT_NOT_FOUND");
    let audited = "SELECT actor || ' ' || subject || ' ' || (before ->> 'status')
        FROM audit_log WHERE action = 'billing_event.replay'";
    let expected = format!("{} {id} parked", admin.user());
    assert_eq!(app.db().texts(audited).await, [expected]);
    let wrong = support.get(&format!("{EVENTS}?status=lost")).await;
    wrong.expect_error(400, "INVALID_INPUT");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_not_tried_a_second_time() {
    let (app, stripe) = plane().await;
    let user = app.user_on("free").await;
    pays(&app, &stripe, &user).await;
    let it = subscription("sub_1", "active", "price_monthly");
    stripe.put("/v1/subscriptions/sub_1", it.clone());
    let gate = stripe.hold();
    let _ = deliver(&app, &event("evt_1", UPDATED, &it))
        .await
        .expect(200);
    let admin = app.user_with_role("admin").await;
    let id = list(&admin, "?status=waiting").await["data"][0]["id"].take();
    replay(&admin, id.as_str().expect("an id"))
        .await
        .expect_error(409, "CONFLICT");
    gate.add_permits(1);
    wait_stored(&app, &[&format!("{UPDATED} done")]).await;
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_stripe_is_away_events_wait() {
    let (app, stripe) = plane().await;
    let user = app.user_on("free").await;
    pays(&app, &stripe, &user).await;
    let it = subscription("sub_1", "active", "price_monthly");
    stripe.put("/v1/subscriptions/sub_1", it.clone());
    stripe.answer(Answer::status(503).with("stripe-should-retry", "false"));
    let _ = deliver(&app, &event("evt_1", UPDATED, &it))
        .await
        .expect(200);
    wait_stored(&app, &[&format!("{UPDATED} done")]).await;
    let attempts = "SELECT attempts::bigint FROM stripe_events";
    assert_eq!(app.db().number(attempts).await, 2);
    assert_eq!(stored(&app).await.len(), 1);
    assert_eq!(running(&app, &user).await, ["premium_monthly active"]);
    app.finish(&[]).await;
}
