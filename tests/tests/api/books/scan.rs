//! The whole database after everything was used: no card, no secret, no id of Stripe's.

use serde_json::json;
use tests::stripe::StripeServer;

use super::*;

/// What must be nowhere: keys and secrets, ids of Stripe's, card numbers.
const FORBIDDEN: &[&str] = &[
    "(sk|rk|pk)_(test|live)_",
    "whsec_",
    "_secret_[A-Za-z0-9]{8}",
    "(^|[^A-Za-z0-9])(cus|sub|si|price|prod|in|il|inpay|pi|seti|pm|card|ch|re|txn|cs|bps|evt|dp)_[A-Za-z0-9]{8}",
    // Not within a word: every eightieth random name in hex has as many digits in a row.
    "(^|[^0-9A-Za-z.])[0-9]{13,19}([^0-9A-Za-z]|$)",
];

/// Buys on Stripe's page, with a card whose bank asks first.
async fn check_out(shop: &Shop, stripe: &StripeServer) -> (Client, String) {
    let user = shop.app.user_on("free").await;
    let customer = shop.app.customer(&user).await;
    let session = json!({
        "mode": "subscription", "line_items": [{ "price": shop.monthly, "quantity": 1 }],
        "success_url": "https://app.example.org/done", "cancel_url": "https://app.example.org/plans",
        "customer": customer,
    });
    let session = stripe.post("/v1/checkout/sessions", session).await;
    let page = session["url"].as_str().expect("a page");
    stripe
        .pay(page, "4000002760003184")
        .await
        .expect("it is paid");
    (user, customer)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_opens_or_names_anything_is_stored() {
    let shop = Shop::open().await;
    let (user, customer) = check_out(&shop, &shop.stripe).await;
    let payments = wait_paid(&user, 1).await;
    let portal = json!({ "customer": customer, "return_url": "https://app.example.org/" });
    shop.stripe
        .post("/v1/billing_portal/sessions", portal)
        .await;
    let invoice = format!("/api/v1/billing/invoices/{}", id(&payments[0]));
    let _ = user.get(&invoice).await.expect(200);
    let buyer = shop.buyer().await;
    shop.stripe.decline(&buyer.customer, 1).await;
    shop.stripe.advance(&buyer.subscription).await;
    shop.acted().await;
    let body = json!({ "payment_id": id(&payments[0]), "reason": "It is slow here" });
    let _ = refund_with_key(&user, &body, "a-key-of-the-apps").await;
    shop.acted().await;
    // A job that failed says why, and an event that cannot be read says so too.
    let wrong = json!({ "id": "../sub_0123456789", "customer": customer });
    let wrong = crate::webhook::event("evt_0123456789", "customer.subscription.updated", &wrong);
    let _ = crate::webhook::deliver(&shop.app, &wrong).await.expect(200);
    let plan = json!({ "id": "own", "billing_period": "monthly", "name": "Own", "price": 5,
        "currency": "USD", "max_devices": 1, "max_connections": 1, "stripe_price_id": shop.yearly });
    let admin = shop.app.user_with_role("admin").await;
    let _ = admin.post("/api/v1/admin/plans", &plan).await.expect(201);
    shop.app.jobs_end().await;
    assert!(shop.app.reconcile(false).await.is_clean());

    let forbidden = FORBIDDEN.join("|");
    let found = shop.app.db().find(&forbidden).await;
    assert!(found.is_empty(), "{found:#?}");
    // What it looks for is found where it is.
    shop.app
        .db()
        .execute(&format!(
            "UPDATE refunds SET reason = 'See {customer}';
             UPDATE payments SET sealed_stripe_id = convert_to('4242424242424242', 'UTF8')"
        ))
        .await;
    let planted = shop.app.db().find(&forbidden).await;
    assert!(planted.len() >= 2, "{planted:#?}");
    shop.app.finish(&[]).await;
}
