//! Payment intents. localstripe's know neither a card given at confirmation nor a payment without
//! the customer, so they are ours; each charge is in its books.

use serde_json::{Value, json};

use super::desk::{Answer, Desk};
use super::failure::Failure;
use super::store::{Wishes, flag, new_id, now, number, random, text};

const PARAMETERS: &[&str] = &[
    "amount",
    "automatic_payment_methods",
    "confirm",
    "currency",
    "customer",
    "description",
    "metadata",
    "off_session",
    "payment_method",
    "payment_method_types",
    "receipt_email",
    "return_url",
    "setup_future_usage",
];

/// The last digits of cards that ask for 3-D Secure at every payment.
const ALWAYS_AUTHENTICATED: [&str; 2] = ["3184", "3220"];
/// The last digits of the card that asks for it until it was set up for later.
const ONCE_AUTHENTICATED: &str = "3155";

impl Desk {
    pub(super) async fn create_intent(&mut self, parameters: &Value) -> Answer {
        Self::known(parameters, PARAMETERS)?;
        let amount = Self::check_amount(parameters)?;
        let currency = Self::needed(parameters, "currency")?.to_lowercase();
        if let Some(customer) = parameters["customer"].as_str() {
            self.retrieve(customer).await?;
        }
        let mut intent = new_intent(amount, &currency, parameters);
        Self::merge_metadata(&mut intent, parameters);
        if let Some(method) = parameters["payment_method"].as_str() {
            self.set_method(&mut intent, method).await?;
        }
        self.store.put(&intent);
        self.tell("payment_intent.created", &intent);
        if flag(parameters, "confirm") {
            return self.confirm_intent(text(&intent, "id"), parameters).await;
        }
        Ok(intent)
    }

    pub(super) async fn update_intent(&mut self, id: &str, parameters: &Value) -> Answer {
        let names = [
            "amount",
            "description",
            "metadata",
            "payment_method",
            "receipt_email",
            "setup_future_usage",
        ];
        Self::known(parameters, &names)?;
        let mut intent = self.store.get("payment_intent", id)?;
        let is_over = ["succeeded", "canceled"].contains(&text(&intent, "status"));
        if is_over && !(parameters["amount"].is_null() && parameters["payment_method"].is_null()) {
            return Err(unexpected_state(&intent));
        }
        if !parameters["amount"].is_null() {
            intent["amount"] = Self::check_amount(parameters)?.into();
        }
        for name in ["description", "receipt_email", "setup_future_usage"] {
            if !parameters[name].is_null() {
                intent[name] = parameters[name].clone();
            }
        }
        if let Some(method) = parameters["payment_method"].as_str() {
            self.set_method(&mut intent, method).await?;
        }
        Self::merge_metadata(&mut intent, parameters);
        self.store.put(&intent);
        Ok(intent)
    }

    /// Charges the card, or asks for 3-D Secure first.
    pub(super) async fn confirm_intent(&mut self, id: &str, parameters: &Value) -> Answer {
        let mut intent = self.store.get("payment_intent", id)?;
        if let Some(method) = parameters["payment_method"].as_str() {
            check_confirmable(&intent, true)?;
            self.set_method(&mut intent, method).await?;
        }
        check_confirmable(&intent, false)?;
        for name in ["return_url", "setup_future_usage"] {
            if !parameters[name].is_null() {
                intent[name] = parameters[name].clone();
            }
        }
        if self.needs_authentication(&intent).await? {
            if flag(parameters, "off_session") {
                let refused = Failure::authentication_required();
                return Err(self.intent_failed(intent, refused));
            }
            return Ok(self.ask_authentication(intent));
        }
        self.capture(intent).await
    }

    /// What the person's bank answered.
    pub(super) async fn authenticate_intent(&mut self, id: &str, is_confirmed: bool) -> Answer {
        let mut intent = self.store.get("payment_intent", id)?;
        if intent["status"] != "requires_action" {
            return Err(unexpected_state(&intent));
        }
        intent["next_action"] = Value::Null;
        if is_confirmed {
            return self.capture(intent).await;
        }
        let refused = Failure::card(
            "payment_intent_authentication_failure",
            "authentication_required",
            "The provided PaymentMethod has failed authentication.",
        );
        Err(self.intent_failed(intent, refused))
    }

    pub(super) fn cancel_intent(&mut self, id: &str, parameters: &Value) -> Answer {
        Self::known(parameters, &["cancellation_reason"])?;
        let mut intent = self.store.get("payment_intent", id)?;
        if ["succeeded", "canceled"].contains(&text(&intent, "status")) {
            return Err(unexpected_state(&intent));
        }
        intent["status"] = "canceled".into();
        intent["canceled_at"] = now().into();
        intent["cancellation_reason"] = parameters["cancellation_reason"].clone();
        intent["next_action"] = Value::Null;
        self.store.put(&intent);
        self.tell("payment_intent.canceled", &intent);
        Ok(intent)
    }

    async fn set_method(&mut self, intent: &mut Value, method: &str) -> Result<(), Failure> {
        let method = self.retrieve(method).await?;
        if !method["customer"].is_null() && method["customer"] != intent["customer"] {
            let message = "The PaymentMethod does not belong to the Customer of this intent.";
            return Err(Failure::invalid("payment_method", message));
        }
        intent["payment_method"] = method["id"].clone();
        intent["status"] = "requires_confirmation".into();
        intent["next_action"] = Value::Null;
        Ok(())
    }

    pub(super) async fn needs_authentication(&mut self, intent: &Value) -> Result<bool, Failure> {
        let customer = text(intent, "customer");
        if Wishes::take(&mut self.store.wishes.authentications, customer) {
            return Ok(true);
        }
        let method = self.retrieve(text(intent, "payment_method")).await?;
        let last = text(&method["card"], "last4");
        let is_set_up = self
            .store
            .noted(text(&method, "id"), "_set_up")
            .is_some_and(|it| it == true);
        Ok(ALWAYS_AUTHENTICATED.contains(&last) || (last == ONCE_AUTHENTICATED && !is_set_up))
    }

    fn ask_authentication(&mut self, mut intent: Value) -> Value {
        intent["status"] = "requires_action".into();
        intent["next_action"] = self.next_action(&intent);
        self.store.put(&intent);
        self.tell("payment_intent.requires_action", &intent);
        if let Some(invoice) = intent["invoice"].as_str().map(str::to_owned) {
            self.invoice_needs_action(&invoice);
        }
        intent
    }

    /// Where the person shall go; without an address to come back to, Stripe's script does it.
    #[must_use]
    pub(super) fn next_action(&self, intent: &Value) -> Value {
        let page = format!("{}/_pay/authenticate/{}", self.base, text(intent, "id"));
        match intent["return_url"].as_str() {
            Some(back) => json!({"type": "redirect_to_url",
                "redirect_to_url": {"url": page, "return_url": back}}),
            None => json!({"type": "use_stripe_sdk",
                "use_stripe_sdk": {"type": "three_d_secure_redirect", "stripe_js": page}}),
        }
    }

    async fn capture(&mut self, mut intent: Value) -> Answer {
        let charge = match self.charge(&intent).await {
            Ok(charge) => charge,
            Err(refused) if refused.status == 402 => {
                return Err(self.intent_failed(intent, refused));
            }
            Err(broken) => return Err(broken),
        };
        intent["status"] = "succeeded".into();
        intent["amount_received"] = intent["amount"].clone();
        intent["latest_charge"] = charge["id"].clone();
        intent["last_payment_error"] = Value::Null;
        let customer = text(&intent, "customer").to_owned();
        if !customer.is_empty() && !intent["setup_future_usage"].is_null() {
            let method = text(&intent, "payment_method").to_owned();
            self.save_method(&method, &customer).await?;
        }
        self.store.put(&intent);
        self.tell("payment_intent.succeeded", &intent);
        if let Some(invoice) = intent["invoice"].as_str().map(str::to_owned) {
            self.invoice_is_paid(&invoice);
        }
        Ok(intent)
    }

    /// Attaches a card that is nobody's yet, and remembers that it may be charged without its owner.
    pub(super) async fn save_method(
        &mut self,
        method: &str,
        customer: &str,
    ) -> Result<(), Failure> {
        if self.retrieve(method).await?["customer"].is_null() {
            self.attach(method, &json!({"customer": customer})).await?;
        }
        self.store.note(method, "_set_up", true);
        Ok(())
    }

    fn intent_failed(&mut self, mut intent: Value, mut refused: Failure) -> Failure {
        intent["status"] = "requires_payment_method".into();
        intent["next_action"] = Value::Null;
        intent["latest_charge"] = refused.error["charge"].clone();
        intent["last_payment_error"] = refused.error.clone();
        intent["last_payment_error"]["payment_method"] = intent["payment_method"].clone();
        intent["payment_method"] = Value::Null;
        self.store.put(&intent);
        self.tell("payment_intent.payment_failed", &intent);
        if let Some(invoice) = intent["invoice"].as_str().map(str::to_owned) {
            self.invoice_failed(&invoice);
        }
        refused.error["payment_intent"] = super::store::shown(&intent);
        refused
    }
}

/// An intent before anything happened to it.
#[must_use]
pub(super) fn new_intent(amount: i64, currency: &str, parameters: &Value) -> Value {
    let id = new_id("pi");
    let secret = format!("{id}_secret_{}", random(24));
    let types = match &parameters["payment_method_types"] {
        Value::Null => json!(["card"]),
        types => types.clone(),
    };
    json!({
        "id": id, "object": "payment_intent", "amount": amount, "amount_received": 0,
        "canceled_at": null, "cancellation_reason": null, "capture_method": "automatic_async",
        "client_secret": secret, "confirmation_method": "automatic", "created": now(),
        "currency": currency, "customer": parameters["customer"],
        "description": parameters["description"], "invoice": parameters["invoice"],
        "last_payment_error": null, "latest_charge": null, "livemode": false, "metadata": {},
        "next_action": null, "payment_method": null, "payment_method_types": types,
        "receipt_email": parameters["receipt_email"], "return_url": null,
        "setup_future_usage": parameters["setup_future_usage"],
        "status": "requires_payment_method",
    })
}

fn check_confirmable(intent: &Value, brings_card: bool) -> Result<(), Failure> {
    match text(intent, "status") {
        "requires_confirmation" => Ok(()),
        "requires_payment_method" | "requires_action" if brings_card => Ok(()),
        "requires_payment_method" => {
            let message = "You cannot confirm this PaymentIntent because it's missing a payment \
                           method.";
            Err(Failure::coded(
                "payment_method",
                "payment_intent_unexpected_state",
                message,
            ))
        }
        _ => Err(unexpected_state(intent)),
    }
}

fn unexpected_state(intent: &Value) -> Failure {
    let message = format!(
        "This PaymentIntent has a status of {} and an amount of {}: it does not allow that.",
        text(intent, "status"),
        number(intent, "amount"),
    );
    let mut refused = Failure::coded("intent", "payment_intent_unexpected_state", &message);
    refused.error["payment_intent"] = super::store::shown(intent);
    refused
}
