//! The client of Stripe's API, against a server that answers what it is told to.

pub(crate) mod script;

use std::time::Duration;

use control_plane::billing::reference::{CustomerId, IntentId, SubscriptionId};
use control_plane::billing::stripe::{IdempotencyKey, Stripe, StripeError};
use control_plane::config::{Config, Variables};
use control_plane::error::{ApiError, Code};
use rstest::rstest;
use serde_json::{Value, json};
use shared::ids::UserId;
use tests::variables;
use uuid::Uuid;

use script::{Answer, Scripted};

/// What a plane with payments is configured with.
pub(crate) fn configured(vars: &mut Variables, url: &str) {
    for (name, value) in [
        ("STRIPE_SECRET_KEY", "sk_test_of_the_tests"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_former,whsec_present"),
        ("STRIPE_API_BASE", url),
        ("STRIPE_MONTHLY_PRICE_ID", "price_monthly"),
        ("STRIPE_YEARLY_PRICE_ID", "price_yearly"),
        ("STRIPE_TIMEOUT", "5s"),
    ] {
        vars.insert(name.to_owned(), value.to_owned());
    }
}

fn client_with(url: &str, timeout: &str) -> Stripe {
    tests::init();
    let mut vars = variables("postgres://localhost/none");
    configured(&mut vars, url);
    vars.insert("STRIPE_TIMEOUT".to_owned(), timeout.to_owned());
    let config = Config::read(&vars).expect("a configuration").stripe;
    let key = config.secret_key.clone().expect("a key");
    Stripe::new(&config, &key).expect("a client")
}

fn client(url: &str) -> Stripe {
    client_with(url, "5s")
}

fn customer() -> CustomerId {
    CustomerId::try_from("cus_1".to_owned()).expect("an id")
}

fn subscription() -> SubscriptionId {
    SubscriptionId::try_from("sub_1".to_owned()).expect("an id")
}

fn key() -> IdempotencyKey {
    IdempotencyKey::of(Uuid::nil(), "test")
}

async fn cancel(stripe: &Stripe) -> Result<bool, StripeError> {
    let (id, key) = (subscription(), key());
    let canceled = stripe.set_cancel_at_period_end(&id, true, &key).await;
    canceled.map(|it| it.cancel_at_period_end)
}

fn canceled() -> Answer {
    Answer::ok(json!({
        "id": "sub_1", "customer": "cus_1", "status": "active", "cancel_at_period_end": true
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_says_who_calls_what_and_for_which_row() {
    let server = Scripted::start();
    server.answer(Answer::ok(json!({ "id": "cus_1", "object": "customer" })));
    let user = UserId::generate();
    let made = client(server.url())
        .create_customer(user, "ann+vpn@example.org", &key())
        .await;
    assert_eq!(made.expect("a customer").id, customer());
    let [asked] = &server.asked()[..] else {
        panic!("one call");
    };
    assert_eq!(asked.line, "POST /v1/customers");
    assert_eq!(
        asked.body,
        format!("email=ann%2Bvpn%40example.org&metadata%5Buser_id%5D={user}")
    );
    assert_eq!(asked.header("authorization"), "Bearer sk_test_of_the_tests");
    assert_eq!(asked.header("stripe-version"), "2025-02-24.acacia");
    assert_eq!(
        asked.header("content-type"),
        "application/x-www-form-urlencoded"
    );
    assert_eq!(
        asked.header("idempotency-key"),
        format!("test-{}", Uuid::nil())
    );
    assert_ne!(key(), key().with("ann@example.org"));
}

#[rstest]
#[case(Answer::status(500))]
#[case(Answer::status(503))]
#[case(Answer::status(429))]
#[case(Answer::status(409))]
#[case(Answer::Hangs)]
#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again_with_the_same_key(#[case] first: Answer) {
    let server = Scripted::start();
    server.answer(first);
    server.answer(canceled());
    assert!(
        cancel(&client_with(server.url(), "300ms"))
            .await
            .expect("it works")
    );
    let keys: Vec<_> = server
        .asked()
        .iter()
        .map(|it| it.header("idempotency-key"))
        .collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
}

#[rstest]
#[case::declined(
    Answer::error(402, "card_error", "card_declined"),
    Code::PaymentDeclined
)]
#[case::wrong(
    Answer::error(400, "invalid_request_error", "parameter_missing"),
    Code::Internal
)]
#[case::no_key(Answer::error(401, "invalid_request_error", ""), Code::Internal)]
#[case::gone(
    Answer::error(404, "invalid_request_error", "resource_missing"),
    Code::Internal
)]
#[case::advised(Answer::status(500).with("stripe-should-retry", "false"), Code::PaymentsUnavailable)]
#[case::repeated(Answer::status(500).with("idempotent-replayed", "true"), Code::PaymentsUnavailable)]
#[case::no_answer(Answer::Text(200, "<html>".to_owned()), Code::Internal)]
#[case::elsewhere(Answer::status(302).with("location", "http://203.0.113.1/"), Code::Internal)]
#[tokio::test(flavor = "multi_thread")]
async fn what_will_not_pass_is_not_tried_again(#[case] answer: Answer, #[case] code: Code) {
    let server = Scripted::start();
    server.answer(answer);
    let error = cancel(&client(server.url())).await.expect_err("it fails");
    assert_eq!(server.asked().len(), 1, "{error}");
    assert_eq!(ApiError::from(error).code(), code);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_keeps_what_is_needed_of_it_and_no_id() {
    let server = Scripted::start();
    server.answer(Answer::Json(
        402,
        json!({ "error": {
            "type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds",
            "message": "The payment pi_secret failed", "payment_intent": { "id": "pi_1", "status": "x" }
        } }),
        Vec::new(),
    ));
    let error = cancel(&client(server.url())).await.expect_err("declined");
    assert!(!error.to_string().contains("pi_"), "{error}");
    assert!(!error.is_recoverable() && !error.is_missing());
    let refusal = error.declined().expect("the card was declined");
    assert_eq!(refusal.decline_code.as_deref(), Some("insufficient_funds"));
    let intent = refusal.payment_intent.as_ref().map(|it| it.id.clone());
    assert_eq!(intent, IntentId::try_from("pi_1".to_owned()).ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_is_given_up_in_time_and_then_left_alone() {
    let server = Scripted::start();
    server.otherwise(Answer::Hangs);
    let stripe = client_with(server.url(), "100ms");
    let error = cancel(&stripe).await.expect_err("no answer");
    assert!(matches!(error, StripeError::Unreachable(_)), "{error}");
    assert!(error.is_recoverable());
    assert!(!error.to_string().contains("sub_1"), "{error}");
    assert_eq!(server.asked().len(), 3);
    let error = cancel(&stripe).await.expect_err("no answer");
    assert!(matches!(error, StripeError::Suspended), "{error}");
    assert_eq!(server.asked().len(), 5, "five in a row are enough");
    server.otherwise(canceled());
    let at_once = tokio::time::timeout(Duration::from_secs(1), cancel(&stripe)).await;
    let error = at_once.expect("at once").expect_err("it is left alone");
    assert_eq!(ApiError::from(error).code(), Code::PaymentsUnavailable);
    assert_eq!(server.asked().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_a_failure_that_may_pass() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", gone.local_addr().expect("an address"));
    drop(gone);
    let error = cancel(&client(&url)).await.expect_err("nobody is there");
    assert!(matches!(error, StripeError::Unreachable(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_read_to_its_end() {
    let server = Scripted::start();
    let page = |ids: &[&str], has_more: bool| {
        let data: Vec<Value> = ids
            .iter()
            .map(|id| json!({ "id": id, "customer": "cus_1", "status": "something_new" }))
            .collect();
        Answer::ok(json!({ "object": "list", "data": data, "has_more": has_more }))
    };
    server.answer(page(&["sub_3", "sub_2"], true));
    server.answer(page(&["sub_1"], false));
    let stripe = client(server.url());
    let customer = customer();
    let all = stripe.subscriptions(Some(&customer)).all().await;
    let all = all.expect("the list");
    let ids: Vec<_> = all.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids, ["sub_3", "sub_2", "sub_1"]);
    let lines: Vec<_> = server.asked().into_iter().map(|it| it.line).collect();
    let first = "GET /v1/subscriptions?status=all&customer=cus_1&limit=100";
    assert_eq!(
        lines,
        [first.to_owned(), format!("{first}&starting_after=sub_2")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_does_not_end_is_not_followed() {
    let server = Scripted::start();
    let page = json!({ "data": [{ "id": "price_1" }], "has_more": true });
    server.otherwise(Answer::ok(page));
    let stripe = client(server.url());
    let all = stripe.prices().all().await.expect("the list");
    assert_eq!(all.len(), 2);
    assert_eq!(server.asked().len(), 2);
}
