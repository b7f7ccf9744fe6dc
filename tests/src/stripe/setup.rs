//! Setup intents. localstripe's neither attach the card nor end after 3-D Secure, so they are ours.

use serde_json::{Value, json};

use super::desk::{Answer, Desk};
use super::failure::Failure;
use super::store::{flag, new_id, now, random, text};

const PARAMETERS: &[&str] = &[
    "automatic_payment_methods",
    "confirm",
    "customer",
    "description",
    "metadata",
    "payment_method",
    "payment_method_types",
    "return_url",
    "usage",
];

impl Desk {
    pub(super) async fn create_setup(&mut self, parameters: &Value) -> Answer {
        Self::known(parameters, PARAMETERS)?;
        if let Some(customer) = parameters["customer"].as_str() {
            self.retrieve(customer).await?;
        }
        let id = new_id("seti");
        let mut intent = json!({
            "id": id, "object": "setup_intent", "cancellation_reason": null,
            "client_secret": format!("{id}_secret_{}", random(24)), "created": now(),
            "customer": parameters["customer"], "description": parameters["description"],
            "last_setup_error": null, "livemode": false, "metadata": {}, "next_action": null,
            "payment_method": null, "payment_method_types": ["card"], "return_url": null,
            "status": "requires_payment_method",
            "usage": parameters["usage"].as_str().unwrap_or("off_session"),
        });
        Self::merge_metadata(&mut intent, parameters);
        if let Some(method) = parameters["payment_method"].as_str() {
            let method = self.retrieve(method).await?;
            intent["payment_method"] = method["id"].clone();
            intent["status"] = "requires_confirmation".into();
        }
        self.store.put(&intent);
        self.tell("setup_intent.created", &intent);
        if flag(parameters, "confirm") {
            let given = json!({"return_url": parameters["return_url"]});
            return self.confirm_setup(&id, &given).await;
        }
        Ok(intent)
    }

    pub(super) async fn confirm_setup(&mut self, id: &str, parameters: &Value) -> Answer {
        Self::known(parameters, &["payment_method", "return_url"])?;
        let mut intent = self.store.get("setup_intent", id)?;
        if ["succeeded", "canceled"].contains(&text(&intent, "status")) {
            return Err(unexpected_state(&intent));
        }
        if let Some(method) = parameters["payment_method"].as_str() {
            intent["payment_method"] = self.retrieve(method).await?["id"].clone();
        }
        if intent["payment_method"].is_null() {
            return Err(unexpected_state(&intent));
        }
        intent["return_url"] = parameters["return_url"].clone();
        if self.needs_authentication(&intent).await? {
            intent["status"] = "requires_action".into();
            intent["next_action"] = self.next_action(&intent);
            self.store.put(&intent);
            self.tell("setup_intent.requires_action", &intent);
            return Ok(intent);
        }
        self.set_up(intent).await
    }

    pub(super) async fn authenticate_setup(&mut self, id: &str, is_confirmed: bool) -> Answer {
        let intent = self.store.get("setup_intent", id)?;
        if intent["status"] != "requires_action" {
            return Err(unexpected_state(&intent));
        }
        if is_confirmed {
            return self.set_up(intent).await;
        }
        let refused = Failure::card(
            "setup_intent_authentication_failure",
            "authentication_required",
            "The provided PaymentMethod has failed authentication.",
        );
        Err(self.setup_failed(intent, refused))
    }

    pub(super) fn cancel_setup(&mut self, id: &str) -> Answer {
        let mut intent = self.store.get("setup_intent", id)?;
        if ["succeeded", "canceled"].contains(&text(&intent, "status")) {
            return Err(unexpected_state(&intent));
        }
        intent["status"] = "canceled".into();
        intent["next_action"] = Value::Null;
        self.store.put(&intent);
        self.tell("setup_intent.canceled", &intent);
        Ok(intent)
    }

    async fn set_up(&mut self, mut intent: Value) -> Answer {
        let method = text(&intent, "payment_method").to_owned();
        if let Some(customer) = intent["customer"].as_str() {
            match self.save_method(&method, customer).await {
                Err(refused) if refused.status == 402 => {
                    return Err(self.setup_failed(intent, refused));
                }
                other => other?,
            }
        }
        intent["status"] = "succeeded".into();
        intent["next_action"] = Value::Null;
        intent["last_setup_error"] = Value::Null;
        self.store.put(&intent);
        self.tell("setup_intent.succeeded", &intent);
        Ok(intent)
    }

    fn setup_failed(&mut self, mut intent: Value, mut refused: Failure) -> Failure {
        intent["status"] = "requires_payment_method".into();
        intent["next_action"] = Value::Null;
        intent["last_setup_error"] = refused.error.clone();
        intent["payment_method"] = Value::Null;
        self.store.put(&intent);
        self.tell("setup_intent.setup_failed", &intent);
        refused.error["setup_intent"] = super::store::shown(&intent);
        refused
    }
}

fn unexpected_state(intent: &Value) -> Failure {
    let message = format!(
        "This SetupIntent has a status of {}: it does not allow that.",
        text(intent, "status")
    );
    Failure::coded("intent", "setup_intent_unexpected_state", &message)
}
