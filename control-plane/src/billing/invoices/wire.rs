//! Payments and invoices as people read them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::payment::{Payment, PaymentStatus};
use super::store::Stored;
use crate::billing::money::{Currency, Money};
use crate::billing::refunds::{Refund, RefundView};
use crate::billing::stripe::invoices::{Invoice, Line};

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PaymentStatus)]
enum StatusWord {
    /// It is to be paid, or is being paid.
    Open,
    Succeeded,
    /// The last try failed. There may be another.
    Failed,
    /// Nobody has to pay it any more.
    Void,
}

impl From<PaymentStatus> for StatusWord {
    fn from(status: PaymentStatus) -> Self {
        match status {
            PaymentStatus::Open => Self::Open,
            PaymentStatus::Succeeded => Self::Succeeded,
            PaymentStatus::Failed => Self::Failed,
            PaymentStatus::Void => Self::Void,
        }
    }
}

/// What was paid, or is to be paid.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Payment)]
pub(super) struct PaymentView {
    /// Names the payment and its invoice.
    id: Uuid,
    status: StatusWord,
    #[schema(example = 9.99)]
    amount: f64,
    #[schema(example = "USD")]
    currency: String,
    /// Contained in `amount`.
    #[schema(example = 1.6)]
    tax: f64,
    /// What went back or is on its way back.
    #[schema(example = 0.0)]
    refunded: f64,
    #[schema(example = "premium_monthly")]
    plan: Option<String>,
    /// The period that is paid for.
    period_start: Option<DateTime<Utc>>,
    period_end: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    paid_at: Option<DateTime<Utc>>,
    /// The oldest first.
    refunds: Vec<RefundView>,
}

impl PaymentView {
    pub(super) fn new(id: Uuid, payment: Payment, refunds: Vec<Refund>) -> Self {
        let seen = payment.seen;
        let currency = seen.amount.currency;
        let number = |minor| Money { minor, currency }.number();
        let (period_start, period_end) = seen.period.unzip();
        Self {
            id,
            status: seen.status.into(),
            amount: seen.amount.number(),
            currency: currency.to_string(),
            tax: number(seen.tax),
            refunded: number(payment.refunded),
            plan: payment.plan,
            period_start,
            period_end,
            created_at: seen.created_at,
            paid_at: seen.paid_at,
            refunds: refunds.into_iter().map(RefundView::from).collect(),
        }
    }
}

/// One part of an invoice.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InvoiceLine)]
struct LineView {
    #[schema(example = "1 × Premium Monthly")]
    description: Option<String>,
    /// Negative where something is credited.
    #[schema(example = 9.99)]
    amount: f64,
    /// The difference that a change of plan makes.
    is_proration: bool,
    period_start: Option<DateTime<Utc>>,
    period_end: Option<DateTime<Utc>>,
}

/// An invoice as the payment provider has it now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Invoice)]
pub(super) struct InvoiceView {
    #[serde(flatten)]
    payment: PaymentView,
    #[schema(example = "F1B2C3D4-0001")]
    number: Option<String>,
    #[schema(example = 8.39)]
    subtotal: f64,
    #[schema(example = 9.99)]
    total: f64,
    /// What is to be paid after credits.
    #[schema(example = 9.99)]
    amount_due: f64,
    #[schema(example = 9.99)]
    amount_paid: f64,
    lines: Vec<LineView>,
    /// A page where it can be read, and paid.
    #[schema(example = "https://invoice.stripe.com/i/acct_1/live_1")]
    hosted_invoice_url: Option<String>,
    #[schema(example = "https://pay.stripe.com/invoice/acct_1/live_1/pdf")]
    invoice_pdf: Option<String>,
}

impl InvoiceView {
    pub(super) fn new(stored: Stored, refunds: Vec<Refund>, read: Invoice) -> Self {
        let currency = stored.payment.seen.amount.currency;
        let number = |minor| Money { minor, currency }.number();
        Self {
            number: read.number,
            subtotal: number(read.subtotal),
            total: number(read.total),
            amount_due: number(read.amount_due),
            amount_paid: number(read.amount_paid),
            lines: read
                .lines
                .data
                .iter()
                .map(|it| line(it, currency))
                .collect(),
            hosted_invoice_url: read.hosted_invoice_url,
            invoice_pdf: read.invoice_pdf,
            payment: PaymentView::new(stored.id, stored.payment, refunds),
        }
    }
}

fn line(line: &Line, currency: Currency) -> LineView {
    let (period_start, period_end) = line.period().unzip();
    LineView {
        description: line.description.clone(),
        amount: Money {
            minor: line.amount,
            currency,
        }
        .number(),
        is_proration: line.proration,
        period_start,
        period_end,
    }
}
