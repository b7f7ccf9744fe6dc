//! Invoices of subscriptions. localstripe's have neither pages nor their money's parents, and know
//! nothing of renewals, so they are ours.

use serde_json::{Value, json};

use super::desk::{Answer, Desk};
use super::failure::Failure;
use super::intents::new_intent;
use super::store::{new_id, now, number, random, text};

impl Desk {
    /// An open invoice over these lines with the intent that is to pay it, if anything is due.
    pub(super) async fn issue(
        &mut self,
        subscription: &Value,
        lines: Vec<Value>,
        reason: &str,
    ) -> Answer {
        let customer = text(subscription, "customer").to_owned();
        let person = self.retrieve(&customer).await?;
        let subtotal: i64 = lines.iter().map(|line| number(line, "amount")).sum();
        let tax = self.tax(subtotal.max(0), &subscription["automatic_tax"]);
        let credit = *self.store.credit.get(&customer).unwrap_or(&0);
        let due = self.spend_credit(&customer, subtotal + tax);
        let mut invoice = self.new_invoice(subscription, lines, reason);
        invoice["customer_email"] = person["email"].clone();
        invoice["customer_name"] = person["name"].clone();
        set_sums(&mut invoice, subtotal, tax, due);
        invoice["starting_balance"] = (-credit).into();
        invoice["ending_balance"] = (-self.store.credit.get(&customer).unwrap_or(&0)).into();
        if due > 0 {
            self.give_intent(&mut invoice, due);
        }
        self.store.put(&invoice);
        self.tell("invoice.created", &invoice);
        self.tell("invoice.finalized", &invoice);
        let id = text(&invoice, "id");
        if due == 0 {
            self.invoice_is_paid(id);
        }
        self.store.get("invoice", id)
    }

    fn new_invoice(&self, subscription: &Value, lines: Vec<Value>, reason: &str) -> Value {
        let id = new_id("in");
        let count = self.store.all("invoice").len() + 1;
        json!({
            "id": id, "object": "invoice", "attempt_count": 0, "attempted": false,
            "auto_advance": true, "automatic_tax": subscription["automatic_tax"],
            "billing_reason": reason, "charge": null, "collection_method": "charge_automatically",
            "confirmation_secret": null, "created": now(), "currency": subscription["currency"],
            "customer": subscription["customer"], "default_payment_method": null,
            "description": null, "effective_at": now(),
            "hosted_invoice_url": format!("{}/_pay/invoice/{id}", self.base),
            "invoice_pdf": format!("{}/_pay/invoice/{id}/pdf", self.base),
            "lines": {"object": "list", "data": lines, "has_more": false,
                "url": format!("/v1/invoices/{id}/lines")},
            "livemode": false, "metadata": {}, "next_payment_attempt": null,
            "number": format!("{}-{count:04}", random(8).to_uppercase()), "paid": false,
            "parent": {"type": "subscription_details", "quote_details": null,
                "subscription_details": {"subscription": subscription["id"],
                    "metadata": subscription["metadata"]}},
            "payment_intent": null,
            "payments": {"object": "list", "data": [], "has_more": false},
            "period_start": subscription["current_period_start"],
            "period_end": subscription["current_period_end"], "status": "open",
            "status_transitions": {"finalized_at": now(), "paid_at": null, "voided_at": null,
                "marked_uncollectible_at": null},
            "subscription": subscription["id"],
        })
    }

    fn give_intent(&mut self, invoice: &mut Value, due: i64) {
        let about = json!({"customer": invoice["customer"], "invoice": invoice["id"],
            "description": "Subscription", "setup_future_usage": "off_session"});
        let intent = new_intent(due, text(invoice, "currency"), &about);
        invoice["payment_intent"] = intent["id"].clone();
        invoice["confirmation_secret"] =
            json!({"client_secret": intent["client_secret"], "type": "payment_intent"});
        invoice["payments"]["data"] = json!([{
            "id": new_id("inpay"), "object": "invoice_payment", "amount_paid": null,
            "amount_requested": due, "currency": invoice["currency"], "invoice": invoice["id"],
            "is_default": true, "status": "open",
            "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
        }]);
        self.store.put(&intent);
        self.tell("payment_intent.created", &intent);
    }

    /// Tries to take the money of an open invoice. A decline is an answer, not a failure of this.
    pub(super) async fn collect(
        &mut self,
        invoice: &str,
        method: &str,
    ) -> Result<Option<Failure>, Failure> {
        let mut open = self.store.get("invoice", invoice)?;
        open["attempted"] = true.into();
        open["attempt_count"] = (number(&open, "attempt_count") + 1).into();
        self.store.put(&open);
        let intent = text(&open, "payment_intent").to_owned();
        let given = json!({"payment_method": method});
        match self.confirm_intent(&intent, &given).await {
            Ok(_) => Ok(None),
            Err(refused) if refused.status == 402 => Ok(Some(refused)),
            Err(other) => Err(other),
        }
    }

    pub(super) async fn pay_invoice(&mut self, id: &str, parameters: &Value) -> Answer {
        Self::known(parameters, &["payment_method", "off_session"])?;
        let invoice = self.store.get("invoice", id)?;
        if invoice["status"] != "open" {
            let message = format!("Invoice is {}", text(&invoice, "status"));
            return Err(Failure::coded("invoice", "invoice_not_open", &message));
        }
        let method = match parameters["payment_method"].as_str() {
            Some(method) => method.to_owned(),
            None => self.paying_method(text(&invoice, "subscription")).await?,
        };
        if let Some(refused) = self.collect(id, &method).await? {
            return Err(refused);
        }
        let invoice = self.store.get("invoice", id)?;
        if invoice["status"] == "paid" {
            return Ok(invoice);
        }
        let message = "This payment requires additional user action before it can be completed.";
        Err(Failure::card(
            "invoice_payment_intent_requires_action",
            "authentication_required",
            message,
        ))
    }

    pub(super) fn void_invoice(&mut self, id: &str) -> Answer {
        let mut invoice = self.store.get("invoice", id)?;
        if invoice["status"] != "open" {
            return Err(Failure::invalid(
                "invoice",
                "Only an open invoice is voided.",
            ));
        }
        if let Some(intent) = invoice["payment_intent"].as_str() {
            self.cancel_intent(intent, &json!({"cancellation_reason": "void_invoice"}))?;
        }
        invoice["status"] = "void".into();
        invoice["status_transitions"]["voided_at"] = now().into();
        self.store.put(&invoice);
        self.tell("invoice.voided", &invoice);
        if let Ok(subscription) = self
            .store
            .get("subscription", text(&invoice, "subscription"))
            && subscription["status"] == "incomplete"
        {
            self.end_subscription(subscription, "incomplete_expired");
        }
        Ok(invoice)
    }

    pub(super) fn invoice_is_paid(&mut self, id: &str) {
        let Ok(mut invoice) = self.store.get("invoice", id) else {
            return;
        };
        let intent = self.store.find(text(&invoice, "payment_intent"));
        let method = intent.map_or(Value::Null, |it| it["payment_method"].clone());
        invoice["charge"] = intent.map_or(Value::Null, |it| it["latest_charge"].clone());
        invoice["status"] = "paid".into();
        invoice["paid"] = true.into();
        invoice["amount_paid"] = invoice["amount_due"].clone();
        invoice["amount_remaining"] = 0.into();
        invoice["next_payment_attempt"] = Value::Null;
        invoice["status_transitions"]["paid_at"] = now().into();
        for payment in invoice["payments"]["data"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            payment["status"] = "paid".into();
            payment["amount_paid"] = payment["amount_requested"].clone();
        }
        self.store.put(&invoice);
        self.tell("invoice.paid", &invoice);
        self.tell("invoice.payment_succeeded", &invoice);
        self.subscription_is_paid(text(&invoice, "subscription"), &method);
    }

    pub(super) fn invoice_failed(&mut self, id: &str) {
        if let Ok(invoice) = self.store.get("invoice", id) {
            self.tell("invoice.payment_failed", &invoice);
        }
    }

    pub(super) fn invoice_needs_action(&mut self, id: &str) {
        if let Ok(invoice) = self.store.get("invoice", id) {
            self.tell("invoice.payment_action_required", &invoice);
        }
    }
}

fn set_sums(invoice: &mut Value, subtotal: i64, tax: i64, due: i64) {
    for (key, sum) in [
        ("amount_due", due),
        ("amount_paid", 0),
        ("amount_remaining", due),
        ("subtotal", subtotal),
        ("subtotal_excluding_tax", subtotal),
        ("tax", tax),
        ("total", subtotal + tax),
        ("total_excluding_tax", subtotal),
    ] {
        invoice[key] = sum.into();
    }
    invoice["total_taxes"] = json!([]);
    if tax > 0 {
        invoice["total_taxes"] = json!([{"amount": tax, "tax_behavior": "exclusive",
            "taxable_amount": subtotal, "type": "tax_rate_details"}]);
    }
}

/// A line of an invoice over one price.
#[must_use]
pub(super) fn line(
    price: &Value,
    amount: i64,
    period: (i64, i64),
    description: &str,
    is_proration: bool,
) -> Value {
    json!({
        "id": new_id("il"), "object": "line_item", "amount": amount,
        "currency": price["currency"], "description": description, "discountable": !is_proration,
        "livemode": false, "metadata": {}, "period": {"start": period.0, "end": period.1},
        "price": price, "proration": is_proration, "quantity": 1,
        "pricing": {"type": "price_details", "unit_amount_decimal": price["unit_amount_decimal"],
            "price_details": {"price": price["id"], "product": price["product"]}},
    })
}
