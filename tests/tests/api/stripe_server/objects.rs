//! Customers, cards, prices, lists, `expand`, keys.

use super::*;

#[tokio::test]
async fn customers_keep_metadata_and_cards_and_are_remembered_when_deleted() {
    let stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4242424242424242").await;
    let path = format!("/v1/customers/{anna}");
    let change = json!({"metadata": {"user": "", "plan": "monthly"}, "name": "Anna"});
    let changed = stripe.post(&path, change).await;
    assert_eq!(changed["metadata"], json!({"plan": "monthly"}));
    assert_eq!(stripe.get(&path).await["name"], "Anna");

    let path = format!("/v1/customers/{anna}/payment_methods");
    let cards = stripe.get(&path).await;
    let method = id(&cards["data"][0]).to_owned();
    assert_eq!(cards["data"][0]["card"]["last4"], "4242");
    let detach = format!("/v1/payment_methods/{method}/detach");
    let detached = stripe.post(&detach, json!({})).await;
    assert_eq!(detached["customer"], Value::Null);
    let path = format!("/v1/customers/{anna}");
    let without = stripe.get(&path).await;
    assert_eq!(
        without["invoice_settings"]["default_payment_method"],
        Value::Null
    );

    stripe.call(Method::DELETE, &path, json!({})).await;
    assert_eq!(stripe.get(&path).await["deleted"], true);
    let missing = refused(&stripe, Method::GET, "/v1/customers/cus_none", json!({})).await;
    assert_eq!(
        missing,
        (StatusCode::NOT_FOUND, "resource_missing".to_owned())
    );
}

#[tokio::test]
async fn a_declined_card_is_not_attached() {
    let stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4242424242424242").await;
    let declined = card(&stripe, "4000000000000002").await;
    let path = format!("/v1/payment_methods/{declined}/attach");
    let (status, body) = stripe
        .try_call(Method::POST, &path, json!({"customer": anna}), None)
        .await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(body["error"]["type"], "card_error");
    assert_eq!(body["error"]["code"], "card_declined");
}

#[tokio::test]
async fn cards_are_set_up_with_and_without_3d_secure() {
    let stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4242424242424242").await;
    let plain = card(&stripe, "4242424242424242").await;
    let wanted = json!({"customer": anna, "payment_method": plain, "confirm": true,
        "metadata": {"why": "later"}});
    let done = stripe.post("/v1/setup_intents", wanted).await;
    assert_eq!(done["status"], "succeeded");
    let attached = stripe.get(&format!("/v1/payment_methods/{plain}")).await;
    assert_eq!(attached["customer"], anna.as_str());

    let asking = card(&stripe, "4000002500003155").await;
    let waiting = stripe
        .post("/v1/setup_intents", json!({"customer": anna}))
        .await;
    assert_eq!(waiting["status"], "requires_payment_method");
    let confirm = format!("/v1/setup_intents/{}/confirm", id(&waiting));
    let given = json!({"payment_method": asking, "return_url": "https://app.example.org/"});
    let waiting = stripe.post(&confirm, given).await;
    assert_eq!(waiting["status"], "requires_action");
    assert_eq!(waiting["next_action"]["type"], "redirect_to_url");
    stripe.authenticate(id(&waiting), true).await;
    let path = format!("/v1/setup_intents/{}", id(&waiting));
    assert_eq!(stripe.get(&path).await["status"], "succeeded");

    // Set up once, the card is charged without its owner.
    let charge = json!({"amount": 500, "currency": "eur", "customer": anna,
        "payment_method": asking, "confirm": true, "off_session": true});
    let paid = stripe.post("/v1/payment_intents", charge).await;
    assert_eq!(paid["status"], "succeeded");
}

#[tokio::test]
async fn lists_are_paged_newest_first_and_expanded() {
    let stripe = StripeServer::start().await;
    let mut made = Vec::new();
    for amount in 1..=5 {
        made.push(price(&stripe, amount, "month").await);
    }
    made.reverse();
    let mut seen = Vec::new();
    let mut page = stripe.get("/v1/prices?limit=2").await;
    loop {
        let data = page["data"].as_array().unwrap().clone();
        seen.extend(data.iter().map(|it| id(it).to_owned()));
        if page["has_more"] == false {
            break;
        }
        let next = format!("/v1/prices?limit=2&starting_after={}", seen.last().unwrap());
        page = stripe.get(&next).await;
    }
    assert_eq!(seen, made);

    let anna = customer(&stripe, "4242424242424242").await;
    let subscription = subscription(&stripe, &anna).await;
    let path = format!(
        "/v1/subscriptions/{}?expand[]=customer&expand[]=latest_invoice.payment_intent\
         &expand[]=items.data.price.product",
        id(&subscription)
    );
    let whole = stripe.get(&path).await;
    assert_eq!(whole["customer"]["email"], "anna@example.org");
    let intent = &whole["latest_invoice"]["payment_intent"];
    assert_eq!(intent["status"], "succeeded");
    let product = &whole["items"]["data"][0]["price"]["product"];
    assert_eq!(product["name"], "Premium");
    let listed = stripe
        .get(&format!(
            "/v1/subscriptions?customer={anna}&status=all&expand[]=data.customer"
        ))
        .await;
    assert_eq!(listed["data"][0]["customer"]["id"], anna.as_str());
    let wrong = refused(
        &stripe,
        Method::GET,
        "/v1/prices?expand[]=data.nothing",
        json!({}),
    );
    assert_eq!(wrong.await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_key_gives_one_answer_and_what_is_unknown_is_refused() {
    let stripe = StripeServer::start().await;
    let about = || json!({"email": "anna@example.org"});
    let post = async |parameters: Value| {
        let path = "/v1/customers";
        stripe
            .try_call(Method::POST, path, parameters, Some("key-1"))
            .await
    };
    let (_, first) = post(about()).await;
    let (_, again) = post(about()).await;
    assert_eq!(first, again);
    assert_eq!(
        stripe.get("/v1/customers").await["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let (status, body) = post(json!({"email": "else@example.org"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body["error"]["type"], "idempotency_error");

    let unknown = json!({"amount": 1, "currency": "eur", "colour": "red"});
    assert_eq!(
        refused(&stripe, Method::POST, "/v1/payment_intents", unknown).await,
        (StatusCode::BAD_REQUEST, "parameter_unknown".to_owned())
    );
    let nowhere = refused(&stripe, Method::GET, "/v1/nothing", json!({})).await;
    assert_eq!(nowhere.0, StatusCode::NOT_FOUND);
    let keyless = stripe.open(&format!("{}/v1/prices", stripe.base())).await;
    assert_eq!(keyless.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn what_was_made_is_there_after_an_outage() {
    let mut stripe = StripeServer::start().await;
    let anna = customer(&stripe, "4242424242424242").await;
    let before = subscription(&stripe, &anna).await;
    stripe.stop();
    stripe.resume().await;
    let after = stripe
        .get(&format!("/v1/subscriptions/{}", id(&before)))
        .await;
    assert_eq!(after, before);
    assert_eq!(stripe.charges().await.len(), 1);
}
