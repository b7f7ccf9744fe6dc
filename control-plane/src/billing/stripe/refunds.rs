//! Money that goes back.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::{
    Expandable, Form, IdempotencyKey, Listed, Pages, Stripe, StripeError, moment, or_default,
};
use crate::billing::reference::{ChargeId, IntentId, RefundId};

const PATH: &str = "refunds";

#[derive(Debug, Clone, Deserialize)]
pub struct Refund {
    pub id: RefundId,
    /// `pending`, `requires_action`, `succeeded`, `failed` or `canceled`.
    #[serde(default)]
    pub status: Option<String>,
    /// In the currency's smallest unit.
    #[serde(default, deserialize_with = "or_default")]
    pub amount: i64,
    /// Lower case.
    #[serde(default, deserialize_with = "or_default")]
    pub currency: String,
    #[serde(default)]
    pub payment_intent: Option<Expandable<IntentId>>,
    #[serde(default)]
    pub charge: Option<Expandable<ChargeId>>,
    #[serde(default)]
    pub failure_reason: Option<String>,
    #[serde(default)]
    created: Option<i64>,
}

impl Refund {
    #[must_use]
    pub fn created_at(&self) -> Option<DateTime<Utc>> {
        moment(self.created?)
    }
}

impl Listed for Refund {
    fn id(&self) -> &str {
        self.id.as_str()
    }
}

super::whole!(Refund);

impl Stripe {
    /// Of all that is left of a payment, or of a part.
    pub async fn create_refund(
        &self,
        payment: &IntentId,
        amount: Option<i64>,
        key: &IdempotencyKey,
    ) -> Result<Refund, StripeError> {
        let form = Form::new()
            .id("payment_intent", payment)
            .put("reason", "requested_by_customer")
            .maybe("amount", amount);
        self.post(&[PATH], &form, key).await
    }

    pub async fn refund(&self, id: &RefundId) -> Result<Refund, StripeError> {
        self.get(&[PATH, id.as_str()], &Form::new()).await
    }

    pub fn refunds(&self, payment: &IntentId) -> Pages<'_, Refund> {
        Pages::new(self, &[PATH], Form::new().id("payment_intent", payment))
    }
}
