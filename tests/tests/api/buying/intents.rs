//! Paying in an app.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_bought_with_a_card_that_the_app_asks_for() {
    let shop = Shop::open().await;
    let person = shop.person().await;
    let begun = intent(&person, "monthly").await.expect(200).json();
    assert_eq!(begun["status"], "requires_payment_method");
    assert_eq!(
        (&begun["amount"], &begun["currency"]),
        (&json!(9.99), &json!("USD"))
    );
    assert!(text(&begun["client_secret"]).starts_with(&text(&begun["payment_intent_id"])));
    let again = intent(&person, "monthly").await.expect(200).json();
    assert_eq!(again, begun);

    let id = &begun["payment_intent_id"];
    let unpaid = confirm(&person, id, None).await.expect(200).json();
    assert_eq!(unpaid["status"], "requires_payment_method");
    assert_eq!(unpaid["subscription"]["plan"], "free");
    let card = shop.card(GOOD).await;
    let paid = confirm(&person, id, Some(&card)).await.expect(200).json();
    assert_eq!(paid["status"], "succeeded");
    assert_eq!(paid["subscription"]["plan"], "premium_monthly");
    assert_eq!(paid["client_secret"], Value::Null);
    // Who asks again is told the same.
    let again = confirm(&person, id, Some(&card)).await.expect(200).json();
    assert_eq!(again, paid);
    assert_eq!(has(&person).await, MONTHLY);
    assert_eq!(shop.paid().await, 1);
    assert_eq!(shop.purchases().await, ["subscription done"]);
    // What paid will pay for the renewals.
    let subscription = &shop.subscriptions(&person).await[0];
    assert_eq!(subscription["default_payment_method"], card);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bank_may_ask_the_payer() {
    let shop = Shop::open().await;
    let person = shop.person().await;
    let begun = intent(&person, "yearly").await.expect(200).json();
    let (id, card) = (&begun["payment_intent_id"], shop.card(ASKS).await);
    let asked = confirm(&person, id, Some(&card)).await.expect(200).json();
    assert_eq!(asked["status"], "requires_action");
    assert_eq!(asked["client_secret"], begun["client_secret"]);
    let page = text(&asked["next_action_url"]);
    assert_eq!(has(&person).await, FREE);
    // Asking again changes nothing.
    let again = confirm(&person, id, Some(&card)).await.expect(200).json();
    assert_eq!(text(&again["next_action_url"]), page);

    // The payer fails at first.
    shop.stripe
        .submit(&page, json!({"confirmed": "false"}))
        .await;
    let failed = confirm(&person, id, None).await.expect(200).json();
    assert_eq!(failed["status"], "requires_payment_method");
    let asked = confirm(&person, id, Some(&card)).await.expect(200).json();
    let page = text(&asked["next_action_url"]);
    let back = shop
        .stripe
        .submit(&page, json!({"confirmed": "true"}))
        .await;
    assert_eq!(back.headers()["location"], PAID);
    let paid = confirm(&person, id, None).await.expect(200).json();
    assert_eq!(paid["status"], "succeeded");
    assert_eq!(has(&person).await, YEARLY);
    assert_eq!(shop.paid().await, 1);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_card_costs_nothing_and_another_one_pays() {
    let shop = Shop::open().await;
    let person = shop.person().await;
    let begun = intent(&person, "monthly").await.expect(200).json();
    let id = &begun["payment_intent_id"];
    let (bad, good) = (shop.card(DECLINED).await, shop.card(GOOD).await);
    for _ in 0..2 {
        confirm(&person, id, Some(&bad))
            .await
            .expect_error(400, "PAYMENT_DECLINED");
    }
    assert_eq!(has(&person).await, FREE);
    assert_eq!(shop.purchases().await, ["subscription open"]);
    let paid = confirm(&person, id, Some(&good)).await.expect(200).json();
    assert_eq!(paid["status"], "succeeded");
    assert_eq!(shop.paid().await, 1);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_somebody_elses_is_not_there() {
    let shop = Shop::open().await;
    let (owner, other, new) = (
        shop.person_with(GOOD).await,
        shop.person_with(GOOD).await,
        shop.person().await,
    );
    let begun = intent(&owner, "monthly").await.expect(200).json();
    let id = &begun["payment_intent_id"];
    for person in [&other, &new] {
        confirm(person, id, None)
            .await
            .expect_error(404, "PAYMENT_INTENT_NOT_FOUND");
    }
    for unknown in ["pi_none", "../customers", "sub_1"] {
        confirm(&owner, &json!(unknown), None)
            .await
            .expect_error(404, "PAYMENT_INTENT_NOT_FOUND");
    }
    let cards = other.get("/api/v1/billing/payment-methods").await;
    let foreign = text(&cards.expect(200).json()["payment_methods"][0]["id"]);
    confirm(&owner, id, Some(&foreign))
        .await
        .expect_error(404, "PAYMENT_METHOD_NOT_FOUND");
    let body = json!({"plan_type": "monthly", "payment_method": foreign});
    owner
        .post("/api/v1/subscriptions/subscribe", &body)
        .await
        .expect_error(404, "PAYMENT_METHOD_NOT_FOUND");
    let wrong = confirm(&owner, id, Some("sub_1")).await;
    assert_eq!(wrong.expect_error(400, "INVALID_INPUT"), ["payment_method"]);
    assert_eq!(shop.paid().await, 0);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_takes_no_payment() {
    let shop = Shop::open().await;
    let person = shop.person().await;
    let monthly = intent(&person, "monthly").await.expect(200).json();
    let yearly = intent(&person, "yearly").await.expect(200).json();
    assert_eq!(yearly["amount"], 99.99);
    let card = shop.card(GOOD).await;
    let over = confirm(&person, &monthly["payment_intent_id"], Some(&card)).await;
    assert_eq!(over.expect(200).json()["status"], "canceled");
    assert_eq!(shop.paid().await, 0);
    let statuses: Vec<_> = shop
        .subscriptions(&person)
        .await
        .iter()
        .map(|it| text(&it["status"]))
        .collect();
    assert_eq!(statuses, ["incomplete", "incomplete_expired"]);
    for body in [
        json!({"plan_type": "free"}),
        json!({"plan_type": "monthly", "currency": "JPY"}),
        json!({}),
    ] {
        person
            .post("/api/v1/payments/create-intent", &body)
            .await
            .expect_error(400, "INVALID_INPUT");
    }
    shop.close().await;
}
