//! The Stripe test server by itself: what tests of billing rely on is as Stripe has it.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking at the place that failed"
)]

mod money;
mod objects;
mod purchases;
mod renewals;
mod webhooks;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::stripe::StripeServer;

const MONTHLY: i64 = 999;
const YEARLY: i64 = 9_999;

fn id(object: &Value) -> &str {
    object["id"].as_str().expect("an object has an id")
}

/// A person with a card of this number on file, which pays what is due.
async fn customer(stripe: &StripeServer, number: &str) -> String {
    let about = json!({"email": "anna@example.org", "metadata": {"user": "7"}});
    let customer = stripe.post("/v1/customers", about).await;
    let customer = id(&customer).to_owned();
    add_card(stripe, &customer, number).await;
    customer
}

async fn card(stripe: &StripeServer, number: &str) -> String {
    let card = json!({"number": number, "exp_month": "12", "exp_year": "2034", "cvc": "123"});
    let made = json!({"type": "card", "card": card});
    id(&stripe.post("/v1/payment_methods", made).await).to_owned()
}

async fn add_card(stripe: &StripeServer, customer: &str, number: &str) -> String {
    let method = card(stripe, number).await;
    let path = format!("/v1/payment_methods/{method}/attach");
    stripe.post(&path, json!({"customer": customer})).await;
    let default = json!({"invoice_settings": {"default_payment_method": method}});
    let path = format!("/v1/customers/{customer}");
    stripe.post(&path, default).await;
    method
}

async fn price(stripe: &StripeServer, amount: i64, interval: &str) -> String {
    let price = json!({"unit_amount": amount, "currency": "eur",
        "recurring": {"interval": interval}, "product_data": {"name": "Premium"}});
    id(&stripe.post("/v1/prices", price).await).to_owned()
}

/// A running monthly subscription.
async fn subscription(stripe: &StripeServer, customer: &str) -> Value {
    let price = price(stripe, MONTHLY, "month").await;
    let wanted = json!({"customer": customer, "items": [{"price": price}]});
    stripe.post("/v1/subscriptions", wanted).await
}

/// The status and the error's code.
async fn refused(
    stripe: &StripeServer,
    method: Method,
    path: &str,
    parameters: Value,
) -> (StatusCode, String) {
    let (status, body) = stripe.try_call(method, path, parameters, None).await;
    let code = body["error"]["code"].as_str().unwrap_or_default();
    (status, code.to_owned())
}

fn kinds(events: &[Value]) -> Vec<&str> {
    let kinds = events.iter().map(|it| it["type"].as_str());
    kinds.map(|it| it.expect("an event has a type")).collect()
}
