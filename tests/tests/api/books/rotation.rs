//! The books when `SECRET_KEY` changes.

use serde_json::json;

use super::*;
use crate::webhook::resealed;

#[tokio::test(flavor = "multi_thread")]
async fn every_id_is_sealed_again_with_what_it_is_found_by() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    let _ = refund(&buyer.user, &json!({ "payment_id": buyer.payment }))
        .await
        .expect(201);
    shop.acted().await;
    shop.app.jobs_end().await;
    let hashes = "SELECT md5(stripe_hash::text || intent_hash::text) FROM payments";
    let before = shop.app.db().texts(hashes).await;
    let resealed = resealed(&shop.app).await;
    for column in [
        "payments.sealed_stripe_id 1",
        "payments.sealed_intent_id 1",
        "refunds.sealed_stripe_id 1",
    ] {
        assert!(resealed.iter().any(|it| it == column), "{resealed:?}");
    }
    assert_ne!(shop.app.db().texts(hashes).await, before);
    // The plane that still has the former key alone reads nothing any more.
    let path = format!("/api/v1/billing/invoices/{}", buyer.payment);
    buyer
        .user
        .get(&path)
        .await
        .expect_error(500, "INTERNAL_ERROR");
    shop.finish().await;
}
