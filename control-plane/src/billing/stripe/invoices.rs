//! What was or is to be paid.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::intents::Intent;
use super::{
    Expandable, Form, IdempotencyKey, List, Listed, Pages, Stripe, StripeError, moment, or_default,
};
use crate::billing::reference::{
    ChargeId, CustomerId, IntentId, InvoiceId, MethodId, SubscriptionId,
};

const PATH: &str = "invoices";

#[derive(Debug, Clone, Deserialize)]
pub struct Invoice {
    pub id: InvoiceId,
    #[serde(default)]
    pub customer: Option<Expandable<CustomerId>>,
    #[serde(default)]
    pub number: Option<String>,
    /// `draft`, `open`, `paid`, `uncollectible` or `void`.
    #[serde(default)]
    pub status: Option<String>,
    /// Lower case, as of all amounts.
    #[serde(default, deserialize_with = "or_default")]
    pub currency: String,
    #[serde(default, deserialize_with = "or_default")]
    pub subtotal: i64,
    #[serde(default)]
    pub tax: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    pub total: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub amount_due: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub amount_paid: i64,
    #[serde(default)]
    created: Option<i64>,
    #[serde(default)]
    period_start: Option<i64>,
    #[serde(default)]
    period_end: Option<i64>,
    #[serde(default)]
    pub hosted_invoice_url: Option<String>,
    #[serde(default)]
    pub invoice_pdf: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub lines: List<Line>,
    #[serde(default)]
    subscription: Option<Expandable<SubscriptionId>>,
    /// Where later versions of the API have the subscription.
    #[serde(default)]
    parent: Option<Parent>,
    #[serde(default)]
    pub payment_intent: Option<Expandable<IntentId, Intent>>,
    #[serde(default)]
    pub charge: Option<Expandable<ChargeId>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Parent {
    #[serde(default)]
    subscription_details: Option<ParentSubscription>,
}

#[derive(Debug, Clone, Deserialize)]
struct ParentSubscription {
    #[serde(default)]
    subscription: Option<Expandable<SubscriptionId>>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Line {
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub amount: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub proration: bool,
}

impl Invoice {
    #[must_use]
    pub fn subscription(&self) -> Option<&SubscriptionId> {
        let of_parent = || {
            let details = self.parent.as_ref()?.subscription_details.as_ref()?;
            details.subscription.as_ref()
        };
        let subscription = self.subscription.as_ref().or_else(of_parent);
        subscription.map(|it| &it.id)
    }

    #[must_use]
    pub fn created_at(&self) -> Option<DateTime<Utc>> {
        moment(self.created?)
    }

    /// What it is for.
    #[must_use]
    pub fn period(&self) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        Some((moment(self.period_start?)?, moment(self.period_end?)?))
    }
}

impl Listed for Invoice {
    fn id(&self) -> &str {
        self.id.as_str()
    }
}

super::whole!(Invoice);

impl Stripe {
    /// With its payment.
    pub async fn invoice(&self, id: &InvoiceId) -> Result<Invoice, StripeError> {
        let form = Form::new().expand(&["payment_intent"]);
        self.get(&[PATH, id.as_str()], &form).await
    }

    /// The newest first.
    pub fn invoices(&self, customer: &CustomerId) -> Pages<'_, Invoice> {
        Pages::new(self, &[PATH], Form::new().id("customer", customer))
    }

    /// Tries to have it paid now, by this or by what pays by default.
    pub async fn pay_invoice(
        &self,
        id: &InvoiceId,
        method: Option<&MethodId>,
        key: &IdempotencyKey,
    ) -> Result<Invoice, StripeError> {
        let form = Form::new().maybe("payment_method", method.map(MethodId::as_str));
        self.post(&[PATH, id.as_str(), "pay"], &form, key).await
    }

    /// Lets nobody pay it any more.
    pub async fn void_invoice(
        &self,
        id: &InvoiceId,
        key: &IdempotencyKey,
    ) -> Result<Invoice, StripeError> {
        self.post(&[PATH, id.as_str(), "void"], &Form::new(), key)
            .await
    }
}
