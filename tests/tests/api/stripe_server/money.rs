//! Payment intents, charges, refunds, and what goes wrong on the way.

use tests::stripe::Wish;

use super::*;

fn payment(customer: &str, method: &str) -> Value {
    json!({"amount": 1_500, "currency": "EUR", "customer": customer, "payment_method": method,
        "confirm": true, "metadata": {"order": "5"}})
}

#[tokio::test]
async fn an_intent_is_paid_once_confirmed() {
    let stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4242424242424242").await;
    let method = card(&stripe, "4242424242424242").await;
    let wanted = json!({"amount": 1_500, "currency": "eur", "customer": anna,
        "automatic_payment_methods": {"enabled": true}});
    let intent = stripe.post("/v1/payment_intents", wanted).await;
    assert_eq!(intent["status"], "requires_payment_method");
    assert_eq!(stripe.charges().await.len(), 0);
    let confirm = format!("/v1/payment_intents/{}/confirm", id(&intent));
    let given = json!({"payment_method": method, "expand": ["latest_charge"]});
    let paid = stripe.post(&confirm, given).await;
    assert_eq!(paid["status"], "succeeded");
    assert_eq!(paid["amount_received"], 1_500);
    assert_eq!(paid["latest_charge"]["paid"], true);
    let again = refused(&stripe, Method::POST, &confirm, json!({})).await;
    assert_eq!(
        again,
        (
            StatusCode::BAD_REQUEST,
            "payment_intent_unexpected_state".to_owned()
        )
    );
    assert_eq!(stripe.charges().await.len(), 1);
}

#[tokio::test]
async fn a_card_that_always_asks_is_charged_after_3d_secure_only() {
    let stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4242424242424242").await;
    let method = card(&stripe, "4000002760003184").await;
    let intent = stripe
        .post("/v1/payment_intents", payment(&anna, &method))
        .await;
    assert_eq!(intent["status"], "requires_action");
    assert_eq!(stripe.charges().await.len(), 0);
    stripe.authenticate(id(&intent), false).await;
    let path = format!("/v1/payment_intents/{}", id(&intent));
    let failed = stripe.get(&path).await;
    assert_eq!(failed["status"], "requires_payment_method");
    assert_eq!(
        failed["last_payment_error"]["code"],
        "payment_intent_authentication_failure"
    );
    let given = json!({"payment_method": method, "return_url": "https://app.example.org/x"});
    let again = stripe.post(&format!("{path}/confirm"), given).await;
    let page = again["next_action"]["redirect_to_url"]["url"].clone();
    let answer = json!({"confirmed": "true"});
    let back = stripe.submit(page.as_str().unwrap(), answer).await;
    assert_eq!(back.headers()["location"], "https://app.example.org/x");
    assert_eq!(stripe.get(&path).await["status"], "succeeded");
    assert_eq!(stripe.charges().await.len(), 1);

    let mut alone = payment(&anna, &method);
    alone["off_session"] = true.into();
    let refusal = refused(&stripe, Method::POST, "/v1/payment_intents", alone).await;
    assert_eq!(
        refusal,
        (
            StatusCode::PAYMENT_REQUIRED,
            "authentication_required".to_owned()
        )
    );
}

#[tokio::test]
async fn declined_charges_are_in_the_books_and_take_nothing() {
    let stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4242424242424242").await;
    for number in ["4000000000000341", "4000000000000002"] {
        let method = card(&stripe, number).await;
        let (status, body) = stripe
            .try_call(
                Method::POST,
                "/v1/payment_intents",
                payment(&anna, &method),
                None,
            )
            .await;
        assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
        assert_eq!(body["error"]["code"], "card_declined");
        let intent = &body["error"]["payment_intent"];
        assert_eq!(intent["status"], "requires_payment_method");
        let path = format!("/v1/payment_intents/{}/cancel", id(intent));
        let canceled = stripe.post(&path, json!({})).await;
        assert_eq!(canceled["status"], "canceled");
    }
    let charges = stripe.charges().await;
    assert_eq!(charges.len(), 2);
    assert!(charges.iter().all(|it| it["paid"] == false), "{charges:?}");

    // A card that pays otherwise.
    stripe.decline(&anna, 1).await;
    let method = card(&stripe, "4242424242424242").await;
    let first = refused(
        &stripe,
        Method::POST,
        "/v1/payment_intents",
        payment(&anna, &method),
    );
    assert_eq!(first.await.1, "card_declined");
    let second = stripe
        .post("/v1/payment_intents", payment(&anna, &method))
        .await;
    assert_eq!(second["status"], "succeeded");
}

#[tokio::test]
async fn a_charge_is_given_back_in_parts_and_never_beyond() {
    let stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4242424242424242").await;
    let method = card(&stripe, "4242424242424242").await;
    let intent = stripe
        .post("/v1/payment_intents", payment(&anna, &method))
        .await;
    let refund = |amount: Option<i64>| json!({"payment_intent": id(&intent), "amount": amount});
    let mut part = refund(Some(500));
    part["reason"] = "requested_by_customer".into();
    part["metadata"] = json!({"case": "9"});
    let part = stripe.post("/v1/refunds", part).await;
    assert_eq!(part["status"], "succeeded");
    assert_eq!(part["reason"], "requested_by_customer");
    assert_eq!(part["payment_intent"], intent["id"]);
    let beyond = refused(&stripe, Method::POST, "/v1/refunds", refund(Some(1_001))).await;
    assert_eq!(beyond.0, StatusCode::BAD_REQUEST);
    let rest = stripe.post("/v1/refunds", refund(None)).await;
    assert_eq!(rest["amount"], 1_000);
    let again = refused(&stripe, Method::POST, "/v1/refunds", refund(None)).await;
    assert_eq!(again.1, "charge_already_refunded");

    let listed = stripe
        .get(&format!("/v1/refunds?payment_intent={}", id(&intent)))
        .await;
    let amounts: Vec<_> = listed["data"].as_array().unwrap().iter().collect();
    assert_eq!(
        amounts.iter().map(|it| &it["amount"]).collect::<Vec<_>>(),
        [1_000, 500]
    );
    let charges = stripe.charges().await;
    assert_eq!(charges[0]["amount_refunded"], 1_500);
    assert_eq!(charges[0]["refunded"], true);
}

#[tokio::test]
async fn a_lost_answer_is_had_again_by_its_key_and_nothing_is_charged_twice() {
    let stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4242424242424242").await;
    let method = card(&stripe, "4242424242424242").await;
    stripe
        .wish(Wish {
            refusals: vec![500, 429],
            ..Wish::default()
        })
        .await;
    let pay = async || {
        let wanted = payment(&anna, &method);
        stripe
            .try_call(Method::POST, "/v1/payment_intents", wanted, Some("pay-1"))
            .await
    };
    assert_eq!(pay().await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(pay().await.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(stripe.charges().await.len(), 0);
    stripe
        .wish(Wish {
            lost_answers: 1,
            ..Wish::default()
        })
        .await;
    let lost = reqwest::Client::new()
        .post(format!("{}/v1/payment_intents", stripe.base()))
        .bearer_auth("sk_test_harness")
        .header("idempotency-key", "pay-1")
        .body(String::from_utf8(form(&payment(&anna, &method))).unwrap())
        .send()
        .await;
    let lost = match lost {
        Ok(response) => response.bytes().await.is_err(),
        Err(_) => true,
    };
    assert!(lost);
    assert_eq!(pay().await.1["status"], "succeeded");
    let charges = stripe.charges().await;
    assert_eq!(charges.len(), 1);
    assert_eq!(charges[0]["idempotency_key"], "pay-1");
    let calls = stripe.calls().await;
    let payments = calls.iter().filter(|it| it["idempotency_key"] == "pay-1");
    assert_eq!(payments.count(), 4);
}

fn form(parameters: &Value) -> Vec<u8> {
    tests::stripe::form::encode(parameters).into_bytes()
}
