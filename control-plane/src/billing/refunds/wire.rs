//! Refunds as callers write and read them.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::refund::{Refund, RefundStatus};
use crate::http::text::plain;

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[schema(as = NewRefund)]
pub(super) struct RefundBody {
    /// As `GET /billing/history` has it.
    #[garde(skip)]
    pub(super) payment_id: Uuid,
    /// In the payment's currency, with no more decimals than it has. All that is left where it is missing;
    /// the payer has all of a payment back, or nothing.
    #[garde(skip)]
    #[schema(example = 9.99, exclusive_minimum = 0, maximum = 99_999_999)]
    #[serde(default)]
    pub(super) amount: Option<f64>,
    #[garde(inner(length(chars, max = 500), custom(plain)))]
    #[schema(
        example = "It did not work where I am",
        max_length = 500,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$"
    )]
    #[serde(default)]
    pub(super) reason: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RefundStatus)]
enum StatusWord {
    /// It will be made.
    Requested,
    /// It is on its way.
    Pending,
    Succeeded,
    Failed,
}

impl From<RefundStatus> for StatusWord {
    fn from(status: RefundStatus) -> Self {
        match status {
            RefundStatus::Requested => Self::Requested,
            RefundStatus::Pending => Self::Pending,
            RefundStatus::Succeeded => Self::Succeeded,
            RefundStatus::Failed => Self::Failed,
        }
    }
}

/// Money that goes back.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Refund)]
pub struct RefundView {
    id: Uuid,
    payment_id: Uuid,
    #[schema(example = 9.99)]
    amount: f64,
    #[schema(example = "USD")]
    currency: String,
    status: StatusWord,
    #[schema(example = "It did not work where I am")]
    reason: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Refund> for RefundView {
    fn from(refund: Refund) -> Self {
        Self {
            id: refund.id,
            payment_id: refund.payment,
            amount: refund.amount.number(),
            currency: refund.amount.currency.to_string(),
            status: refund.status.into(),
            reason: refund.reason,
            created_at: refund.created_at,
            updated_at: refund.updated_at,
        }
    }
}
