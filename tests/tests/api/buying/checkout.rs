//! Paying at Stripe's page.

use super::*;

fn url(reply: &Reply) -> String {
    text(&reply.json()["checkout_url"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_bought_at_the_page_and_had_at_once() {
    let shop = Shop::told().await;
    let person = shop.person().await;
    let reply = checkout(&person, "monthly").await.expect(200);
    let answer = reply.json();
    assert_eq!(answer["client_secret"], Value::Null);
    assert_eq!(answer["payment_intent_id"], Value::Null);
    assert_eq!(has(&person).await, FREE);

    let back = shop.stripe.pay(&url(&reply), GOOD).await;
    assert_eq!(back.expect("it is paid"), PAID);
    tests::wait_until("the plan is had", crate::SOON, async || {
        has(&person).await == MONTHLY && shop.purchases().await == ["checkout done"]
    })
    .await;
    assert_eq!(shop.paid().await, 1);
    assert_eq!(shop.audited(&person).await, ["purchase.open"]);
    checkout(&person, "monthly")
        .await
        .expect_error(409, "ALREADY_SUBSCRIBED");
    checkout(&person, "yearly")
        .await
        .expect_error(409, "ALREADY_SUBSCRIBED");
    intent(&person, "yearly")
        .await
        .expect_error(409, "ALREADY_SUBSCRIBED");
    shop.app.jobs_end().await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_word_from_stripe_the_next_question_finds_out() {
    let shop = Shop::open().await;
    let person = shop.person().await;
    let page = url(&checkout(&person, "premium_monthly").await.expect(200));
    let _ = shop.stripe.pay(&page, GOOD).await.expect("it is paid");
    assert_eq!(has(&person).await, FREE);
    checkout(&person, "monthly")
        .await
        .expect_error(409, "ALREADY_SUBSCRIBED");
    assert_eq!(has(&person).await, MONTHLY);
    assert_eq!(shop.purchases().await, ["checkout done"]);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_wish_has_the_same_page_and_another_takes_its_place() {
    let shop = Shop::open().await;
    let person = shop.person().await;
    let alias =
        json!({"plan_type": "monthly", "currency": "usd", "success_url": PAID, "cancel_url": BACK});
    let first = url(&checkout(&person, "monthly").await.expect(200));
    let second = person.post("/payments/create", &alias).await.expect(200);
    assert_eq!(url(&second), first);

    let yearly = url(&checkout(&person, "yearly").await.expect(200));
    assert_ne!(yearly, first);
    // Nobody pays at the page that was given up.
    let refusal = shop.stripe.pay(&first, GOOD).await;
    assert!(refusal.expect_err("it is over").contains("expired"));
    assert_eq!(
        shop.purchases().await,
        ["checkout given_up", "checkout open"]
    );
    let _ = shop.stripe.pay(&yearly, GOOD).await.expect("it is paid");
    // The app's own way takes the page's place too, if it is not paid.
    intent(&person, "monthly")
        .await
        .expect_error(409, "ALREADY_SUBSCRIBED");
    assert_eq!(has(&person).await, YEARLY);
    assert_eq!(shop.paid().await, 1);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_at_their_banks_page_cannot_pay_for_what_they_gave_up() {
    let shop = Shop::open().await;
    let person = shop.person().await;
    let page = url(&checkout(&person, "monthly").await.expect(200));
    let card = json!({"number": ASKS, "exp_month": "12", "exp_year": "2034", "cvc": "123"});
    let asked = shop.stripe.submit(&page, card).await;
    let bank = asked.headers()["location"]
        .to_str()
        .expect("an address")
        .to_owned();
    assert!(bank.contains("/authenticate/"), "{bank}");

    let begun = intent(&person, "monthly").await.expect(200).json();
    shop.stripe
        .submit(&bank, json!({"confirmed": "true"}))
        .await;
    assert_eq!(shop.paid().await, 0);
    let card = shop.card(GOOD).await;
    let paid = confirm(&person, &begun["payment_intent_id"], Some(&card)).await;
    assert_eq!(paid.expect(200).json()["status"], "succeeded");
    assert_eq!(has(&person).await, MONTHLY);
    assert_eq!(shop.paid().await, 1);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_expired_is_followed_by_another() {
    let shop = Shop::open().await;
    let person = shop.person().await;
    let first = url(&checkout(&person, "monthly").await.expect(200));
    let session = first.rsplit('/').next().expect("an id").to_owned();
    let path = format!("/v1/checkout/sessions/{session}/expire");
    shop.stripe.post(&path, json!({})).await;
    let second = url(&checkout(&person, "monthly").await.expect(200));
    assert_ne!(first, second);
    assert_eq!(
        shop.purchases().await,
        ["checkout given_up", "checkout open"]
    );
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_is_for_whoever_never_paid() {
    let shop = Shop::open().await;
    let trial = "UPDATE plans SET trial_days = 7 WHERE id = 'premium_monthly'";
    shop.app.db().execute(trial).await;
    let person = shop.person().await;
    let page = url(&checkout(&person, "monthly").await.expect(200));
    let _ = shop.stripe.pay(&page, GOOD).await.expect("it is paid");
    checkout(&person, "monthly")
        .await
        .expect_error(409, "ALREADY_SUBSCRIBED");
    assert!(status(&person).await["trial_end"].is_string());
    assert_eq!(shop.paid().await, 0);
    let subscription = text(&shop.subscriptions(&person).await[0]["id"]);
    let path = format!("/v1/subscriptions/{subscription}");
    shop.stripe.call(Method::DELETE, &path, json!({})).await;
    put(&person, "subscriptions/cancel", &json!({}))
        .await
        .expect_error(409, "NOT_SUBSCRIBED");
    assert_eq!(has(&person).await, FREE);
    let page = url(&checkout(&person, "monthly").await.expect(200));
    let _ = shop.stripe.pay(&page, GOOD).await.expect("it is paid");
    assert_eq!(shop.paid().await, 1);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_bought_is_refused() {
    let shop = Shop::open().await;
    let person = shop.person().await;
    let body = |name: &str, value: Value| {
        let mut body = json!({"plan_type": "monthly", "success_url": PAID, "cancel_url": BACK});
        body[name] = value;
        body
    };
    let withdrawn = "INSERT INTO plans (id, name, plan_type, price_minor, currency, max_devices, max_connections, is_offered)
        VALUES ('old_monthly', 'Old', 'monthly', 500, 'USD', 1, 1, false),
               ('team_monthly', 'Team', 'monthly', 4950, 'USD', 1, 1, true)";
    shop.app.db().execute(withdrawn).await;
    for (name, value) in [
        ("plan_type", json!("free")),
        ("plan_type", json!("none")),
        ("plan_type", json!("old_monthly")),
        // It has no price at Stripe.
        ("plan_type", json!("team_monthly")),
        ("plan_type", json!("")),
        ("currency", json!("EUR")),
        ("currency", json!("dollars")),
        ("success_url", json!("https://evil.example/")),
        ("cancel_url", json!("javascript:alert(1)")),
        ("success_url", json!(5)),
        ("cancel_url", Value::Null),
    ] {
        let reply = person
            .post("/api/v1/payments/create", &body(name, value.clone()))
            .await;
        assert_eq!(
            reply.expect_error(400, "INVALID_INPUT"),
            [name],
            "{name} {value}"
        );
    }
    let anonymous = shop.app.client();
    checkout(&anonymous, "monthly")
        .await
        .expect_error(401, "UNAUTHORIZED");
    assert_eq!(
        shop.stripe
            .calls()
            .await
            .iter()
            .filter(|it| it["path"] == "/v1/customers")
            .count(),
        0
    );
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_nothing_is_sold() {
    let app = TestApp::start().await;
    let person = app.user_on("free").await;
    let method = json!({"payment_method": "pm_1"});
    for reply in [
        checkout(&person, "monthly").await,
        intent(&person, "monthly").await,
        confirm(&person, &json!("pi_1"), None).await,
        subscribe(&person, "monthly").await,
        put(&person, "subscriptions/cancel", &json!({})).await,
        put(&person, "subscriptions/resume", &json!({})).await,
        put(&person, "billing/payment-method", &method).await,
        person.get("/api/v1/billing/payment-methods").await,
        person.delete("/api/v1/billing/payment-methods/pm_1").await,
        person
            .post("/api/v1/billing/portal", &json!({"return_url": BACK}))
            .await,
    ] {
        reply.expect_error(503, "PAYMENTS_NOT_CONFIGURED");
    }
    app.finish(&[]).await;
}
