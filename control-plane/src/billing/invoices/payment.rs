//! What a payment is by what Stripe says of its invoice. Pure.

use chrono::{DateTime, Utc};
use shared::ids::UserId;
use uuid::Uuid;

use crate::billing::money::{Currency, Money};
use crate::billing::stripe::intents::IntentStatus;
use crate::billing::stripe::invoices::Invoice;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentStatus {
    /// It is to be paid, or is being paid.
    Open,
    Succeeded,
    /// The last try failed. There may be another.
    Failed,
    /// Nobody will pay it any more.
    Void,
}

impl PaymentStatus {
    pub const ALL: [Self; 4] = [Self::Open, Self::Succeeded, Self::Failed, Self::Void];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Void => "void",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }
}

/// What Stripe says of an invoice at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What was paid, or is due.
    pub amount: Money,
    /// In the same unit, and contained in it.
    pub tax: i64,
    pub status: PaymentStatus,
    pub period: Option<(DateTime<Utc>, DateTime<Utc>)>,
    pub created_at: DateTime<Utc>,
    /// There where it succeeded.
    pub paid_at: Option<DateTime<Utc>>,
}

impl Seen {
    /// None for what is no payment yet, or cannot be read as one.
    #[must_use]
    pub fn of(invoice: &Invoice) -> Option<Self> {
        let status = status(invoice)?;
        let minor = match status {
            PaymentStatus::Succeeded => invoice.amount_paid,
            _ => invoice.amount_due,
        };
        let currency: Currency = invoice.currency.parse().ok()?;
        let created_at = invoice.created_at()?;
        let paid_at = invoice.paid_at().unwrap_or(created_at);
        Some(Self {
            amount: Money {
                minor: minor.max(0),
                currency,
            },
            tax: invoice.tax.unwrap_or_default().max(0),
            status,
            period: invoice.period(),
            created_at,
            paid_at: (status == PaymentStatus::Succeeded).then_some(paid_at),
        })
    }
}

fn status(invoice: &Invoice) -> Option<PaymentStatus> {
    let intent = invoice.payment_intent.as_ref();
    let intent = intent.and_then(|it| it.object.as_ref()?.status);
    let is_under_way = matches!(
        intent,
        Some(
            IntentStatus::RequiresAction
                | IntentStatus::RequiresConfirmation
                | IntentStatus::Processing
                | IntentStatus::Succeeded
        )
    );
    Some(match invoice.status.as_deref()? {
        "paid" => PaymentStatus::Succeeded,
        "open" if invoice.attempted && !is_under_way => PaymentStatus::Failed,
        "open" => PaymentStatus::Open,
        "uncollectible" => PaymentStatus::Failed,
        "void" => PaymentStatus::Void,
        // Its amounts are not what they will be.
        _ => return None,
    })
}

/// A payment as we keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub user: UserId,
    /// Our row of what is paid for.
    pub subscription: Option<Uuid>,
    pub plan: Option<String>,
    pub seen: Seen,
    /// What went back or is on its way back.
    pub refunded: i64,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn read(change: &Value) -> Option<Seen> {
        let mut invoice = json!({
            "id": "in_1", "status": "open", "currency": "eur", "amount_due": 1_190, "amount_paid": 0,
            "tax": 190, "attempted": false, "created": 1_000,
            "lines": { "data": [
                { "amount": -300, "proration": true, "period": { "start": 1_500, "end": 9_000 } },
                { "amount": 1_300, "period": { "start": 2_000, "end": 90_000 } },
            ] },
        });
        for (key, value) in change.as_object().unwrap() {
            invoice[key] = value.clone();
        }
        Seen::of(&serde_json::from_value(invoice).unwrap())
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[rstest]
    #[case(json!({}), "open", 1_190)]
    #[case(json!({ "attempted": true }), "failed", 1_190)]
    #[case(json!({ "attempted": true, "payment_intent": { "id": "pi_1", "status": "requires_action" } }), "open", 1_190)]
    #[case(json!({ "attempted": true, "payment_intent": { "id": "pi_1", "status": "requires_payment_method" } }), "failed", 1_190)]
    #[case(json!({ "status": "paid", "amount_paid": 1_000 }), "succeeded", 1_000)]
    #[case(json!({ "status": "uncollectible" }), "failed", 1_190)]
    #[case(json!({ "status": "void" }), "void", 1_190)]
    #[case(json!({ "amount_due": -5 }), "open", 0)]
    fn a_payment_is_what_its_invoice_says(
        #[case] change: Value,
        #[case] status: &str,
        #[case] minor: i64,
    ) {
        let seen = read(&change).unwrap();
        assert_eq!((seen.status.as_str(), seen.amount.minor), (status, minor));
        assert_eq!((seen.amount.currency.as_str(), seen.tax), ("EUR", 190));
        assert_eq!(seen.period, Some((at(1_500), at(90_000))));
        assert_eq!(seen.paid_at.is_some(), status == "succeeded");
    }

    #[test]
    fn it_is_paid_when_stripe_says_so() {
        let paid =
            json!({ "status": "paid", "amount_paid": 1, "status_transitions": { "paid_at": 7 } });
        assert_eq!(read(&paid).unwrap().paid_at, Some(at(7)));
    }

    #[rstest]
    #[case(json!({ "status": "draft" }))]
    #[case(json!({ "status": null }))]
    #[case(json!({ "currency": "euro" }))]
    #[case(json!({ "created": null }))]
    fn what_is_none_yet_is_not_kept(#[case] change: Value) {
        assert_eq!(read(&change), None);
    }

    #[test]
    fn a_status_is_read_as_it_is_written() {
        for status in PaymentStatus::ALL {
            assert_eq!(PaymentStatus::parse(status.as_str()), Some(status));
        }
    }
}
