//! What was or is to be paid.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::intents::Intent;
use super::{
    Expandable, Form, IdempotencyKey, List, Listed, Pages, Stripe, StripeError, moment, or_default,
};
use crate::billing::reference::{
    ChargeId, CustomerId, IntentId, InvoiceId, MethodId, PriceId, SubscriptionId,
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
    /// Whether a payment was tried.
    #[serde(default, deserialize_with = "or_default")]
    pub attempted: bool,
    #[serde(default)]
    created: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    status_transitions: Transitions,
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

#[derive(Debug, Default, Clone, Deserialize)]
struct Transitions {
    #[serde(default)]
    paid_at: Option<i64>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Line {
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub amount: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub proration: bool,
    #[serde(default)]
    price: Option<Expandable<PriceId>>,
    /// Where later versions of the API have the price.
    #[serde(default)]
    pricing: Option<Pricing>,
    #[serde(default)]
    period: Option<Period>,
}

#[derive(Debug, Clone, Deserialize)]
struct Pricing {
    #[serde(default)]
    price_details: Option<PriceDetails>,
}

#[derive(Debug, Clone, Deserialize)]
struct PriceDetails {
    #[serde(default)]
    price: Option<Expandable<PriceId>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Period {
    start: i64,
    end: i64,
}

impl Line {
    #[must_use]
    pub fn price(&self) -> Option<&PriceId> {
        let of_pricing = || {
            self.pricing
                .as_ref()?
                .price_details
                .as_ref()?
                .price
                .as_ref()
        };
        let price = self.price.as_ref().or_else(of_pricing);
        price.map(|price| &price.id)
    }

    /// The time that it is for.
    #[must_use]
    pub fn period(&self) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let Period { start, end } = self.period?;
        Some((moment(start)?, moment(end)?))
    }
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

    #[must_use]
    pub fn paid_at(&self) -> Option<DateTime<Utc>> {
        moment(self.status_transitions.paid_at?)
    }

    /// All that its lines are for. An invoice has a period of its own as well, which is the one before.
    #[must_use]
    pub fn period(&self) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let periods = || self.lines.data.iter().filter_map(Line::period);
        let start = periods().map(|(start, _)| start).min()?;
        let end = periods().map(|(_, end)| end).max()?;
        Some((start, end))
    }

    /// What is paid for: of several lines, the one that is no correction of another.
    #[must_use]
    pub fn price(&self) -> Option<&PriceId> {
        let lines = &self.lines.data;
        let whole = lines.iter().rev().find(|line| !line.proration);
        whole.or(lines.last())?.price()
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

    /// All of the account, or of one customer, with their payments; the newest first.
    pub fn invoices(&self, customer: Option<&CustomerId>) -> Pages<'_, Invoice> {
        let query = Form::new()
            .maybe("customer", customer.map(CustomerId::as_str))
            .expand(&["data.payment_intent"]);
        Pages::new(self, &[PATH], query)
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
