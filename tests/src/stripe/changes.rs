//! What changes in a running subscription: its plan with proration, its end, its card; and what
//! time does to it.

use serde_json::{Value, json};

use super::desk::{Answer, Desk};
use super::failure::Failure;
use super::invoices::line;
use super::store::{flag, now, number, text};
use super::terms::{item, period, period_after, set_cancel_at_period_end, set_period};

const PARAMETERS: &[&str] = &[
    "automatic_tax",
    "cancel_at_period_end",
    "cancellation_details",
    "default_payment_method",
    "description",
    "items",
    "metadata",
    "payment_behavior",
    "proration_behavior",
];

impl Desk {
    pub(super) async fn update_subscription(&mut self, id: &str, parameters: &Value) -> Answer {
        Self::known(parameters, PARAMETERS)?;
        let mut subscription = self.store.get("subscription", id)?;
        if !subscription["ended_at"].is_null() {
            let message = "A canceled subscription can only update its cancellation_details and \
                           metadata.";
            return Err(Failure::invalid("subscription", message));
        }
        match parameters["default_payment_method"].as_str() {
            None => {}
            Some("") => subscription["default_payment_method"] = Value::Null,
            Some(method) => {
                self.check_owner(method, text(&subscription, "customer"))
                    .await?;
                subscription["default_payment_method"] = method.into();
            }
        }
        if !parameters["cancel_at_period_end"].is_null() {
            let is_set = flag(parameters, "cancel_at_period_end");
            set_cancel_at_period_end(&mut subscription, is_set);
        }
        if !parameters["automatic_tax"].is_null() {
            let is_set = flag(&parameters["automatic_tax"], "enabled");
            subscription["automatic_tax"]["enabled"] = is_set.into();
        }
        for name in ["feedback", "comment"] {
            if let Some(words) = parameters["cancellation_details"][name].as_str() {
                subscription["cancellation_details"][name] = words.into();
            }
        }
        if !parameters["description"].is_null() {
            subscription["description"] = parameters["description"].clone();
        }
        Self::merge_metadata(&mut subscription, parameters);
        if !parameters["items"].is_null() {
            self.change_plan(&mut subscription, parameters).await?;
        }
        self.change_subscription(&subscription);
        Ok(subscription)
    }

    /// Takes another price. The unused time of the old one is credited; a price of another interval
    /// begins a new period, which is paid at once.
    async fn change_plan(
        &mut self,
        subscription: &mut Value,
        given: &Value,
    ) -> Result<(), Failure> {
        let old_item = subscription["items"]["data"][0].clone();
        let named = given["items"][0]["id"].as_str();
        if named.is_some_and(|id| old_item["id"] != id) {
            return Err(Failure::missing(
                "subscription_item",
                named.unwrap_or_default(),
            ));
        }
        if named.is_none() {
            // Stripe would add a second item beside the first.
            return Err(Failure::required("items[0][id]"));
        }
        let (old, new) = (old_item["price"].clone(), self.only_price(given).await?);
        if old["currency"] != new["currency"] {
            let message = "You cannot combine currencies on a single customer.";
            return Err(Failure::invalid("items[0][price]", message));
        }
        let before = subscription.clone();
        let mut new_item = item(text(subscription, "id"), &new);
        new_item["id"] = old_item["id"].clone();
        subscription["items"]["data"] = json!([new_item]);
        let (start, end) = period(subscription);
        set_period(subscription, start, end);
        if subscription["status"] == "trialing" || old["id"] == new["id"] {
            return Ok(());
        }
        let behavior = given["proration_behavior"]
            .as_str()
            .unwrap_or("create_prorations");
        if !["create_prorations", "always_invoice", "none"].contains(&behavior) {
            return Err(Failure::invalid("proration_behavior", "Invalid value"));
        }
        let is_new_period = old["recurring"]["interval"] != new["recurring"]["interval"];
        if is_new_period {
            let start = now();
            set_period(subscription, start, period_after(start, &new));
            subscription["billing_cycle_anchor"] = start.into();
        }
        let mut lines = match behavior {
            "none" => Vec::new(),
            _ => prorations(&before, &old, &new, is_new_period),
        };
        if is_new_period {
            let amount = number(&new, "unit_amount");
            lines.push(line(
                &new,
                amount,
                period(subscription),
                "Subscription",
                false,
            ));
        }
        if is_new_period || behavior == "always_invoice" {
            lines.extend(take_pending(subscription));
            return self.bill_change(subscription, &before, lines, given).await;
        }
        if let Some(pending) = subscription["_pending"].as_array_mut() {
            pending.extend(lines);
        }
        Ok(())
    }

    async fn bill_change(
        &mut self,
        subscription: &mut Value,
        before: &Value,
        lines: Vec<Value>,
        given: &Value,
    ) -> Result<(), Failure> {
        if lines.is_empty() {
            return Ok(());
        }
        let id = text(subscription, "id").to_owned();
        let credit = self.store.credit.clone();
        self.store.put(subscription);
        let invoice = self
            .issue(subscription, lines, "subscription_update")
            .await?;
        self.set_latest_invoice(&id, &invoice)?;
        let outcome = self.settle(&id, text(&invoice, "id")).await;
        let is_strict = given["payment_behavior"] == "error_if_incomplete";
        match outcome {
            Ok(Some(refused)) if is_strict => {
                self.void_invoice(text(&invoice, "id"))?;
                self.store.credit = credit;
                self.store.put(before);
                Err(refused)
            }
            other => {
                other?;
                *subscription = self.store.get("subscription", &id)?;
                Ok(())
            }
        }
    }

    /// Takes an invoice's money from the subscription's card; the subscription is past due when it
    /// cannot be had.
    async fn settle(&mut self, id: &str, invoice: &str) -> Result<Option<Failure>, Failure> {
        if self.store.get("invoice", invoice)?["status"] == "paid" {
            return Ok(None);
        }
        let mut refused = match self.paying_method(id).await {
            Ok(method) => self.collect(invoice, &method).await?,
            Err(missing) => {
                self.invoice_failed(invoice);
                Some(missing)
            }
        };
        if self.store.get("invoice", invoice)?["status"] != "paid" {
            let mut subscription = self.store.get("subscription", id)?;
            subscription["status"] = "past_due".into();
            self.change_subscription(&subscription);
            refused = refused.or_else(|| Some(Failure::authentication_required()));
        }
        Ok(refused)
    }

    /// Lets a subscription grow old until its period ends now, and does what Stripe does then.
    pub(super) async fn advance(&mut self, id: &str) -> Answer {
        let mut subscription = self.store.get("subscription", id)?;
        if !subscription["ended_at"].is_null() || subscription["status"] == "incomplete" {
            let message = "This subscription has no next period.";
            return Err(Failure::invalid("subscription", message));
        }
        let by = grow_old(&mut subscription);
        self.age_invoices(id, by);
        if subscription["cancel_at_period_end"] == true {
            return Ok(self.end_subscription(subscription, "canceled"));
        }
        let price = subscription["items"]["data"][0]["price"].clone();
        let start = number(&subscription, "current_period_end");
        set_period(&mut subscription, start, period_after(start, &price));
        if subscription["status"] == "trialing" {
            subscription["status"] = "active".into();
        }
        let mut lines = take_pending(&mut subscription);
        let amount = number(&price, "unit_amount");
        lines.push(line(
            &price,
            amount,
            period(&subscription),
            "Subscription",
            false,
        ));
        self.change_subscription(&subscription);
        let invoice = self
            .issue(&subscription, lines, "subscription_cycle")
            .await?;
        self.set_latest_invoice(id, &invoice)?;
        self.settle(id, text(&invoice, "id")).await?;
        self.store.get("subscription", id)
    }

    /// Moves what was billed into the past with what it was billed for.
    fn age_invoices(&mut self, subscription: &str, by: i64) {
        for mut invoice in self.store.all("invoice") {
            if invoice["subscription"] != subscription {
                continue;
            }
            shift(&mut invoice, &["created", "effective_at"], by);
            let transitions = ["finalized_at", "paid_at", "voided_at"];
            shift(&mut invoice["status_transitions"], &transitions, by);
            let lines = invoice["lines"]["data"].as_array_mut();
            for line in lines.into_iter().flatten() {
                shift(&mut line["period"], &["start", "end"], by);
            }
            self.store.put(&invoice);
        }
    }

    /// Stripe tried for the last time, and does what the account's settings say.
    pub(super) fn give_up(&mut self, id: &str, status: &str) -> Answer {
        let mut subscription = self.store.get("subscription", id)?;
        if subscription["status"] != "past_due" {
            return Err(Failure::invalid("subscription", "It is not past due."));
        }
        match status {
            "canceled" => {
                subscription["cancellation_details"]["reason"] = "payment_failed".into();
                Ok(self.end_subscription(subscription, "canceled"))
            }
            "unpaid" => {
                subscription["status"] = "unpaid".into();
                self.change_subscription(&subscription);
                Ok(subscription)
            }
            _ => Err(Failure::invalid("status", "canceled or unpaid")),
        }
    }
}

/// The credit for what is left of the old price and, in the same period, the cost of the new one.
fn prorations(before: &Value, old: &Value, new: &Value, is_new_period: bool) -> Vec<Value> {
    let (start, end) = period(before);
    let moment = now().clamp(start, end);
    let whole = (end - start).max(1);
    let left = |price: &Value| (number(price, "unit_amount") * (end - moment) + whole / 2) / whole;
    let unused = line(old, -left(old), (moment, end), "Unused time", true);
    if is_new_period {
        return vec![unused];
    }
    let remaining = line(new, left(new), (moment, end), "Remaining time", true);
    vec![unused, remaining]
}

/// What earlier changes left for the next invoice.
fn take_pending(subscription: &mut Value) -> Vec<Value> {
    let pending = std::mem::replace(&mut subscription["_pending"], json!([]));
    match pending {
        Value::Array(lines) => lines,
        _ => Vec::new(),
    }
}

/// Moves everything that happened into the past, so that the period's end is now. Gives how far.
fn grow_old(subscription: &mut Value) -> i64 {
    let by = now() - number(subscription, "current_period_end");
    let moments = [
        "created",
        "start_date",
        "billing_cycle_anchor",
        "trial_start",
        "trial_end",
        "cancel_at",
        "canceled_at",
    ];
    shift(subscription, &moments, by);
    let (start, end) = period(subscription);
    set_period(subscription, start + by, end + by);
    by
}

fn shift(object: &mut Value, moments: &[&str], by: i64) {
    for name in moments {
        if let Some(moment) = object[*name].as_i64() {
            object[*name] = (moment + by).into();
        }
    }
}
