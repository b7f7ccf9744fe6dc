//! Which of the API's operations is meant.

use reqwest::Method;
use serde_json::Value;

use super::desk::{Answer, Desk};
use super::failure::Failure;

impl Desk {
    /// What this server does not know goes to localstripe as it came.
    pub(super) async fn operation(&mut self, method: &Method, path: &str, given: &Value) -> Answer {
        let parts: Vec<&str> = path.trim_matches('/').split('/').skip(1).collect();
        let verb = method.as_str();
        match parts.first().copied().unwrap_or_default() {
            "customers" | "payment_methods" | "products" | "prices" => {
                self.catalogue(verb, &parts, given).await
            }
            "charges" | "refunds" | "payment_intents" | "setup_intents" => {
                self.money(verb, &parts, given).await
            }
            "subscriptions" | "invoices" | "events" | "checkout" | "billing_portal" => {
                self.billing(verb, &parts, given).await
            }
            "coupons" | "tax_rates" | "balance" | "balance_transactions" => {
                self.behind.call(method.clone(), path, given).await
            }
            _ => Err(Failure::unknown_route(verb, path)),
        }
    }

    async fn catalogue(&mut self, verb: &str, parts: &[&str], given: &Value) -> Answer {
        match (verb, parts) {
            ("POST", ["customers"]) => self.create_customer(given).await,
            ("GET", ["customers"]) => self.customers(given).await,
            ("POST", ["customers", id]) => self.update_customer(id, given).await,
            ("DELETE", ["customers", id]) => self.delete_customer(id).await,
            ("GET", ["customers", id, "payment_methods"]) => self.methods(id, given).await,
            ("POST", ["payment_methods"]) => self.create_method(given).await,
            ("GET", ["payment_methods"]) => {
                self.methods(Self::needed(given, "customer")?, given).await
            }
            ("POST", ["payment_methods", id, "attach"]) => self.attach(id, given).await,
            ("POST", ["payment_methods", id, "detach"]) => self.detach(id).await,
            ("POST", ["products"]) => self.create_product(given).await,
            ("GET", ["products"]) => self.products(given).await,
            ("POST", ["prices"]) => self.create_price(given).await,
            ("POST", ["prices", id]) => self.update_price(id, given),
            ("GET", ["prices"]) => {
                let filters = ["active", "currency", "product", "type"];
                self.page("price", "/v1/prices", given, &filters)
            }
            ("GET", ["prices", id]) => self.store.get("price", id),
            ("GET", ["customers" | "payment_methods" | "products", id]) => self.retrieve(id).await,
            _ => Err(Failure::unknown_route(verb, &parts.join("/"))),
        }
    }

    async fn money(&mut self, verb: &str, parts: &[&str], given: &Value) -> Answer {
        match (verb, parts) {
            ("GET", ["charges"]) => self.charges(given).await,
            ("GET", ["refunds"]) => self.refunds(given).await,
            ("GET", ["charges" | "refunds", id]) => self.retrieve(id).await,
            ("POST", ["refunds"]) => self.refund(given).await,
            ("POST", ["payment_intents"]) => self.create_intent(given).await,
            ("GET", ["payment_intents"]) => self.page(
                "payment_intent",
                "/v1/payment_intents",
                given,
                &["customer"],
            ),
            ("GET", ["payment_intents", id]) => self.store.get("payment_intent", id),
            ("POST", ["payment_intents", id]) => self.update_intent(id, given).await,
            ("POST", ["payment_intents", id, "confirm"]) => {
                let names = [
                    "off_session",
                    "payment_method",
                    "return_url",
                    "setup_future_usage",
                ];
                Self::known(given, &names)?;
                self.confirm_intent(id, given).await
            }
            ("POST", ["payment_intents", id, "cancel"]) => self.cancel_intent(id, given),
            ("POST", ["setup_intents"]) => self.create_setup(given).await,
            ("GET", ["setup_intents"]) => {
                self.page("setup_intent", "/v1/setup_intents", given, &["customer"])
            }
            ("GET", ["setup_intents", id]) => self.store.get("setup_intent", id),
            ("POST", ["setup_intents", id, "confirm"]) => self.confirm_setup(id, given).await,
            ("POST", ["setup_intents", id, "cancel"]) => self.cancel_setup(id),
            _ => Err(Failure::unknown_route(verb, &parts.join("/"))),
        }
    }

    async fn billing(&mut self, verb: &str, parts: &[&str], given: &Value) -> Answer {
        match (verb, parts) {
            ("POST", ["subscriptions"]) => self.create_subscription(given).await,
            ("GET", ["subscriptions"]) => self.subscriptions(given),
            ("GET", ["subscriptions", id]) => self.store.get("subscription", id),
            ("POST", ["subscriptions", id]) => self.update_subscription(id, given).await,
            ("DELETE", ["subscriptions", id]) => self.cancel_subscription(id, given),
            ("GET", ["invoices"]) => {
                let filters = ["customer", "status", "subscription"];
                self.page("invoice", "/v1/invoices", given, &filters)
            }
            ("GET", ["invoices", id]) => self.store.get("invoice", id),
            ("POST", ["invoices", id, "pay"]) => self.pay_invoice(id, given).await,
            ("POST", ["invoices", id, "void"]) => self.void_invoice(id),
            ("GET", ["events"]) => self.page("event", "/v1/events", given, &["type"]),
            ("GET", ["events", id]) => self.store.get("event", id),
            ("POST", ["checkout", "sessions"]) => self.create_session(given).await,
            ("GET", ["checkout", "sessions"]) => {
                let filters = ["customer", "payment_intent", "status", "subscription"];
                self.page("checkout.session", "/v1/checkout/sessions", given, &filters)
            }
            ("GET", ["checkout", "sessions", id]) => self.store.get("checkout.session", id),
            ("POST", ["checkout", "sessions", id, "expire"]) => self.expire_session(id),
            ("GET", ["checkout", "sessions", id, "line_items"]) => self.session_items(id, given),
            ("POST", ["billing_portal", "sessions"]) => self.create_portal(given).await,
            _ => Err(Failure::unknown_route(verb, &parts.join("/"))),
        }
    }
}
