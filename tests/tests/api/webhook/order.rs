//! Events in any order and at the same time: the last word is Stripe's latest.

use serde_json::json;
use tests::wait_until;

use super::{deliver, event, pays, plane, running, stored, subscription};
use crate::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn an_older_reading_does_not_replace_a_newer_one() {
    let (app, stripe) = plane().await;
    let user = app.user_on("free").await;
    pays(&app, &stripe, &user).await;
    let path = "/v1/subscriptions/sub_1";
    let active = subscription("sub_1", "active", "price_monthly");
    stripe.put(path, active.clone());
    // This reading has its answer, and is held on its way.
    let gate = stripe.hold();
    let asked = stripe.asked().len();
    let first = event("evt_1", "customer.subscription.created", &active);
    let _ = deliver(&app, &first).await.expect(200);
    wait_until("it is read", SOON, async || stripe.asked().len() > asked).await;
    stripe.release_new();
    stripe.put(path, subscription("sub_1", "canceled", "price_monthly"));
    let second = event("evt_2", "customer.subscription.deleted", &active);
    let _ = deliver(&app, &second).await.expect(200);
    wait_until("the newer one is written", SOON, async || {
        stored(&app)
            .await
            .contains(&"customer.subscription.deleted done".to_owned())
    })
    .await;
    gate.add_permits(1);
    app.jobs_end().await;
    assert_eq!(running(&app, &user).await, ["free active"]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_end_alike() {
    let (app, stripe) = plane().await;
    let user = app.user_on("free").await;
    pays(&app, &stripe, &user).await;
    let it = subscription("sub_1", "active", "price_yearly");
    stripe.put("/v1/subscriptions/sub_1", it.clone());
    let kinds = [
        "customer.subscription.created",
        "customer.subscription.updated",
        "invoice.paid",
        "invoice.finalized",
        "checkout.session.completed",
    ];
    for (number, kind) in kinds.into_iter().cycle().take(15).enumerate() {
        let object = match kind {
            kind if kind.starts_with("customer") => it.clone(),
            _ => json!({ "id": "x_1", "subscription": "sub_1", "customer": "cus_1" }),
        };
        let _ = deliver(&app, &event(&format!("evt_{number}"), kind, &object))
            .await
            .expect(200);
    }
    wait_until("all are acted on", SOON, async || {
        let open = "SELECT count(*) FROM stripe_events WHERE status <> 'done'";
        app.db().number(open).await == 0
    })
    .await;
    assert_eq!(running(&app, &user).await, ["premium_yearly active"]);
    app.finish(&[]).await;
}
