//! Subscriptions. localstripe's never renew, stay `incomplete` through a trial, end nothing at a
//! period's end and know no prices, so they are ours.

use serde_json::Value;

use super::desk::{Answer, Desk};
use super::failure::Failure;
use super::invoices::line;
use super::store::{now, number, text};
use super::terms::{new_subscription, period};

const PARAMETERS: &[&str] = &[
    "automatic_tax",
    "cancel_at_period_end",
    "customer",
    "default_payment_method",
    "description",
    "items",
    "metadata",
    "off_session",
    "payment_behavior",
    "payment_settings",
    "trial_end",
    "trial_period_days",
];

impl Desk {
    pub(super) async fn create_subscription(&mut self, parameters: &Value) -> Answer {
        Self::known(parameters, PARAMETERS)?;
        let customer = Self::needed(parameters, "customer")?;
        if self.retrieve(customer).await?["deleted"] == true {
            return Err(Failure::missing("customer", customer));
        }
        let price = self.only_price(parameters).await?;
        if let Some(method) = parameters["default_payment_method"].as_str() {
            self.check_owner(method, customer).await?;
        }
        let mut subscription = new_subscription(parameters, &price)?;
        Self::merge_metadata(&mut subscription, parameters);
        let settings = &parameters["payment_settings"];
        Self::known(settings, &["save_default_payment_method"])?;
        subscription["_saves_method"] =
            (settings["save_default_payment_method"] == "on_subscription").into();
        subscription["_is_new"] = true.into();
        self.store.put(&subscription);
        let id = text(&subscription, "id").to_owned();
        let begun = self.begin(&id, &price, parameters).await;
        if let Err(refused) = begun {
            self.store.remove(&id);
            return Err(refused);
        }
        let mut subscription = self.store.get("subscription", &id)?;
        if let Some(fields) = subscription.as_object_mut() {
            fields.remove("_is_new");
        }
        self.store.put(&subscription);
        self.tell("customer.subscription.created", &subscription);
        Ok(subscription)
    }

    /// The first invoice and, as `payment_behavior` says, its payment.
    async fn begin(&mut self, id: &str, price: &Value, parameters: &Value) -> Result<(), Failure> {
        let behavior = parameters["payment_behavior"]
            .as_str()
            .unwrap_or("allow_incomplete");
        let subscription = self.store.get("subscription", id)?;
        let is_trial = subscription["status"] == "trialing";
        let is_due = !is_trial && number(price, "unit_amount") > 0;
        let method = match behavior {
            "default_incomplete" => None,
            "allow_incomplete" | "error_if_incomplete" if is_due => {
                Some(self.paying_method(id).await?)
            }
            "allow_incomplete" | "error_if_incomplete" => None,
            _ => return Err(Failure::invalid("payment_behavior", "Invalid value")),
        };
        let amount = if is_trial {
            0
        } else {
            number(price, "unit_amount")
        };
        let lines = vec![line(
            price,
            amount,
            period(&subscription),
            "Subscription",
            false,
        )];
        let invoice = self
            .issue(&subscription, lines, "subscription_create")
            .await?;
        self.set_latest_invoice(id, &invoice)?;
        if let Some(method) = method
            && invoice["status"] == "open"
        {
            let refused = self.collect(text(&invoice, "id"), &method).await?;
            let is_paid = self.store.get("invoice", text(&invoice, "id"))?["status"] == "paid";
            if behavior == "error_if_incomplete" && !is_paid {
                self.void_invoice(text(&invoice, "id"))?;
                return Err(refused.unwrap_or_else(Failure::authentication_required));
            }
        }
        Ok(())
    }

    pub(super) fn set_latest_invoice(&mut self, id: &str, invoice: &Value) -> Result<(), Failure> {
        let mut subscription = self.store.get("subscription", id)?;
        subscription["latest_invoice"] = invoice["id"].clone();
        self.store.put(&subscription);
        Ok(())
    }

    /// The one price of `items`: this service sells one thing at a time.
    pub(super) async fn only_price(&mut self, parameters: &Value) -> Answer {
        let items = parameters["items"].as_array();
        let Some([item]) = items.map(Vec::as_slice) else {
            return Err(Failure::invalid(
                "items",
                "This server takes exactly one item.",
            ));
        };
        if !item["quantity"].is_null() && number(item, "quantity") != 1 {
            return Err(Failure::invalid(
                "items[0][quantity]",
                "This server takes one.",
            ));
        }
        let price = self.line_price(item).await?;
        if price["recurring"].is_null() {
            let message = "The price specified is set to `type=one_time` but this field only \
                           accepts prices with `type=recurring`.";
            return Err(Failure::invalid("items[0][price]", message));
        }
        Ok(price)
    }

    pub(super) async fn check_owner(&self, method: &str, customer: &str) -> Result<(), Failure> {
        if self.retrieve(method).await?["customer"] == customer {
            return Ok(());
        }
        let message = "The customer does not have that payment method.";
        Err(Failure::coded(
            "default_payment_method",
            "resource_missing",
            message,
        ))
    }

    /// Which card pays a subscription.
    pub(super) async fn paying_method(&self, subscription: &str) -> Result<String, Failure> {
        let subscription = self.store.get("subscription", subscription)?;
        if let Some(method) = subscription["default_payment_method"].as_str() {
            return Ok(method.to_owned());
        }
        let default = self.default_method(text(&subscription, "customer")).await?;
        default.ok_or_else(|| {
            let message = "This customer has no attached payment source or default payment \
                           method.";
            Failure::coded("customer", "resource_missing", message)
        })
    }

    /// `method` is what paid.
    pub(super) fn subscription_is_paid(&mut self, id: &str, method: &Value) {
        let Ok(mut subscription) = self.store.get("subscription", id) else {
            return;
        };
        if subscription["_saves_method"] == true && method.is_string() {
            subscription["default_payment_method"] = method.clone();
            self.store.put(&subscription);
        }
        if !["incomplete", "past_due", "unpaid"].contains(&text(&subscription, "status")) {
            return;
        }
        subscription["status"] = "active".into();
        self.change_subscription(&subscription);
    }

    /// Keeps it, and tells what it is now unless it was told yet that it is.
    pub(super) fn change_subscription(&mut self, subscription: &Value) {
        self.store.put(subscription);
        if subscription["_is_new"] != true {
            self.tell("customer.subscription.updated", subscription);
        }
    }

    pub(super) fn end_subscription(&mut self, mut subscription: Value, status: &str) -> Value {
        subscription["status"] = status.into();
        subscription["ended_at"] = now().into();
        if subscription["canceled_at"].is_null() {
            subscription["canceled_at"] = now().into();
        }
        self.store.put(&subscription);
        let kind = if status == "canceled" {
            "customer.subscription.deleted"
        } else {
            "customer.subscription.updated"
        };
        self.tell(kind, &subscription);
        subscription
    }

    pub(super) fn cancel_subscription(&mut self, id: &str, parameters: &Value) -> Answer {
        Self::known(parameters, &["cancellation_details"])?;
        let mut subscription = self.store.get("subscription", id)?;
        if !subscription["ended_at"].is_null() {
            return Err(Failure::missing("subscription", id));
        }
        subscription["cancellation_details"]["reason"] = "cancellation_requested".into();
        Ok(self.end_subscription(subscription, "canceled"))
    }

    /// Stripe leaves the ended ones out unless they are asked for.
    pub(super) fn subscriptions(&self, parameters: &Value) -> Answer {
        let names = [
            "created",
            "customer",
            "ending_before",
            "limit",
            "price",
            "starting_after",
            "status",
        ];
        Self::known(parameters, &names)?;
        let mut items = self.store.all("subscription");
        items.retain(|it| match parameters["status"].as_str() {
            None => it["ended_at"].is_null(),
            Some("all") => true,
            Some("ended") => !it["ended_at"].is_null(),
            Some(status) => it["status"] == status,
        });
        items.retain(|it| {
            let is_price = it["items"]["data"][0]["price"]["id"] == parameters["price"];
            (parameters["customer"].is_null() || it["customer"] == parameters["customer"])
                && (parameters["price"].is_null() || is_price)
        });
        super::list::page(items, "/v1/subscriptions", parameters)
    }
}
