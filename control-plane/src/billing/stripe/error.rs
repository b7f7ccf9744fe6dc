//! Why a call to Stripe did not bring what was asked for.

use serde::Deserialize;

use super::Expandable;
use crate::billing::reference::IntentId;
use crate::error::{ApiError, Code};

/// The longest text of Stripe's that is kept.
const LONGEST: usize = 200;

#[derive(Debug, thiserror::Error)]
pub enum StripeError {
    /// It failed again and again, and is left alone for a moment.
    #[error("Stripe is left alone after it failed repeatedly")]
    Suspended,
    /// No answer: whether the call had an effect is not known.
    #[error("Stripe cannot be reached: {0}")]
    Unreachable(String),
    /// It answered that it cannot at present, or that there are too many calls.
    #[error("Stripe answered {status}")]
    Busy { status: u16 },
    /// It answered that it will not.
    #[error("Stripe refused with {status}: {refusal}")]
    Refused { status: u16, refusal: Box<Refusal> },
    /// Not what its documentation says, or more than we read.
    #[error("Stripe's answer cannot be read: {0}")]
    Unreadable(String),
}

/// What Stripe says of a call that it refuses.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Refusal {
    #[serde(rename = "type")]
    pub kind: String,
    pub code: Option<String>,
    /// Why the card's bank declined.
    pub decline_code: Option<String>,
    /// The parameter that is to blame.
    pub param: Option<String>,
    /// The payment that it is about: it may go on with another card.
    pub payment_intent: Option<Expandable<IntentId>>,
}

impl std::fmt::Display for Refusal {
    /// Without Stripe's own sentence, which repeats ids.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kind, code, param, ..
        } = self;
        write!(f, "{}", short(kind))?;
        for part in [code, param].into_iter().flatten() {
            write!(f, ", {}", short(part))?;
        }
        Ok(())
    }
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

impl StripeError {
    /// Whether the same call may work later, without anybody changing anything.
    #[must_use]
    pub const fn is_recoverable(&self) -> bool {
        matches!(
            self,
            Self::Suspended | Self::Unreachable(_) | Self::Busy { .. }
        )
    }

    /// Whether it says that it did not do it, and will not. Who may not ask, or asks something else under a key that was
    /// used, is told nothing of that.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { status, refusal } => {
                !matches!(status, 401 | 403) && refusal.kind != "idempotency_error"
            }
            _ => false,
        }
    }

    /// Whether Stripe knows nothing by this id.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Refused { status, refusal } => {
                *status == 404 || refusal.code.as_deref() == Some("resource_missing")
            }
            _ => false,
        }
    }

    /// What the card's bank or Stripe says against a payment.
    #[must_use]
    pub fn declined(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } if refusal.kind == "card_error" => Some(refusal),
            _ => None,
        }
    }
}

impl From<StripeError> for ApiError {
    fn from(error: StripeError) -> Self {
        let code = if error.is_recoverable() {
            Code::PaymentsUnavailable
        } else if error.declined().is_some() {
            Code::PaymentDeclined
        } else {
            Code::Internal
        };
        Self::new(code).with_source(error)
    }
}
