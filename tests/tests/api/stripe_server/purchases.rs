//! Subscriptions begun by API and by Checkout, changed, cancelled, and the portal.

use super::*;

async fn session(stripe: &StripeServer, more: Value) -> Value {
    let price = price(stripe, MONTHLY, "month").await;
    let mut wanted = json!({
        "mode": "subscription", "line_items": [{"price": price, "quantity": 1}],
        "success_url": "https://app.example.org/done?session={CHECKOUT_SESSION_ID}",
        "cancel_url": "https://app.example.org/plans", "client_reference_id": "user-7",
        "subscription_data": {"metadata": {"user": "7"}},
    });
    for (key, value) in more.as_object().unwrap() {
        wanted[key] = value.clone();
    }
    stripe.post("/v1/checkout/sessions", wanted).await
}

async fn reread(stripe: &StripeServer, session: &Value) -> Value {
    let path = format!("/v1/checkout/sessions/{}", id(session));
    stripe
        .get(&format!("{path}?expand[]=subscription&expand[]=invoice"))
        .await
}

fn url(session: &Value) -> &str {
    session["url"].as_str().expect("an open session has a page")
}

#[tokio::test]
async fn a_person_buys_by_checkout() {
    let stripe = StripeServer::start().await;
    let customer = stripe
        .post("/v1/customers", json!({"email": "anna@example.org"}))
        .await;
    let session = session(&stripe, json!({"customer": id(&customer)})).await;
    assert_eq!(
        (&session["status"], &session["payment_status"]),
        (&json!("open"), &json!("unpaid"))
    );
    assert!(stripe.open(url(&session)).await.status().is_success());
    let landed = stripe.pay(url(&session), "4242 4242 4242 4242").await;
    let expected = format!("https://app.example.org/done?session={}", id(&session));
    assert_eq!(landed.unwrap(), expected);

    let done = reread(&stripe, &session).await;
    assert_eq!(
        (&done["status"], &done["payment_status"]),
        (&json!("complete"), &json!("paid"))
    );
    assert_eq!(done["client_reference_id"], "user-7");
    let subscription = &done["subscription"];
    assert_eq!(subscription["status"], "active");
    assert_eq!(subscription["metadata"], json!({"user": "7"}));
    assert_eq!(done["invoice"]["amount_paid"], MONTHLY);
    let events = stripe.events().await;
    for kind in [
        "invoice.paid",
        "checkout.session.completed",
        "customer.subscription.created",
    ] {
        assert!(kinds(&events).contains(&kind), "{kind}");
    }
    // The page of a session is good for one purchase.
    assert!(stripe.pay(url(&session), "4242424242424242").await.is_err());
    assert_eq!(stripe.charges().await.len(), 1);
}

#[tokio::test]
async fn a_declined_card_leaves_the_session_open_for_another() {
    let stripe = StripeServer::start().await;
    let session = session(&stripe, json!({"customer_email": "anna@example.org"})).await;
    for number in ["4000000000000002", "4000000000000341"] {
        let page = stripe.pay(url(&session), number).await.unwrap_err();
        assert!(page.contains("declined"), "{page}");
    }
    assert_eq!(reread(&stripe, &session).await["status"], "open");
    stripe.pay(url(&session), "4000002760003184").await.unwrap();
    let done = reread(&stripe, &session).await;
    assert_eq!(done["subscription"]["status"], "active");
    let customer = done["customer"].as_str().unwrap();
    let active = stripe
        .get(&format!("/v1/subscriptions?customer={customer}"))
        .await;
    assert_eq!(active["data"].as_array().unwrap().len(), 1);
    let paid = stripe.charges().await;
    assert_eq!(paid.iter().filter(|it| it["paid"] == true).count(), 1);
}

#[tokio::test]
async fn a_failed_3d_secure_leads_back_to_the_page() {
    let stripe = StripeServer::start().await;
    let session = session(&stripe, json!({})).await;
    let card = json!({"number": "4000002500003155", "exp_month": "12", "exp_year": "2034",
        "cvc": "123"});
    let sent = stripe.submit(url(&session), card).await;
    let bank = sent.headers()["location"].to_str().unwrap().to_owned();
    let back = stripe.submit(&bank, json!({"confirmed": "false"})).await;
    let back = back.headers()["location"].to_str().unwrap().to_owned();
    let page = stripe.open(&back).await;
    assert_eq!(page.status(), StatusCode::PAYMENT_REQUIRED);
    assert_eq!(reread(&stripe, &session).await["status"], "open");
    stripe.pay(url(&session), "4242424242424242").await.unwrap();
    let done = reread(&stripe, &session).await;
    assert_eq!(done["subscription"]["status"], "active");
    assert_eq!(stripe.charges().await.len(), 1);
}

#[tokio::test]
async fn sessions_for_one_payment_for_a_trial_and_expired() {
    let stripe = StripeServer::start().await;
    let once = json!({"mode": "payment", "subscription_data": null, "line_items": [{
        "quantity": 2, "price_data": {"currency": "jpy", "unit_amount": 500,
            "product_data": {"name": "A cap"}}}]});
    let once = session(&stripe, once).await;
    assert_eq!(once["amount_total"], 1_000);
    stripe.pay(url(&once), "4000002760003184").await.unwrap();
    let done = reread(&stripe, &once).await;
    let intent = done["payment_intent"].as_str().unwrap();
    let intent = stripe.get(&format!("/v1/payment_intents/{intent}")).await;
    assert_eq!(
        (&intent["amount_received"], &intent["currency"]),
        (&json!(1_000), &json!("jpy"))
    );

    let trial = json!({"subscription_data": {"trial_period_days": 14}});
    let trial = session(&stripe, trial).await;
    stripe.pay(url(&trial), "4000002500003155").await.unwrap();
    let done = reread(&stripe, &trial).await;
    assert_eq!(done["payment_status"], "no_payment_required");
    assert_eq!(done["subscription"]["status"], "trialing");
    assert_eq!(stripe.charges().await.len(), 1);

    let expired = session(&stripe, json!({})).await;
    let path = format!("/v1/checkout/sessions/{}/expire", id(&expired));
    assert_eq!(stripe.post(&path, json!({})).await["status"], "expired");
    assert!(stripe.pay(url(&expired), "4242424242424242").await.is_err());
}

#[tokio::test]
async fn a_subscription_waits_for_its_first_payment() {
    let stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4242424242424242").await;
    let price = price(&stripe, MONTHLY, "month").await;
    let wanted = |behavior: &str| {
        json!({"customer": anna, "items": [{"price": price}], "payment_behavior": behavior,
            "expand": ["latest_invoice.payment_intent"]})
    };
    let waiting = stripe
        .post("/v1/subscriptions", wanted("default_incomplete"))
        .await;
    assert_eq!(waiting["status"], "incomplete");
    let intent = id(&waiting["latest_invoice"]["payment_intent"]);
    let method = card(&stripe, "4242424242424242").await;
    let confirm = format!("/v1/payment_intents/{intent}/confirm");
    stripe
        .post(&confirm, json!({"payment_method": method}))
        .await;
    let path = format!("/v1/subscriptions/{}", id(&waiting));
    assert_eq!(stripe.get(&path).await["status"], "active");

    add_card(&stripe, &anna, "4000000000000341").await;
    let strict = wanted("error_if_incomplete");
    let declined = refused(&stripe, Method::POST, "/v1/subscriptions", strict).await;
    assert_eq!(declined.0, StatusCode::PAYMENT_REQUIRED);
    let lenient = stripe
        .post("/v1/subscriptions", wanted("allow_incomplete"))
        .await;
    assert_eq!(lenient["status"], "incomplete");
    let all = stripe
        .get(&format!("/v1/subscriptions?customer={anna}"))
        .await;
    assert_eq!(all["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_plan_changes_with_proration() {
    let stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4242424242424242").await;
    let monthly = subscription(&stripe, &anna).await;
    let path = format!("/v1/subscriptions/{}", id(&monthly));
    let item = id(&monthly["items"]["data"][0]);
    let yearly = price(&stripe, YEARLY, "year").await;
    let change = json!({"items": [{"id": item, "price": yearly}],
        "expand": ["latest_invoice"]});
    let changed = stripe.post(&path, change).await;
    let invoice = &changed["latest_invoice"];
    assert_eq!(invoice["billing_reason"], "subscription_update");
    assert_eq!(invoice["lines"]["data"][0]["proration"], true);
    // The whole month is unused, but for the seconds that the test took.
    let total = invoice["total"].as_i64().unwrap();
    assert!(
        (YEARLY - MONTHLY..=YEARLY - MONTHLY + 2).contains(&total),
        "{total}"
    );
    assert_eq!(changed["items"]["data"][0]["price"]["id"], yearly.as_str());
    let year = changed["current_period_end"].as_i64().unwrap()
        - changed["current_period_start"].as_i64().unwrap();
    assert!(year >= 365 * 86_400);

    // Within the same interval it is put on the next invoice; back to monthly leaves a credit.
    let dearer = price(&stripe, YEARLY + 1_000, "year").await;
    let change = json!({"items": [{"id": item, "price": dearer}]});
    let changed = stripe.post(&path, change).await;
    assert_eq!(changed["latest_invoice"], invoice["id"]);
    let cheap = price(&stripe, MONTHLY, "month").await;
    let change = json!({"items": [{"id": item, "price": cheap}]});
    stripe.post(&path, change).await;
    let customer = stripe.get(&format!("/v1/customers/{anna}")).await;
    let balance = customer["balance"].as_i64().unwrap();
    assert!((-9_002..=-8_998).contains(&balance), "{balance}");
    assert_eq!(stripe.charges().await.len(), 2);
}

#[tokio::test]
async fn an_end_at_the_periods_end_is_set_undone_and_comes() {
    let stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4242424242424242").await;
    let running = subscription(&stripe, &anna).await;
    let path = format!("/v1/subscriptions/{}", id(&running));
    let set = async |is_set: bool| {
        let wanted = json!({"cancel_at_period_end": is_set});
        stripe.post(&path, wanted).await
    };
    let ending = set(true).await;
    assert_eq!(
        (&ending["status"], &ending["cancel_at"]),
        (&json!("active"), &ending["current_period_end"])
    );
    assert_eq!(set(false).await["cancel_at"], Value::Null);
    assert_eq!(stripe.advance(id(&running)).await["status"], "active");
    set(true).await;
    let ended = stripe.advance(id(&running)).await;
    assert_eq!(ended["status"], "canceled");
    assert_eq!(stripe.charges().await.len(), 2);
    let late = refused(
        &stripe,
        Method::POST,
        &path,
        json!({"cancel_at_period_end": false}),
    );
    assert_eq!(late.await.0, StatusCode::BAD_REQUEST);

    let other = subscription(&stripe, &anna).await;
    let path = format!("/v1/subscriptions/{}", id(&other));
    let ended = stripe.call(Method::DELETE, &path, json!({})).await;
    assert_eq!(ended["status"], "canceled");
}

#[tokio::test]
async fn the_portal_cancels_resumes_and_takes_another_card() {
    let stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4000000000000341").await;
    let price = price(&stripe, MONTHLY, "month").await;
    let wanted = json!({"customer": anna, "items": [{"price": price}], "trial_period_days": 7});
    let running = stripe.post("/v1/subscriptions", wanted).await;
    let portal = json!({"customer": anna, "return_url": "https://app.example.org/"});
    let portal = stripe.post("/v1/billing_portal/sessions", portal).await;
    let page = url(&portal);
    let press = async |action: &str| {
        let form = json!({"action": action, "subscription": id(&running)});
        stripe.submit(page, form).await.status()
    };
    let path = format!("/v1/subscriptions/{}", id(&running));
    assert_eq!(press("cancel").await, StatusCode::OK);
    assert_eq!(stripe.get(&path).await["cancel_at_period_end"], true);
    assert_eq!(press("resume").await, StatusCode::OK);
    assert_eq!(stripe.get(&path).await["cancel_at_period_end"], false);
    let card = json!({"action": "card", "number": "4242424242424242", "exp_month": "1",
        "exp_year": "2035", "cvc": "123"});
    assert_eq!(stripe.submit(page, card).await.status(), StatusCode::OK);
    assert_eq!(stripe.advance(id(&running)).await["status"], "active");
    let foreign = json!({"action": "cancel", "subscription": "sub_other"});
    assert_eq!(
        stripe.submit(page, foreign).await.status(),
        StatusCode::BAD_REQUEST
    );
}
