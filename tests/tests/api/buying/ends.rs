//! What ends with an account, and what ends because something else runs.

use tests::api::PASSWORD;
use tests::wait_until;

use super::*;
use crate::SOON;

async fn delete(person: &Client) {
    let request = person.request(Method::DELETE, "/api/v1/users/me");
    let body = json!({"password": PASSWORD});
    let _ = person.send(request.json(&body)).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_pays_for_nothing_more() {
    let shop = Shop::open().await;
    let person = shop.app.client().sign_up("anna@example.org").await;
    let card = shop.card(GOOD).await;
    let body = json!({"plan_type": "monthly", "payment_method": card});
    let _ = person
        .post("/api/v1/subscriptions/subscribe", &body)
        .await
        .expect(200);
    let subscription = text(&shop.subscriptions(&person).await[0]["id"]);
    delete(&person).await;
    shop.app.jobs_end().await;
    let path = format!("/v1/subscriptions/{subscription}");
    assert_eq!(shop.stripe.get(&path).await["status"], "canceled");
    let found = shop
        .stripe
        .get("/v1/customers?email=anna@example.org")
        .await;
    assert_eq!(found["data"], json!([]));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_cannot_pay_at_a_page_that_is_open() {
    let shop = Shop::open().await;
    let person = shop.app.client().sign_up("anna@example.org").await;
    let page = text(&checkout(&person, "monthly").await.expect(200).json()["checkout_url"]);
    delete(&person).await;
    shop.app.jobs_end().await;
    let _ = shop.stripe.pay(&page, GOOD).await.expect_err("it is over");
    assert_eq!(shop.stripe.charges().await.len(), 0);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_cannot_make_a_payment_that_waits() {
    let shop = Shop::open().await;
    let person = shop.app.client().sign_up("anna@example.org").await;
    let begun = intent(&person, "monthly").await.expect(200).json();
    delete(&person).await;
    shop.app.jobs_end().await;
    let path = format!("/v1/payment_intents/{}", text(&begun["payment_intent_id"]));
    assert_eq!(shop.stripe.get(&path).await["status"], "canceled");
    shop.close().await;
}

/// Somebody at the operator's made a second one by hand.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_subscriptions_the_one_that_gives_nothing_is_ended() {
    let shop = Shop::open().await;
    let person = shop.subscriber("monthly").await;
    let customer = shop.customer(&person).await;
    let first = text(&shop.subscriptions(&person).await[0]["id"]);
    shop.stripe.advance(&first).await;
    let yearly = price(&shop.stripe, 5_000, "year").await;
    let plan = "INSERT INTO plans (id, name, plan_type, price_minor, currency, max_devices, max_connections)
        VALUES ('team_yearly', 'Team', 'yearly', 5000, 'USD', 9, 9)";
    shop.app.db().execute(plan).await;
    let admin = shop.app.user_with_role("admin").await;
    let terms = json!({"name": "Team", "price": 50, "currency": "USD", "max_devices": 9, "max_connections": 9,
        "stripe_price_id": yearly});
    let _ = put(&admin, "admin/plans/team_yearly", &terms)
        .await
        .expect(200);
    let wanted = json!({"customer": customer, "items": [{"price": yearly}]});
    shop.stripe.post("/v1/subscriptions", wanted).await;
    // Whatever leads to a reading.
    let _ = put(&person, "subscriptions/resume", &json!({}))
        .await
        .expect(200);
    wait_until("one is left", SOON, async || {
        let all = shop.subscriptions(&person).await;
        all.iter().filter(|it| it["status"] == "active").count() == 1
    })
    .await;
    assert_eq!(has(&person).await, "team_yearly active team_yearly");
    let ended = "SELECT count(*) FROM audit_log WHERE action = 'subscription.end_superseded'";
    assert_eq!(shop.app.db().number(ended).await, 1);
    shop.close().await;
}
