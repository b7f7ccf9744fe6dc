//! What is nobody's here, and what a bank takes back.

use serde_json::json;

use super::*;
use crate::webhook::{deliver, event};

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_at_the_account_pays_is_not_kept() {
    let shop = Shop::open().await;
    let about = json!({ "email": "anna@example.org" });
    let customer = shop.stripe.post("/v1/customers", about).await;
    shop.add_card(id(&customer), CARD).await;
    shop.subscribe(id(&customer), &shop.monthly).await;
    shop.acted().await;
    let kept = "SELECT count(*) FROM payments";
    assert_eq!(shop.app.db().number(kept).await, 0);
    let parked = "SELECT count(*) FROM stripe_events WHERE status = 'parked'";
    assert_eq!(shop.app.db().number(parked).await, 0);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispute_is_an_alert() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    let charges = shop.stripe.charges().await;
    let dispute = json!({ "id": "dp_1", "object": "dispute", "charge": charges[0]["id"],
        "payment_intent": charges[0]["payment_intent"] });
    let told = event("evt_dispute", "charge.dispute.created", &dispute);
    let _ = deliver(&shop.app, &told).await.expect(200);
    wait_until("operators see it", SOON, async || {
        let alerts = "SELECT kind || ' ' || count FROM security_alerts";
        shop.app.db().texts(alerts).await == ["disputes 1"]
    })
    .await;
    shop.acted().await;
    assert_eq!(history(&buyer.user).await.len(), 1);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_that_is_only_foreseen_is_no_news() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    let foreseen = json!({ "object": "invoice", "customer": buyer.customer,
        "subscription": buyer.subscription });
    let told = event("evt_foreseen", "invoice.upcoming", &foreseen);
    let _ = deliver(&shop.app, &told).await.expect(200);
    wait_until("it is acted on", SOON, async || {
        let done = "SELECT count(*) FROM stripe_events WHERE kind = 'invoice.upcoming' AND status = 'done'";
        shop.app.db().number(done).await == 1
    })
    .await;
    shop.finish().await;
}
