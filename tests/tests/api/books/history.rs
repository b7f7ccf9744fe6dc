//! What people read of what they paid.

use serde_json::{Value, json};
use tests::TestApp;
use uuid::Uuid;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_paid_is_there_with_its_invoice() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    let payments = history(&buyer.user).await;
    let payment = &payments[0];
    assert_eq!(payment["status"], "succeeded");
    assert_eq!(
        (&payment["amount"], &payment["currency"]),
        (&json!(9.99), &json!("USD"))
    );
    assert_eq!(
        (&payment["tax"], &payment["refunded"]),
        (&json!(0.0), &json!(0.0))
    );
    assert_eq!(payment["plan"], "premium_monthly");
    assert_eq!(payment["refunds"], json!([]));
    assert!(payment["paid_at"].is_string() && payment["period_end"].is_string());

    let path = format!("/api/v1/billing/invoices/{}", buyer.payment);
    let invoice = buyer.user.get(&path).await.expect(200).json();
    assert_eq!(invoice["id"], payment["id"]);
    assert_eq!(invoice["total"], json!(9.99));
    assert_eq!(invoice["lines"][0]["amount"], json!(9.99));
    assert_eq!(invoice["lines"][0]["period_end"], payment["period_end"]);
    let page = invoice["hosted_invoice_url"].as_str().expect("a page");
    assert!(shop.stripe.open(page).await.status().is_success());
    assert!(invoice["invoice_pdf"].is_string() && invoice["number"].is_string());
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_is_paged_the_newest_first() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    shop.stripe.decline(&buyer.customer, 1).await;
    shop.stripe.advance(&buyer.subscription).await;
    shop.acted().await;
    let payments = history(&buyer.user).await;
    assert_eq!(statuses(&payments), ["failed", "succeeded"]);
    assert_eq!(payments[0]["paid_at"], Value::Null);

    let first = page(&buyer.user, "?per_page=1").await;
    assert_eq!(first["meta"]["total"], 2);
    assert_eq!(first["data"][0]["id"], payments[0]["id"]);
    let next = first["links"]["next"].as_str().expect("a link");
    let second = buyer.user.get(next).await.expect(200).json();
    assert_eq!(second["data"][0]["id"], payments[1]["id"]);
    assert_eq!(second["links"]["next"], Value::Null);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn currencies_without_decimals_are_told_as_they_are() {
    let shop = Shop::open().await;
    let yen = json!({ "unit_amount": 1_500, "currency": "jpy", "recurring": { "interval": "month" },
        "product_data": { "name": "Premium" } });
    let yen = shop.stripe.post("/v1/prices", yen).await;
    let (user, customer) = shop.customer().await;
    let plan = json!({ "id": "yen", "billing_period": "monthly", "name": "Yen", "price": 1500,
        "currency": "JPY", "max_devices": 1, "max_connections": 1, "stripe_price_id": id(&yen) });
    let admin = shop.app.user_with_role("admin").await;
    let _ = admin.post("/api/v1/admin/plans", &plan).await.expect(201);
    shop.subscribe(&customer, id(&yen)).await;
    let payments = wait_paid(&user, 1).await;
    assert_eq!(
        (&payments[0]["amount"], &payments[0]["currency"]),
        (&json!(1500.0), &json!("JPY"))
    );
    shop.acted().await;
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_is_its_payers_alone() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    let (other, _) = shop.customer().await;
    let admin = shop.app.user_with_role("admin").await;
    let path = format!("/api/v1/billing/invoices/{}", buyer.payment);
    for stranger in [&other, &admin] {
        stranger
            .get(&path)
            .await
            .expect_error(404, "PAYMENT_NOT_FOUND");
        assert!(history(stranger).await.is_empty());
    }
    let unknown = format!("/api/v1/billing/invoices/{}", Uuid::now_v7());
    buyer
        .user
        .get(&unknown)
        .await
        .expect_error(404, "PAYMENT_NOT_FOUND");
    let no_id = buyer.user.get("/api/v1/billing/invoices/in_1").await;
    no_id.expect_error(400, "INVALID_INPUT");
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_stripe_is_away_what_we_keep_is_there() {
    let mut shop = Shop::open().await;
    let buyer = shop.buyer().await;
    shop.stripe.stop();
    assert_eq!(history(&buyer.user).await.len(), 1);
    let path = format!("/api/v1/billing/invoices/{}", buyer.payment);
    buyer
        .user
        .get(&path)
        .await
        .expect_error(503, "PAYMENTS_UNAVAILABLE");
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_payments_there_are_no_books() {
    let app = TestApp::start().await;
    let user = app.user_on("free").await;
    let some = Uuid::now_v7();
    for path in [
        HISTORY.to_owned(),
        format!("/api/v1/billing/invoices/{some}"),
        format!("{REFUND}/{some}"),
    ] {
        user.get(&path)
            .await
            .expect_error(503, "PAYMENTS_NOT_CONFIGURED");
    }
    refund(&user, &json!({ "payment_id": some }))
        .await
        .expect_error(503, "PAYMENTS_NOT_CONFIGURED");
    app.finish(&[]).await;
}

fn statuses(payments: &[Value]) -> Vec<&str> {
    let statuses = payments.iter().map(|it| it["status"].as_str());
    statuses.map(|it| it.expect("a status")).collect()
}

async fn page(user: &Client, query: &str) -> Value {
    let reply = user.get(&format!("{HISTORY}{query}")).await;
    reply.expect(200).json()
}
