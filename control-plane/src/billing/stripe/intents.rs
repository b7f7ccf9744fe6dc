//! A payment, from its first try until it went through.

use serde::Deserialize;
use shared::ids::UserId;

use super::{Expandable, Form, IdempotencyKey, Stripe, StripeError, or_default};
use crate::billing::reference::{ChargeId, CustomerId, IntentId, InvoiceId, MethodId};

const PATH: &str = "payment_intents";

#[derive(Clone, Deserialize)]
pub struct Intent {
    pub id: IntentId,
    #[serde(default)]
    pub status: Option<IntentStatus>,
    /// In the currency's smallest unit.
    #[serde(default, deserialize_with = "or_default")]
    pub amount: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub amount_received: i64,
    /// Lower case.
    #[serde(default, deserialize_with = "or_default")]
    pub currency: String,
    /// Lets its bearer pay it, and nothing else. To be told to the payer alone.
    #[serde(default)]
    pub client_secret: Option<String>,
    #[serde(default)]
    pub customer: Option<Expandable<CustomerId>>,
    #[serde(default)]
    pub invoice: Option<Expandable<InvoiceId>>,
    #[serde(default)]
    pub payment_method: Option<Expandable<MethodId>>,
    #[serde(default)]
    pub latest_charge: Option<Expandable<ChargeId>>,
    #[serde(default)]
    pub last_payment_error: Option<PaymentError>,
    #[serde(default)]
    pub next_action: Option<NextAction>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentStatus {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    RequiresCapture,
    Canceled,
    Succeeded,
    /// One that this build does not know.
    #[serde(other)]
    Unknown,
}

/// Why the last try failed.
#[derive(Debug, Clone, Deserialize)]
pub struct PaymentError {
    #[serde(default)]
    pub code: Option<String>,
    #[serde(default)]
    pub decline_code: Option<String>,
}

/// What the payer has to do, such as to prove themselves to their bank.
#[derive(Debug, Clone, Deserialize)]
pub struct NextAction {
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub redirect_to_url: Option<Redirect>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Redirect {
    #[serde(default)]
    pub url: Option<String>,
}

impl std::fmt::Debug for Intent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intent")
            .field("status", &self.status)
            .field("amount", &self.amount)
            .field("currency", &self.currency)
            .finish_non_exhaustive()
    }
}

super::whole!(Intent);

#[derive(Debug)]
pub struct NewIntent<'a> {
    pub customer: &'a CustomerId,
    pub user: UserId,
    /// In the currency's smallest unit.
    pub amount: i64,
    pub currency: &'a str,
    pub method: Option<&'a MethodId>,
}

impl Stripe {
    pub async fn create_intent(
        &self,
        new: &NewIntent<'_>,
        key: &IdempotencyKey,
    ) -> Result<Intent, StripeError> {
        let form = Form::new()
            .id("customer", new.customer)
            .put("amount", new.amount)
            .put("currency", new.currency.to_ascii_lowercase())
            .put("automatic_payment_methods[enabled]", true)
            .put("metadata[user_id]", new.user)
            .maybe("payment_method", new.method.map(MethodId::as_str));
        self.post(&[PATH], &form, key).await
    }

    pub async fn intent(&self, id: &IntentId) -> Result<Intent, StripeError> {
        self.get(&[PATH, id.as_str()], &Form::new()).await
    }

    /// Pays it. `return_url` is where the payer comes back to who has to prove themselves.
    pub async fn confirm_intent(
        &self,
        id: &IntentId,
        method: Option<&MethodId>,
        return_url: Option<&str>,
        key: &IdempotencyKey,
    ) -> Result<Intent, StripeError> {
        let form = Form::new()
            .maybe("payment_method", method.map(MethodId::as_str))
            .maybe("return_url", return_url);
        self.post(&[PATH, id.as_str(), "confirm"], &form, key).await
    }

    pub async fn cancel_intent(
        &self,
        id: &IntentId,
        key: &IdempotencyKey,
    ) -> Result<Intent, StripeError> {
        self.post(&[PATH, id.as_str(), "cancel"], &Form::new(), key)
            .await
    }
}
