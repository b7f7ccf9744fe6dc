//! What Stripe says of a payment: its invoice and what went back of it.

use crate::billing::reference::{IntentId, InvoiceId};
use crate::billing::stripe::invoices::Invoice;
use crate::billing::stripe::refunds::Refund;
use crate::billing::stripe::{Stripe, StripeError};

#[derive(Debug)]
pub(super) struct Reading {
    pub(super) invoice: Invoice,
    pub(super) refunds: Vec<Refund>,
}

impl Reading {
    pub(super) async fn of(stripe: &Stripe, id: &InvoiceId) -> Result<Self, StripeError> {
        let invoice = stripe.invoice(id).await?;
        let is_paid = invoice.status.as_deref() == Some("paid");
        let mut refunds = Vec::new();
        if let Some(intent) = invoice.payment_intent.as_ref().filter(|_| is_paid) {
            refunds = stripe.refunds(Some(&intent.id)).all().await?;
        }
        // As they came about.
        refunds.reverse();
        Ok(Self { invoice, refunds })
    }

    pub(super) fn intent(&self) -> Option<&IntentId> {
        self.invoice
            .payment_intent
            .as_ref()
            .map(|intent| &intent.id)
    }

    /// What went back or is on its way back.
    pub(super) fn refunded(&self) -> i64 {
        let standing = self.refunds.iter().filter(|it| !it.has_failed());
        standing.map(|it| it.amount).sum()
    }
}
