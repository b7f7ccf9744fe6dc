//! What time does: trials end, periods follow each other, cards fail.

use tests::stripe::Wish;

use super::*;

async fn invoices(stripe: &StripeServer, subscription: &Value) -> Vec<Value> {
    let path = format!("/v1/invoices?subscription={}", id(subscription));
    stripe.get(&path).await["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_trial_is_paid_when_it_ends() {
    let stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4242424242424242").await;
    let price = price(&stripe, MONTHLY, "month").await;
    let wanted = json!({"customer": anna, "items": [{"price": price}], "trial_period_days": 7});
    let trial = stripe.post("/v1/subscriptions", wanted).await;
    assert_eq!(trial["status"], "trialing");
    assert_eq!(trial["trial_end"], trial["current_period_end"]);
    assert_eq!(stripe.charges().await.len(), 0);
    let running = stripe.advance(id(&trial)).await;
    assert_eq!(running["status"], "active");
    assert_eq!(running["trial_end"], running["current_period_start"]);
    let invoices = invoices(&stripe, &trial).await;
    let totals: Vec<_> = invoices.iter().map(|it| it["total"].as_i64()).collect();
    assert_eq!(totals, [Some(MONTHLY), Some(0)]);
    assert!(invoices.iter().all(|it| it["status"] == "paid"));
}

#[tokio::test]
async fn periods_follow_each_other_and_invoices_have_pages() {
    let stripe = StripeServer::start().await;
    stripe
        .wish(Wish {
            tax_basis_points: Some(1_900),
            ..Wish::default()
        })
        .await;
    let anna = customer(&stripe, "4242424242424242").await;
    let price = price(&stripe, MONTHLY, "month").await;
    let wanted = json!({"customer": anna, "items": [{"price": price}],
        "automatic_tax": {"enabled": true}});
    let first = stripe.post("/v1/subscriptions", wanted).await;
    let second = stripe.advance(id(&first)).await;
    let start = second["current_period_start"].as_i64().unwrap();
    let end = second["items"]["data"][0]["current_period_end"]
        .as_i64()
        .unwrap();
    assert!(end - start >= 28 * 86_400);
    let invoices = invoices(&stripe, &first).await;
    assert_eq!(invoices.len(), 2);
    let newest = &invoices[0];
    assert_eq!(newest["billing_reason"], "subscription_cycle");
    assert_eq!(
        (&newest["tax"], &newest["total"]),
        (&json!(190), &json!(MONTHLY + 190))
    );
    let details = &newest["parent"]["subscription_details"];
    assert_eq!(details["subscription"], first["id"]);
    let page = stripe
        .open(newest["hosted_invoice_url"].as_str().unwrap())
        .await;
    let page = page.text().await.unwrap();
    assert!(page.contains(newest["number"].as_str().unwrap()), "{page}");
    let pdf = stripe.open(newest["invoice_pdf"].as_str().unwrap()).await;
    assert_eq!(pdf.headers()["content-type"], "application/pdf");
    assert!(pdf.bytes().await.unwrap().starts_with(b"%PDF-"));
}

#[tokio::test]
async fn a_renewal_that_fails_is_past_due_until_it_is_paid() {
    let stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4242424242424242").await;
    let running = subscription(&stripe, &anna).await;
    stripe.decline(&anna, 2).await;
    let late = stripe.advance(id(&running)).await;
    assert_eq!(late["status"], "past_due");
    let pay = format!(
        "/v1/invoices/{}/pay",
        late["latest_invoice"].as_str().unwrap()
    );
    let again = refused(&stripe, Method::POST, &pay, json!({})).await;
    assert_eq!(
        again,
        (StatusCode::PAYMENT_REQUIRED, "card_declined".to_owned())
    );
    let paid = stripe.post(&pay, json!({})).await;
    assert_eq!(
        (&paid["status"], &paid["attempt_count"]),
        (&json!("paid"), &json!(3))
    );
    let path = format!("/v1/subscriptions/{}", id(&running));
    assert_eq!(stripe.get(&path).await["status"], "active");
    let events = stripe.events().await;
    let failed = kinds(&events)
        .into_iter()
        .filter(|it| *it == "invoice.payment_failed");
    assert_eq!(failed.count(), 2);
    let charges = stripe.charges().await;
    assert_eq!(charges.iter().filter(|it| it["paid"] == true).count(), 2);
}

#[tokio::test]
async fn a_renewal_that_needs_its_owner_waits_for_3d_secure() {
    let stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4242424242424242").await;
    let running = subscription(&stripe, &anna).await;
    stripe.require_authentication(&anna, 1).await;
    let late = stripe.advance(id(&running)).await;
    assert_eq!(late["status"], "past_due");
    let path = format!("/v1/invoices/{}", late["latest_invoice"].as_str().unwrap());
    let open = stripe.get(&path).await;
    let intent = open["payments"]["data"][0]["payment"]["payment_intent"].clone();
    assert_eq!(open["payment_intent"], intent);
    stripe.authenticate(intent.as_str().unwrap(), true).await;
    let path = format!("/v1/subscriptions/{}", id(&running));
    assert_eq!(stripe.get(&path).await["status"], "active");
}

#[tokio::test]
async fn stripe_gives_up_as_the_account_is_set() {
    let stripe = StripeServer::start().await;
    for end in ["canceled", "unpaid"] {
        let anna = customer(&stripe, "4242424242424242").await;
        let running = subscription(&stripe, &anna).await;
        stripe.decline(&anna, 1).await;
        stripe.advance(id(&running)).await;
        assert_eq!(stripe.give_up(id(&running), end).await["status"], end);
    }
}

#[tokio::test]
async fn a_customer_without_a_card_is_past_due_after_the_trial() {
    let stripe = StripeServer::start().await;
    let anna = stripe.post("/v1/customers", json!({"name": "Anna"})).await;
    let price = price(&stripe, MONTHLY, "month").await;
    let items = json!([{"price": price}]);
    let bare = json!({"customer": id(&anna), "items": items});
    let cardless = refused(&stripe, Method::POST, "/v1/subscriptions", bare).await;
    assert_eq!(cardless.0, StatusCode::BAD_REQUEST);
    let trial = json!({"customer": id(&anna), "items": items, "trial_period_days": 3});
    let trial = stripe.post("/v1/subscriptions", trial).await;
    assert_eq!(stripe.advance(id(&trial)).await["status"], "past_due");
}
