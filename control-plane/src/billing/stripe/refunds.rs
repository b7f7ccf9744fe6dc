//! Money that goes back.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use uuid::Uuid;

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
    pub reason: Option<String>,
    #[serde(default)]
    pub failure_reason: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    metadata: Metadata,
    #[serde(default)]
    created: Option<i64>,
}

/// What we wrote beside it ourselves.
#[derive(Debug, Default, Clone, Deserialize)]
struct Metadata {
    #[serde(default)]
    refund_id: Option<String>,
}

/// A refund that a row of ours asks for.
#[derive(Debug)]
pub struct NewRefund<'a> {
    pub payment: &'a IntentId,
    /// In the currency's smallest unit.
    pub amount: i64,
    /// The row.
    pub row: Uuid,
}

impl Refund {
    /// The row of ours that asked for it.
    #[must_use]
    pub fn row(&self) -> Option<Uuid> {
        self.metadata.refund_id.as_ref()?.parse().ok()
    }

    /// Whether the money stays or comes back.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        matches!(self.status.as_deref(), Some("failed" | "canceled"))
    }

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
    pub async fn create_refund(
        &self,
        new: &NewRefund<'_>,
        key: &IdempotencyKey,
    ) -> Result<Refund, StripeError> {
        let form = Form::new()
            .id("payment_intent", new.payment)
            .put("amount", new.amount)
            .put("reason", "requested_by_customer")
            .put("metadata[refund_id]", new.row);
        self.post(&[PATH], &form, key).await
    }

    pub async fn refund(&self, id: &RefundId) -> Result<Refund, StripeError> {
        self.get(&[PATH, id.as_str()], &Form::new()).await
    }

    /// All of the account, or of one payment; the newest first.
    pub fn refunds(&self, payment: Option<&IntentId>) -> Pages<'_, Refund> {
        let query = Form::new().maybe("payment_intent", payment.map(IntentId::as_str));
        Pages::new(self, &[PATH], query)
    }
}
