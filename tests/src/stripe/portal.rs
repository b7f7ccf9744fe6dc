//! The billing portal, which localstripe does not have: its sessions and what a person does there.

use serde_json::{Value, json};

use super::desk::{Answer, Desk};
use super::failure::Failure;
use super::store::{new_id, now, text};

impl Desk {
    pub(super) async fn create_portal(&mut self, parameters: &Value) -> Answer {
        Self::known(parameters, &["customer", "return_url", "locale"])?;
        let customer = Self::needed(parameters, "customer")?;
        self.retrieve(customer).await?;
        let id = new_id("bps");
        let session = json!({
            "id": id, "object": "billing_portal.session", "configuration": "bpc_default",
            "created": now(), "customer": customer, "livemode": false,
            "locale": parameters["locale"], "return_url": parameters["return_url"],
            "url": format!("{}/_pay/portal/{id}", self.base),
        });
        self.store.put(&session);
        Ok(session)
    }

    /// What the customer of this session has running.
    pub(super) fn portal_subscriptions(&self, session: &Value) -> Vec<Value> {
        let mut running = self.store.all("subscription");
        running.retain(|it| it["customer"] == session["customer"] && it["ended_at"].is_null());
        running
    }

    /// One of the page's buttons.
    pub(super) async fn use_portal(&mut self, id: &str, form: &Value) -> Answer {
        let session = self.store.get("billing_portal.session", id)?;
        let subscription = text(form, "subscription");
        let is_theirs = || {
            let running = self.portal_subscriptions(&session);
            running.iter().any(|it| it["id"] == subscription)
        };
        match text(form, "action") {
            action @ ("cancel" | "resume") if is_theirs() => {
                let wanted = json!({"cancel_at_period_end": (action == "cancel").to_string()});
                self.update_subscription(subscription, &wanted).await
            }
            "card" => self.replace_card(text(&session, "customer"), form).await,
            _ => Err(Failure::invalid("action", "There is no such button.")),
        }
    }

    async fn replace_card(&mut self, customer: &str, form: &Value) -> Answer {
        let card = super::pages::card_of(form);
        let method = self
            .create_method(&json!({"type": "card", "card": card}))
            .await?;
        let method = text(&method, "id");
        self.attach(method, &json!({"customer": customer})).await?;
        let settings = json!({"invoice_settings": {"default_payment_method": method}});
        self.update_customer(customer, &settings).await
    }
}
