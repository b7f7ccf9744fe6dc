//! What becomes of what was paid for when the money goes back.

use rstest::rstest;
use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_whole_ends_at_once() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    assert_eq!(shop.running(&buyer.user).await, ["premium_monthly active"]);
    let _ = refund(&buyer.user, &json!({ "payment_id": buyer.payment }))
        .await
        .expect(201);
    assert_eq!(shop.running(&buyer.user).await, ["free active"]);
    let path = format!("/v1/subscriptions/{}", buyer.subscription);
    assert_eq!(shop.stripe.get(&path).await["status"], "canceled");
    shop.acted().await;
    assert_eq!(shop.running(&buyer.user).await, ["free active"]);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_it_back_at_stripe_ends_it_too() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    let charges = shop.stripe.charges().await;
    for amount in [400, 599] {
        let given = json!({ "charge": charges[0]["id"], "amount": amount });
        shop.stripe.post("/v1/refunds", given).await;
        shop.acted().await;
        let expected = match amount {
            400 => "premium_monthly active",
            _ => "free active",
        };
        assert_eq!(shop.running(&buyer.user).await, [expected]);
    }
    let payments = history(&buyer.user).await;
    assert_eq!(payments[0]["refunds"].as_array().map(Vec::len), Some(2));
    shop.finish().await;
}

#[rstest]
#[case::part(&[], Some(9.98))]
#[case::wanted(&[("REFUND_ENDS_ACCESS", "false")], None)]
#[tokio::test(flavor = "multi_thread")]
async fn a_part_leaves_it_and_so_does_who_wants_it(
    #[case] variables: &[(&str, &str)],
    #[case] amount: Option<f64>,
) {
    let shop = Shop::with(variables).await;
    let buyer = shop.buyer().await;
    let admin = shop.app.user_with_role("admin").await;
    let body = json!({ "payment_id": buyer.payment, "amount": amount });
    let _ = refund(&admin, &body).await.expect(201);
    shop.acted().await;
    assert_eq!(shop.running(&buyer.user).await, ["premium_monthly active"]);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_period_that_is_given_back_ends_nothing() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    shop.stripe.advance(&buyer.subscription).await;
    let payments = wait_paid(&buyer.user, 2).await;
    shop.acted().await;
    let admin = shop.app.user_with_role("admin").await;
    let _ = refund(&admin, &json!({ "payment_id": buyer.payment }))
        .await
        .expect(201);
    shop.acted().await;
    assert_eq!(shop.running(&buyer.user).await, ["premium_monthly active"]);
    let _ = refund(&admin, &json!({ "payment_id": payments[0]["id"] }))
        .await
        .expect(201);
    assert_eq!(shop.running(&buyer.user).await, ["free active"]);
    shop.acted().await;
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_change_of_plan_all_has_to_go_back() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    let path = format!("/v1/subscriptions/{}", buyer.subscription);
    let item = shop.stripe.get(&path).await["items"]["data"][0]["id"].take();
    let change = json!({ "items": [{ "id": item, "price": shop.yearly }],
        "proration_behavior": "always_invoice", "payment_behavior": "error_if_incomplete" });
    shop.stripe.post(&path, change).await;
    let payments = wait_paid(&buyer.user, 2).await;
    shop.acted().await;
    assert_eq!(payments[0]["plan"], "premium_yearly");
    assert_eq!(shop.running(&buyer.user).await, ["premium_yearly active"]);
    let _ = refund(&buyer.user, &json!({ "payment_id": buyer.payment }))
        .await
        .expect(201);
    shop.acted().await;
    assert_eq!(shop.running(&buyer.user).await, ["premium_yearly active"]);
    let _ = refund(&buyer.user, &json!({ "payment_id": payments[0]["id"] }))
        .await
        .expect(201);
    assert_eq!(shop.running(&buyer.user).await, ["free active"]);
    shop.acted().await;
    shop.finish().await;
}
