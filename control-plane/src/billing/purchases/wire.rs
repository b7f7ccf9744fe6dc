//! What callers send and read.

use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::billing::money::{Currency, Money};
use crate::billing::redirect::LONGEST;
use crate::billing::stripe::intents::{Intent, IntentStatus};
use crate::billing::subscription::StatusView;
use crate::error::ApiError;

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[schema(as = CheckoutRequest)]
pub(super) struct CheckoutBody {
    /// A plan's id, or how often it is paid: `monthly`, `yearly`.
    #[garde(length(chars, min = 1, max = 50))]
    #[schema(example = "monthly", min_length = 1, max_length = 50)]
    pub(super) plan_type: String,
    /// The plan's, where it is given.
    #[garde(skip)]
    #[schema(example = "USD", pattern = "^[A-Za-z]{3}$")]
    pub(super) currency: Option<String>,
    /// Where the person comes back to who has paid. Over HTTPS, and on a host that the service lists.
    #[garde(length(max = LONGEST))]
    #[schema(example = "https://app.example.org/paid", max_length = 2048)]
    pub(super) success_url: String,
    /// Where the person comes back to who has not.
    #[garde(length(max = LONGEST))]
    #[schema(example = "https://app.example.org/plans", max_length = 2048)]
    pub(super) cancel_url: String,
}

/// Where to pay.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Checkout)]
pub(super) struct CheckoutView {
    #[schema(example = "https://checkout.stripe.com/c/pay/cs_live_a1b2")]
    pub(super) checkout_url: String,
    /// Null: the page needs none.
    #[schema(example = json!(null))]
    pub(super) client_secret: Option<String>,
    /// Null: the page makes its own.
    #[schema(example = json!(null))]
    pub(super) payment_intent_id: Option<String>,
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[schema(as = IntentRequest)]
pub(super) struct IntentBody {
    /// A plan's id, or how often it is paid: `monthly`, `yearly`.
    #[garde(length(chars, min = 1, max = 50))]
    #[schema(example = "monthly", min_length = 1, max_length = 50)]
    pub(super) plan_type: String,
    /// The plan's, where it is given.
    #[garde(skip)]
    #[schema(example = "USD", pattern = "^[A-Za-z]{3}$")]
    pub(super) currency: Option<String>,
}

/// What is to be paid.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PaymentIntent)]
pub(super) struct IntentView {
    #[schema(example = "pi_3MtwBwLkdIwHu7ix28a3tqPa")]
    payment_intent_id: String,
    /// For Stripe's SDK. Whoever has it can pay, and nothing else.
    #[schema(example = "pi_3MtwBwLkdIwHu7ix28a3tqPa_secret_YrKJUKribcBjcG8HVhfZluoGH")]
    client_secret: Option<String>,
    status: PaymentStatus,
    #[schema(example = 9.99)]
    amount: f64,
    #[schema(example = "USD")]
    currency: String,
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[schema(as = Confirmation)]
pub(super) struct ConfirmBody {
    #[garde(length(min = 1, max = 255))]
    #[schema(
        example = "pi_3MtwBwLkdIwHu7ix28a3tqPa",
        min_length = 1,
        max_length = 255
    )]
    pub(super) payment_intent_id: String,
    /// What pays; otherwise what pays by default.
    #[garde(inner(length(min = 1, max = 255)))]
    #[schema(
        example = "pm_1MqLiJLkdIwHu7ixUEgbFdYF",
        min_length = 1,
        max_length = 255
    )]
    pub(super) payment_method: Option<String>,
    /// Where the payer comes back to from their bank. Over HTTPS, and on a host that the service lists.
    #[garde(inner(length(max = LONGEST)))]
    #[schema(example = "https://app.example.org/paid", max_length = 2048)]
    pub(super) return_url: Option<String>,
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[schema(as = SubscribeRequest)]
pub(super) struct SubscribeBody {
    /// A plan's id, or how often it is paid: `monthly`, `yearly`, `free`.
    #[garde(length(chars, min = 1, max = 50))]
    #[schema(example = "yearly", min_length = 1, max_length = 50)]
    pub(super) plan_type: String,
    /// What pays, and is saved for it; otherwise what pays by default.
    #[garde(inner(length(min = 1, max = 255)))]
    #[schema(
        example = "pm_1MqLiJLkdIwHu7ixUEgbFdYF",
        min_length = 1,
        max_length = 255
    )]
    pub(super) payment_method: Option<String>,
}

/// How a payment stands, and what it is for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PaymentOutcome)]
pub(super) struct PaymentView {
    status: PaymentStatus,
    /// Null where nothing is due.
    #[schema(example = "pi_3MtwBwLkdIwHu7ix28a3tqPa")]
    payment_intent_id: Option<String>,
    /// For Stripe's SDK, while the payer has something to do.
    #[schema(example = "pi_3MtwBwLkdIwHu7ix28a3tqPa_secret_YrKJUKribcBjcG8HVhfZluoGH")]
    client_secret: Option<String>,
    /// Where the payer proves themselves to their bank, if `return_url` was given.
    #[schema(example = "https://hooks.stripe.com/3d_secure_2/hosted")]
    next_action_url: Option<String>,
    subscription: StatusView,
}

impl PaymentView {
    /// Without a payment nothing is due.
    pub(super) fn new(intent: Option<Intent>, subscription: StatusView) -> Self {
        let Some(intent) = intent else {
            return Self {
                status: PaymentStatus::Succeeded,
                payment_intent_id: None,
                client_secret: None,
                next_action_url: None,
                subscription,
            };
        };
        let status = PaymentStatus::from(intent.status);
        let is_over = matches!(status, PaymentStatus::Succeeded | PaymentStatus::Canceled);
        let redirect = intent.next_action.and_then(|it| it.redirect_to_url);
        Self {
            status,
            payment_intent_id: Some(intent.id.as_str().to_owned()),
            client_secret: intent.client_secret.filter(|_| !is_over),
            next_action_url: redirect.and_then(|it| it.url),
            subscription,
        }
    }
}

/// How a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PaymentStatus {
    /// A card is missing, or the last one was declined.
    RequiresPaymentMethod,
    RequiresConfirmation,
    /// The payer has to prove themselves to their bank.
    RequiresAction,
    Processing,
    Succeeded,
    /// Nobody can pay it any more.
    Canceled,
}

impl From<Option<IntentStatus>> for PaymentStatus {
    fn from(status: Option<IntentStatus>) -> Self {
        match status {
            Some(IntentStatus::RequiresPaymentMethod) => Self::RequiresPaymentMethod,
            Some(IntentStatus::RequiresConfirmation) => Self::RequiresConfirmation,
            Some(IntentStatus::RequiresAction) => Self::RequiresAction,
            Some(IntentStatus::Canceled) => Self::Canceled,
            Some(IntentStatus::Succeeded) => Self::Succeeded,
            Some(
                IntentStatus::Processing | IntentStatus::RequiresCapture | IntentStatus::Unknown,
            )
            | None => Self::Processing,
        }
    }
}

impl IntentView {
    pub(super) fn new(intent: Intent) -> Result<Self, ApiError> {
        let currency: Currency = intent.currency.parse().map_err(ApiError::internal)?;
        let money = Money {
            minor: intent.amount,
            currency,
        };
        Ok(Self {
            payment_intent_id: intent.id.as_str().to_owned(),
            client_secret: intent.client_secret,
            status: intent.status.into(),
            amount: money.number(),
            currency: currency.to_string(),
        })
    }
}

/// The currency that a caller names.
pub(super) fn currency(text: Option<&str>) -> Result<Option<Currency>, ApiError> {
    let parse = |text: &str| text.parse::<Currency>();
    let parsed = text.map(parse).transpose();
    parsed.map_err(|_| ApiError::invalid("currency", "Must be the code of a currency, such as USD"))
}
