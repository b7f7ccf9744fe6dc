//! Stripe's webhook: who is believed, what is kept, and what becomes of it.

mod abuse;
mod events;
mod keys;
mod order;

pub(crate) use keys::resealed;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::Utc;
use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::Method;
use serde_json::{Value, json};
use tests::api::{Client, Reply};
use tests::{TestApp, wait_until};

use crate::SOON;
use crate::stripe::configured;
use crate::stripe::script::{Answer, Scripted};

const PATH: &str = "/api/v1/payments/webhook";
const EVENTS: &str = "/api/v1/admin/billing/events";
const SECRET: &str = "whsec_present";

/// A plane with payments, and what it takes for Stripe.
async fn plane() -> (TestApp, Scripted) {
    let stripe = Scripted::start();
    let app = TestApp::with(|vars| configured(vars, stripe.url())).await;
    (app, stripe)
}

/// `t=…,v1=…` over these bytes.
fn signature(secret: &str, age: i64, body: &str) -> String {
    let time = Utc::now().timestamp() - age;
    let key = EncodingKey::from_secret(secret.as_bytes());
    let message = format!("{time}.{body}");
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature.expect("it signs"));
    let signature = signature.expect("base64");
    let digits: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={time},v1={digits}")
}

pub(crate) fn event(id: &str, kind: &str, object: &Value) -> String {
    json!({ "id": id, "object": "event", "type": kind, "data": { "object": object } }).to_string()
}

async fn send(client: &Client, path: &str, signature: Option<&str>, body: &str) -> Reply {
    let mut request = client
        .request(Method::POST, path)
        .header("content-type", "application/json; charset=utf-8")
        .body(body.to_owned());
    if let Some(signature) = signature {
        request = request.header("stripe-signature", signature);
    }
    client.send(request).await
}

/// As Stripe sends it.
pub(crate) async fn deliver(app: &TestApp, body: &str) -> Reply {
    let signature = signature(SECRET, 0, body);
    send(&app.client(), PATH, Some(&signature), body).await
}

/// Makes the person the customer `cus_1`.
async fn pays(app: &TestApp, stripe: &Scripted, user: &Client) {
    stripe.answer(Answer::ok(json!({ "id": "cus_1", "object": "customer" })));
    assert_eq!(app.customer(user).await, "cus_1");
}

/// A subscription of `cus_1` as Stripe tells it.
fn subscription(id: &str, status: &str, price: &str) -> Value {
    let now = Utc::now().timestamp();
    json!({
        "id": id, "object": "subscription", "customer": "cus_1", "status": status,
        "start_date": now - 60, "current_period_end": now + 30 * 86_400, "cancel_at_period_end": false,
        "ended_at": (status == "canceled").then_some(now),
        "items": { "object": "list", "data": [{ "id": "si_1", "price": { "id": price } }], "has_more": false },
    })
}

/// What is stored of events, as `kind status`.
async fn stored(app: &TestApp) -> Vec<String> {
    let rows = "SELECT kind || ' ' || status FROM stripe_events ORDER BY received_at, id";
    app.db().texts(rows).await
}

async fn wait_stored(app: &TestApp, expected: &[&str]) {
    wait_until("events are acted on", SOON, async || {
        stored(app).await == expected
    })
    .await;
}

/// What the person has, as `plan status`.
async fn running(app: &TestApp, user: &Client) -> Vec<String> {
    let rows = format!(
        "SELECT plan_id || ' ' || status FROM subscriptions
          WHERE user_id = '{}' AND status <> 'canceled'",
        user.user()
    );
    app.db().texts(&rows).await
}
