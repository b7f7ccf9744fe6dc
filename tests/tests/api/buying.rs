//! Buying, as a person does it: a plane with payments against the Stripe of the tests.

mod again;
mod cards;
mod checkout;
mod ends;
mod intents;
mod killed;
mod redirects;
mod subscribing;
mod webhooks;

use reqwest::Method;
use serde_json::{Value, json};
use tests::TestApp;
use tests::api::{Client, Reply};
use tests::stripe::StripeServer;

use crate::stripe::configured;

/// A card that pays.
const GOOD: &str = "4242424242424242";
/// A card whose bank asks the payer at every payment.
const ASKS: &str = "4000002760003184";
/// A card that takes no payment, and can be saved.
const DECLINED: &str = "4000000000000341";

const PAID: &str = "http://localhost:3000/paid";
const BACK: &str = "http://localhost:3000/plans";

/// A plane and the Stripe where its plans are sold.
struct Shop {
    app: TestApp,
    stripe: StripeServer,
}

impl Shop {
    /// Stripe tells of nothing by itself: what is known is what was asked.
    async fn open() -> Self {
        let stripe = StripeServer::in_memory().await;
        let (monthly, yearly) = (
            price(&stripe, 999, "month").await,
            price(&stripe, 9_999, "year").await,
        );
        let app = TestApp::with(|vars| {
            configured(vars, &stripe.base());
            // It serves one request at a time, on a machine that may be busy with other tests.
            vars.insert("STRIPE_TIMEOUT".to_owned(), "60s".to_owned());
            vars.insert("STRIPE_MONTHLY_PRICE_ID".to_owned(), monthly.clone());
            vars.insert("STRIPE_YEARLY_PRICE_ID".to_owned(), yearly.clone());
        })
        .await;
        Self { app, stripe }
    }

    /// Stripe tells what happens, as it does.
    async fn told() -> Self {
        let mut shop = Self::open().await;
        let url = format!("{}/payments/webhook", shop.app.url());
        shop.stripe.send_webhooks_to(&url, "whsec_present").await;
        shop
    }

    async fn person(&self) -> Client {
        self.app.user_on("free").await
    }

    /// A card that is nobody's yet, as Stripe's SDK gives it to an app.
    async fn card(&self, number: &str) -> String {
        let card = json!({"number": number, "exp_month": "12", "exp_year": "2034", "cvc": "123"});
        let made = json!({"type": "card", "card": card});
        text(&self.stripe.post("/v1/payment_methods", made).await["id"])
    }

    /// Somebody with a saved card of this number.
    async fn person_with(&self, number: &str) -> Client {
        let person = self.person().await;
        let card = self.card(number).await;
        let body = json!({"payment_method": card});
        let _ = put(&person, "billing/payment-method", &body)
            .await
            .expect(200);
        person
    }

    /// Somebody with a paid plan.
    async fn subscriber(&self, plan_type: &str) -> Client {
        let person = self.person_with(GOOD).await;
        let answer = subscribe(&person, plan_type).await.expect(200).json();
        assert_eq!(answer["status"], "succeeded", "{answer}");
        person
    }

    /// The person's id at Stripe.
    async fn customer(&self, person: &Client) -> String {
        let email = format!("SELECT email FROM users WHERE id = '{}'", person.user());
        let email = self.app.db().texts(&email).await.remove(0);
        let found = self
            .stripe
            .get(&format!("/v1/customers?email={email}"))
            .await;
        text(&found["data"][0]["id"])
    }

    /// All that the person subscribed to at Stripe, the newest first.
    async fn subscriptions(&self, person: &Client) -> Vec<Value> {
        let customer = self.customer(person).await;
        let path = format!("/v1/subscriptions?status=all&customer={customer}");
        let found = self.stripe.get(&path).await;
        found["data"].as_array().expect("a list").clone()
    }

    /// How many payments went through.
    async fn paid(&self) -> usize {
        let charges = self.stripe.charges().await;
        charges.iter().filter(|it| it["paid"] == true).count()
    }

    async fn purchases(&self) -> Vec<String> {
        let rows = "SELECT kind || ' ' || status FROM purchases ORDER BY created_at, id";
        self.app.db().texts(rows).await
    }

    async fn audited(&self, person: &Client) -> Vec<String> {
        let rows = format!(
            "SELECT action FROM audit_log WHERE actor = '{}' ORDER BY id",
            person.user()
        );
        self.app.db().texts(&rows).await
    }

    async fn close(self) {
        self.app.finish(&[]).await;
    }
}

async fn price(stripe: &StripeServer, amount: i64, interval: &str) -> String {
    let price = json!({"unit_amount": amount, "currency": "usd",
        "recurring": {"interval": interval}, "product_data": {"name": "Premium"}});
    text(&stripe.post("/v1/prices", price).await["id"])
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

async fn put(person: &Client, path: &str, body: &Value) -> Reply {
    let request = person.request(Method::PUT, &format!("/api/v1/{path}"));
    person.send(request.json(body)).await
}

async fn checkout(person: &Client, plan_type: &str) -> Reply {
    let body = json!({"plan_type": plan_type, "success_url": PAID, "cancel_url": BACK});
    person.post("/api/v1/payments/create", &body).await
}

async fn intent(person: &Client, plan_type: &str) -> Reply {
    let body = json!({"plan_type": plan_type});
    person.post("/api/v1/payments/create-intent", &body).await
}

async fn confirm(person: &Client, intent: &Value, method: Option<&str>) -> Reply {
    let body = json!({"payment_intent_id": intent, "payment_method": method, "return_url": PAID});
    person.post("/api/v1/payments/confirm", &body).await
}

async fn subscribe(person: &Client, plan_type: &str) -> Reply {
    let body = json!({"plan_type": plan_type});
    person.post("/api/v1/subscriptions/subscribe", &body).await
}

async fn status(person: &Client) -> Value {
    let reply = person.get("/api/v1/subscriptions/status").await;
    reply.expect(200).json()
}

/// Plan, status and effective plan.
async fn has(person: &Client) -> String {
    let it = status(person).await;
    let part = |name: &str| text(&it[name]);
    format!(
        "{} {} {}",
        part("plan"),
        part("status"),
        part("effective_plan")
    )
}

const FREE: &str = "free active free";
const MONTHLY: &str = "premium_monthly active premium_monthly";
const YEARLY: &str = "premium_yearly active premium_yearly";
