//! Checkout sessions, which localstripe does not have, and what happens when a person pays.

use serde_json::{Value, json};

use super::desk::{Answer, Desk};
use super::failure::Failure;
use super::store::{flag, new_id, now, number, random, text};

const PARAMETERS: &[&str] = &[
    "allow_promotion_codes",
    "automatic_tax",
    "billing_address_collection",
    "cancel_url",
    "client_reference_id",
    "currency",
    "customer",
    "customer_email",
    "customer_update",
    "expires_at",
    "line_items",
    "locale",
    "metadata",
    "mode",
    "payment_intent_data",
    "payment_method_collection",
    "payment_method_types",
    "subscription_data",
    "success_url",
    "tax_id_collection",
    "ui_mode",
];

const LIFE: i64 = 24 * 3_600;

impl Desk {
    pub(super) async fn create_session(&mut self, parameters: &Value) -> Answer {
        Self::known(parameters, PARAMETERS)?;
        let mode = Self::needed(parameters, "mode")?;
        if !["payment", "setup", "subscription"].contains(&mode) {
            return Err(Failure::invalid("mode", "Invalid mode"));
        }
        if parameters["ui_mode"].as_str().unwrap_or("hosted") != "hosted" {
            return Err(Failure::invalid(
                "ui_mode",
                "This server shows hosted pages.",
            ));
        }
        Self::needed(parameters, "success_url")?;
        if let Some(customer) = parameters["customer"].as_str() {
            self.retrieve(customer).await?;
        }
        let items = self.line_items(parameters, mode).await?;
        let subtotal: i64 = items.iter().map(|it| number(it, "amount_subtotal")).sum();
        let tax = self.tax(subtotal, &parameters["automatic_tax"]);
        let currency = match items.first() {
            Some(item) => item["currency"].clone(),
            None => parameters["currency"].clone(),
        };
        let session = self.new_session(parameters, items, subtotal, tax, &currency);
        self.store.put(&session);
        Ok(session)
    }

    async fn line_items(&mut self, parameters: &Value, mode: &str) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        for line in parameters["line_items"].as_array().into_iter().flatten() {
            let price = self.line_price(line).await?;
            let quantity = match &line["quantity"] {
                Value::Null => 1,
                _ => number(line, "quantity"),
            };
            let is_recurring = !price["recurring"].is_null();
            if quantity < 1 || (is_recurring && quantity != 1) {
                return Err(Failure::invalid(
                    "line_items[0][quantity]",
                    "Invalid quantity",
                ));
            }
            if is_recurring && mode != "subscription" {
                let message = "You specified `payment` mode but passed a recurring price.";
                return Err(Failure::invalid("mode", message));
            }
            let amount = number(&price, "unit_amount") * quantity;
            items.push(
                json!({"id": new_id("li"), "object": "item", "amount_subtotal": amount,
                "amount_total": amount, "currency": price["currency"], "price": price,
                "quantity": quantity}),
            );
        }
        let has_one =
            items.len() == 1 && !items.iter().any(|it| it["price"]["recurring"].is_null());
        match mode {
            "subscription" if !has_one => {
                let message = "This server sells one recurring price a session.";
                Err(Failure::invalid("line_items", message))
            }
            "payment" if items.is_empty() => Err(Failure::required("line_items")),
            _ => Ok(items),
        }
    }

    fn new_session(
        &self,
        given: &Value,
        items: Vec<Value>,
        subtotal: i64,
        tax: i64,
        currency: &Value,
    ) -> Value {
        let id = format!("cs_test_{}", random(40));
        let has_trial = number(&given["subscription_data"], "trial_period_days") > 0;
        let total = if has_trial { 0 } else { subtotal + tax };
        let expires = match number(given, "expires_at") {
            0 => now() + LIFE,
            moment => moment,
        };
        let mut session = json!({
            "id": id, "object": "checkout.session", "amount_subtotal": subtotal,
            "amount_total": total, "automatic_tax": {
                "enabled": flag(&given["automatic_tax"], "enabled"), "status": null},
            "cancel_url": given["cancel_url"], "client_reference_id": given["client_reference_id"],
            "client_secret": null, "created": now(), "currency": currency,
            "customer": given["customer"], "customer_email": given["customer_email"],
            "customer_details": null, "expires_at": expires, "invoice": null, "livemode": false,
            "locale": given["locale"], "metadata": {}, "mode": given["mode"],
            "payment_intent": null, "payment_method_types": ["card"],
            "payment_status": if total == 0 { "no_payment_required" } else { "unpaid" },
            "setup_intent": null, "status": "open", "subscription": null,
            "success_url": given["success_url"], "ui_mode": "hosted",
            "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": tax},
            "url": format!("{}/_pay/checkout/{id}", self.base),
            "_items": items, "_subscription": given["subscription_data"],
            "_payment": given["payment_intent_data"],
        });
        Self::merge_metadata(&mut session, given);
        session
    }

    pub(super) fn session_items(&self, id: &str, parameters: &Value) -> Answer {
        let session = self.store.get("checkout.session", id)?;
        let items = session["_items"].as_array().cloned().unwrap_or_default();
        let url = format!("/v1/checkout/sessions/{id}/line_items");
        super::list::page(items, &url, parameters)
    }

    pub(super) fn expire_session(&mut self, id: &str) -> Answer {
        let mut session = self.open_session(id)?;
        session["status"] = "expired".into();
        session["url"] = Value::Null;
        self.store.put(&session);
        self.tell("checkout.session.expired", &session);
        Ok(session)
    }

    pub(super) fn open_session(&self, id: &str) -> Answer {
        let session = self.store.get("checkout.session", id)?;
        if session["status"] == "open" {
            return Ok(session);
        }
        let message = format!("This Checkout Session is {}.", text(&session, "status"));
        Err(Failure::invalid("session", &message))
    }

    /// A person gave a card. The answer is the session, complete, or the intent that asks for 3-D
    /// Secure; a declined card leaves the session open for another.
    pub(super) async fn pay_session(&mut self, id: &str, card: &Value) -> Answer {
        let mut session = self.open_session(id)?;
        if number(&session, "expires_at") <= now() {
            self.expire_session(id)?;
            return self.open_session(id);
        }
        let method = self
            .create_method(&json!({"type": "card", "card": card}))
            .await?;
        let customer = self.session_customer(&session).await?;
        session["customer"] = customer.clone().into();
        self.store.put(&session);
        let method = text(&method, "id").to_owned();
        let is_trial = session["mode"] != "payment" && number(&session, "amount_total") == 0;
        let intent = if is_trial {
            let asked = json!({"customer": customer, "payment_method": method, "confirm": "true",
                "return_url": self.after_authentication(id)});
            let intent = self.create_setup(&asked).await?;
            session["setup_intent"] = intent["id"].clone();
            intent
        } else if session["mode"] == "subscription" {
            self.attach(&method, &json!({"customer": customer})).await?;
            self.sell(&mut session, &method).await?
        } else {
            let mut asked = session["_payment"].clone();
            asked["amount"] = number(&session, "amount_total").to_string().into();
            asked["currency"] = session["currency"].clone();
            asked["customer"] = customer.into();
            asked["payment_method"] = method.into();
            asked["return_url"] = self.after_authentication(id).into();
            asked["confirm"] = "true".into();
            if let Some(earlier) = session["payment_intent"].as_str() {
                // It waits for 3-D Secure of another card: nobody shall pay twice.
                self.cancel_intent(earlier, &json!({}))?;
            }
            let intent = self.create_intent(&asked).await?;
            session["payment_intent"] = intent["id"].clone();
            intent
        };
        self.store.put(&session);
        if intent["status"] == "requires_action" {
            return Ok(intent);
        }
        self.complete_session(id).await
    }

    /// Makes the subscription and takes its first payment; none is left behind by a declined card.
    async fn sell(&mut self, session: &mut Value, method: &str) -> Answer {
        let made = match session["subscription"].as_str() {
            Some(waiting) => {
                let mut waiting = self.store.get("subscription", waiting)?;
                waiting["default_payment_method"] = method.into();
                self.store.put(&waiting);
                waiting
            }
            None => {
                self.subscribe(session, method, "default_incomplete")
                    .await?
            }
        };
        let invoice = self.store.get("invoice", text(&made, "latest_invoice"))?;
        session["invoice"] = invoice["id"].clone();
        let Some(intent) = invoice["payment_intent"].as_str() else {
            session["subscription"] = made["id"].clone();
            return Ok(invoice);
        };
        let mut waiting = self.store.get("payment_intent", intent)?;
        waiting["return_url"] = self.after_authentication(text(session, "id")).into();
        self.store.put(&waiting);
        if let Some(refused) = self.collect(text(&invoice, "id"), method).await? {
            self.void_invoice(text(&invoice, "id"))?;
            session["subscription"] = Value::Null;
            session["invoice"] = Value::Null;
            self.store.put(session);
            return Err(refused);
        }
        session["subscription"] = made["id"].clone();
        self.store.get("payment_intent", intent)
    }

    async fn subscribe(&mut self, session: &Value, method: &str, behavior: &str) -> Answer {
        let data = &session["_subscription"];
        let asked = json!({
            "customer": session["customer"], "default_payment_method": method,
            "items": [{"price": session["_items"][0]["price"]["id"]}],
            "metadata": data["metadata"], "description": data["description"],
            "trial_period_days": data["trial_period_days"], "payment_behavior": behavior,
            "automatic_tax": session["automatic_tax"],
        });
        self.create_subscription(&asked).await
    }

    async fn session_customer(&mut self, session: &Value) -> Result<String, Failure> {
        if let Some(customer) = session["customer"].as_str() {
            return Ok(customer.to_owned());
        }
        let about = json!({"email": session["customer_email"]});
        let customer = self.create_customer(&about).await?;
        Ok(text(&customer, "id").to_owned())
    }

    /// What was agreed on is paid, or its card set up.
    pub(super) async fn complete_session(&mut self, id: &str) -> Answer {
        let mut session = self.open_session(id)?;
        if let Some(setup) = session["setup_intent"].as_str() {
            let setup = self.store.get("setup_intent", setup)?;
            if session["mode"] == "subscription" {
                let method = text(&setup, "payment_method").to_owned();
                let made = self
                    .subscribe(&session, &method, "allow_incomplete")
                    .await?;
                session["subscription"] = made["id"].clone();
                session["invoice"] = made["latest_invoice"].clone();
                session["setup_intent"] = Value::Null;
            }
        } else {
            session["payment_status"] = "paid".into();
        }
        let person = self.retrieve(text(&session, "customer")).await?;
        session["customer_details"] = json!({"email": person["email"], "name": person["name"],
            "phone": null, "address": null, "tax_exempt": "none", "tax_ids": []});
        session["status"] = "complete".into();
        session["url"] = Value::Null;
        self.store.put(&session);
        self.tell("checkout.session.completed", &session);
        Ok(session)
    }

    fn after_authentication(&self, id: &str) -> String {
        format!("{}/_pay/checkout/{id}/return", self.base)
    }
}
