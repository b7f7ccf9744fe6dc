//! With Stripe's word, in whichever order and however often it comes, everything ends alike.

use tests::wait_until;

use super::*;
use crate::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn a_life_is_followed_by_stripes_word_alone() {
    let shop = Shop::told().await;
    let person = shop.subscriber("monthly").await;
    let subscription = text(&shop.subscriptions(&person).await[0]["id"]);
    let customer = shop.customer(&person).await;
    let is = async |expected: &str| {
        wait_until(expected, SOON, async || has(&person).await == expected).await;
    };
    shop.stripe.advance(&subscription).await;
    is(MONTHLY).await;
    shop.stripe.decline(&customer, 1).await;
    shop.stripe.advance(&subscription).await;
    is("premium_monthly past_due premium_monthly").await;
    // In the portal the person names another card and cancels.
    let portal = person
        .post("/api/v1/billing/portal", &json!({"return_url": BACK}))
        .await;
    let page = text(&portal.expect(200).json()["url"]);
    let form = json!({"action": "cancel", "subscription": subscription});
    shop.stripe.submit(&page, form).await;
    wait_until("it is canceled", SOON, async || {
        status(&person).await["cancel_at_period_end"] == true
    })
    .await;
    shop.stripe.give_up(&subscription, "canceled").await;
    is(FREE).await;
    shop.app.jobs_end().await;
    shop.close().await;
}
