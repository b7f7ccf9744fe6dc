//! Subscribing with a saved card, changing the plan, canceling and going on.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_card_subscribes_at_once() {
    let shop = Shop::open().await;
    let nobody = shop.person().await;
    let missing = subscribe(&nobody, "monthly").await;
    assert_eq!(
        missing.expect_error(400, "INVALID_INPUT"),
        ["payment_method"]
    );
    let person = shop.person_with(GOOD).await;
    let answer = subscribe(&person, "monthly").await.expect(200).json();
    assert_eq!(answer["status"], "succeeded");
    assert_eq!(answer["subscription"]["plan"], "premium_monthly");
    // The same again is the same.
    let again = subscribe(&person, "premium_monthly")
        .await
        .expect(200)
        .json();
    assert_eq!(again["status"], "succeeded");
    assert_eq!(again["payment_intent_id"], Value::Null);
    assert_eq!(shop.paid().await, 1);
    assert_eq!(
        shop.audited(&person).await,
        ["payment_method.set", "purchase.open"]
    );

    // A card that was never saved is saved on the way.
    let card = shop.card(GOOD).await;
    let body = json!({"plan_type": "yearly", "payment_method": card});
    let _ = nobody
        .post("/api/v1/subscriptions/subscribe", &body)
        .await
        .expect(200);
    assert_eq!(has(&nobody).await, YEARLY);
    subscribe(&person, "none")
        .await
        .expect_error(400, "INVALID_INPUT");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_changed_and_the_difference_charged_once() {
    let shop = Shop::open().await;
    let person = shop.subscriber("monthly").await;
    for _ in 0..2 {
        let changed = subscribe(&person, "yearly").await.expect(200).json();
        assert_eq!(changed["subscription"]["plan"], "premium_yearly");
    }
    let charges = shop.stripe.charges().await;
    assert_eq!(charges.len(), 2);
    // The month that was hardly used is credited.
    assert!(
        charges.iter().any(|it| it["amount"] == 9_000),
        "{charges:?}"
    );
    assert_eq!(shop.purchases().await, ["subscription done", "change done"]);

    // Back again, from what is left of the year: nothing is charged.
    let changed = subscribe(&person, "monthly").await.expect(200).json();
    assert_eq!(changed["subscription"]["plan"], "premium_monthly");
    assert_eq!(shop.paid().await, 2);
    let changed = subscribe(&person, "yearly").await.expect(200).json();
    assert_eq!(changed["subscription"]["plan"], "premium_yearly");
    assert_eq!(shop.subscriptions(&person).await.len(), 1);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_not_paid_for_does_not_happen() {
    let shop = Shop::open().await;
    let person = shop.subscriber("monthly").await;
    let customer = shop.customer(&person).await;
    shop.stripe.decline(&customer, 1).await;
    subscribe(&person, "yearly")
        .await
        .expect_error(400, "PAYMENT_DECLINED");
    assert_eq!(has(&person).await, MONTHLY);
    assert_eq!(
        shop.purchases().await,
        ["subscription done", "change given_up"]
    );
    let _ = subscribe(&person, "yearly").await.expect(200);
    assert_eq!(has(&person).await, YEARLY);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_canceled_at_its_periods_end_and_goes_on() {
    let shop = Shop::open().await;
    let person = shop.person().await;
    for act in ["cancel", "resume"] {
        put(&person, &format!("subscriptions/{act}"), &json!({}))
            .await
            .expect_error(409, "NOT_SUBSCRIBED");
    }
    let nothing = subscribe(&person, "free").await.expect(200).json();
    assert_eq!(nothing["subscription"]["plan"], "free");

    let person = shop.subscriber("monthly").await;
    let end = status(&person).await["end_date"].clone();
    for _ in 0..2 {
        let canceled = put(&person, "subscriptions/cancel", &json!({})).await;
        let canceled = canceled.expect(200).json();
        assert_eq!(canceled["cancel_at_period_end"], true);
        assert_eq!(canceled["access_until"], end);
        assert_eq!(canceled["auto_renew"], false);
    }
    let resumed = put(&person, "subscriptions/resume", &json!({})).await;
    assert_eq!(resumed.expect(200).json()["cancel_at_period_end"], false);
    // The free plan is what is left then.
    let canceled = subscribe(&person, "free").await.expect(200).json();
    assert_eq!(canceled["subscription"]["cancel_at_period_end"], true);
    let again = subscribe(&person, "monthly").await.expect(200).json();
    assert_eq!(again["subscription"]["cancel_at_period_end"], false);
    // So does another plan.
    let _ = put(&person, "subscriptions/cancel", &json!({}))
        .await
        .expect(200);
    let yearly = subscribe(&person, "yearly").await.expect(200).json();
    assert_eq!(yearly["subscription"]["cancel_at_period_end"], false);
    let acts = shop.audited(&person).await;
    let count = |act: &str| acts.iter().filter(|it| *it == act).count();
    assert_eq!(count("subscription.cancel"), 4);
    assert_eq!(count("subscription.resume"), 2);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_renewal_could_not_collect_is_paid_by_hand() {
    let shop = Shop::open().await;
    let person = shop.subscriber("monthly").await;
    let customer = shop.customer(&person).await;
    let subscription = text(&shop.subscriptions(&person).await[0]["id"]);
    shop.stripe.decline(&customer, 1).await;
    shop.stripe.advance(&subscription).await;
    // Any act of ours reads how it stands.
    let _ = put(&person, "subscriptions/resume", &json!({}))
        .await
        .expect(200);
    assert_eq!(
        has(&person).await,
        "premium_monthly past_due premium_monthly"
    );
    checkout(&person, "monthly")
        .await
        .expect_error(409, "ALREADY_SUBSCRIBED");

    let card = shop.card(ASKS).await;
    let body = json!({"plan_type": "monthly", "payment_method": card});
    let asked = person.post("/api/v1/subscriptions/subscribe", &body).await;
    let asked = asked.expect(200).json();
    assert_eq!(asked["status"], "requires_action");
    shop.stripe
        .authenticate(&text(&asked["payment_intent_id"]), true)
        .await;
    let paid = confirm(&person, &asked["payment_intent_id"], None).await;
    assert_eq!(paid.expect(200).json()["status"], "succeeded");
    assert_eq!(has(&person).await, MONTHLY);
    assert_eq!(shop.paid().await, 2);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_begins_with_a_saved_card() {
    let shop = Shop::open().await;
    let trial = "UPDATE plans SET trial_days = 7 WHERE id = 'premium_monthly'";
    shop.app.db().execute(trial).await;
    let person = shop.subscriber("monthly").await;
    assert!(status(&person).await["trial_end"].is_string());
    assert_eq!(shop.paid().await, 0);
    let subscription = &shop.subscriptions(&person).await[0];
    assert!(subscription["default_payment_method"].is_string());
    shop.stripe.advance(&text(&subscription["id"])).await;
    assert_eq!(shop.paid().await, 1);
    shop.close().await;
}
