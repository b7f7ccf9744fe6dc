//! The books of money: what people paid, what went back, and that both are as Stripe has them.

mod history;
mod kills;
mod orders;
mod policy;
mod reconcile;
mod refunds;
mod rotation;
mod scan;
mod strangers;

use reqwest::Method;
use serde_json::{Value, json};
use tests::api::{Client, Reply};
use tests::stripe::{CARD, StripeServer};
use tests::{TestApp, wait_until};

use crate::SOON;
use crate::stripe::configured;

const SECRET: &str = "whsec_present";
const HISTORY: &str = "/api/v1/billing/history";
const REFUND: &str = "/api/v1/payments/refund";

/// A plane, and a Stripe with its plans' prices that tells it of everything.
struct Shop {
    app: TestApp,
    stripe: StripeServer,
    monthly: String,
    yearly: String,
    /// Events that nobody was told of.
    untold: usize,
}

impl Shop {
    async fn open() -> Self {
        Self::with(&[]).await
    }

    async fn with(variables: &[(&str, &str)]) -> Self {
        Self::replicas(1, variables).await
    }

    async fn replicas(count: usize, variables: &[(&str, &str)]) -> Self {
        let mut stripe = StripeServer::start().await;
        let monthly = price(&stripe, 999, "month").await;
        let yearly = price(&stripe, 9_999, "year").await;
        let (base, untold) = (stripe.base(), stripe.events().await.len());
        let app = TestApp::replicas_with(count, |vars| {
            configured(vars, &base);
            let prices = [
                ("STRIPE_MONTHLY_PRICE_ID", monthly.as_str()),
                ("STRIPE_YEARLY_PRICE_ID", &yearly),
            ];
            for (name, value) in prices.iter().chain(variables) {
                vars.insert((*name).to_owned(), (*value).to_owned());
            }
        })
        .await;
        if count > 0 {
            let webhook = format!("{}/api/v1/payments/webhook", app.url());
            stripe.send_webhooks_to(&webhook, SECRET).await;
        }
        Self {
            app,
            stripe,
            monthly,
            yearly,
            untold,
        }
    }

    /// A new person at Stripe too, with a card that pays.
    async fn customer(&self) -> (Client, String) {
        let user = self.app.user_on("free").await;
        let customer = self.app.customer(&user).await;
        self.add_card(&customer, CARD).await;
        (user, customer)
    }

    async fn add_card(&self, customer: &str, number: &str) {
        add_card(&self.stripe, customer, number).await;
    }

    /// Buys, and gives Stripe's id of the subscription. Nobody waits for what events tell.
    async fn subscribe(&self, customer: &str, price: &str) -> String {
        let wanted = json!({ "customer": customer, "items": [{ "price": price }] });
        let made = self.stripe.post("/v1/subscriptions", wanted).await;
        id(&made).to_owned()
    }

    /// Somebody who has paid the first month.
    async fn buyer(&self) -> Buyer {
        let (user, customer) = self.customer().await;
        let subscription = self.subscribe(&customer, &self.monthly).await;
        let payments = wait_paid(&user, 1).await;
        self.acted().await;
        Buyer {
            payment: id(&payments[0]).to_owned(),
            user,
            customer,
            subscription,
        }
    }

    /// Waits until everything that Stripe told was acted on.
    async fn acted(&self) {
        wait_until("all events are told and acted on", SOON, async || {
            let told = self.stripe.events().await.len() - self.untold;
            let done = "SELECT count(*) FROM stripe_events WHERE status = 'done'";
            let done = self.app.db().number(done).await;
            usize::try_from(done).is_ok_and(|done| done >= told)
        })
        .await;
    }

    /// What the person has, as `plan status`.
    async fn running(&self, user: &Client) -> Vec<String> {
        let rows = format!(
            "SELECT plan_id || ' ' || status FROM subscriptions
              WHERE user_id = '{}' AND status <> 'canceled'",
            user.user()
        );
        self.app.db().texts(&rows).await
    }

    async fn finish(self) {
        self.app.finish(&[]).await;
    }
}

struct Buyer {
    user: Client,
    customer: String,
    subscription: String,
    /// Our id of the first payment.
    payment: String,
}

fn id(object: &Value) -> &str {
    object["id"].as_str().expect("an object has an id")
}

async fn price(stripe: &StripeServer, amount: i64, interval: &str) -> String {
    let price = json!({ "unit_amount": amount, "currency": "usd",
        "recurring": { "interval": interval }, "product_data": { "name": "Premium" } });
    id(&stripe.post("/v1/prices", price).await).to_owned()
}

/// A card that pays what is due from now on.
async fn add_card(stripe: &StripeServer, customer: &str, number: &str) {
    let card = json!({ "number": number, "exp_month": "12", "exp_year": "2034", "cvc": "123" });
    let method = json!({ "type": "card", "card": card });
    let method = stripe.post("/v1/payment_methods", method).await;
    let path = format!("/v1/payment_methods/{}/attach", id(&method));
    stripe.post(&path, json!({ "customer": customer })).await;
    let default = json!({ "invoice_settings": { "default_payment_method": id(&method) } });
    let path = format!("/v1/customers/{customer}");
    stripe.post(&path, default).await;
}

async fn history(user: &Client) -> Vec<Value> {
    let page = user.get(HISTORY).await.expect(200).json();
    page["data"].as_array().expect("a list").clone()
}

/// Waits until so many payments have succeeded, and gives all, the newest first.
async fn wait_paid(user: &Client, count: usize) -> Vec<Value> {
    tests::wait_for("the payments are known", SOON, async || {
        let payments = history(user).await;
        let paid = payments.iter().filter(|it| it["status"] == "succeeded");
        (paid.count() == count).then_some(payments)
    })
    .await
}

async fn refund(user: &Client, body: &Value) -> Reply {
    user.post(REFUND, body).await
}

async fn refund_with_key(user: &Client, body: &Value, key: &str) -> Reply {
    let request = user.request(Method::POST, REFUND).json(body);
    user.send(request.header("idempotency-key", key)).await
}
