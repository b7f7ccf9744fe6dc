//! What is paid for again and again.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::intents::Intent;
use super::invoices::Invoice;
use super::{
    Expandable, Form, IdempotencyKey, List, Listed, Pages, Stripe, StripeError, moment, or_default,
};
use crate::billing::reference::{
    CustomerId, IntentId, InvoiceId, ItemId, MethodId, PriceId, SubscriptionId,
};

const PATH: &str = "subscriptions";

#[derive(Debug, Clone, Deserialize)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub customer: Expandable<CustomerId>,
    pub status: Status,
    #[serde(default, deserialize_with = "or_default")]
    pub items: List<Item>,
    #[serde(default, deserialize_with = "or_default")]
    pub cancel_at_period_end: bool,
    #[serde(default)]
    start_date: Option<i64>,
    #[serde(default)]
    created: Option<i64>,
    #[serde(default)]
    current_period_end: Option<i64>,
    #[serde(default)]
    trial_end: Option<i64>,
    #[serde(default)]
    cancel_at: Option<i64>,
    #[serde(default)]
    ended_at: Option<i64>,
    #[serde(default)]
    pub default_payment_method: Option<Expandable<MethodId>>,
    #[serde(default)]
    pub latest_invoice: Option<Expandable<InvoiceId, Invoice>>,
    /// Where a card has to be named before anything is charged.
    #[serde(default)]
    pub pending_setup_intent: Option<Expandable<IntentId, Intent>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Incomplete,
    IncompleteExpired,
    Trialing,
    Active,
    PastDue,
    Unpaid,
    Paused,
    Canceled,
    /// One that this build does not know.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Item {
    pub id: ItemId,
    #[serde(default)]
    pub price: Option<Expandable<PriceId>>,
    /// What prices were before there were prices.
    #[serde(default)]
    pub plan: Option<Expandable<PriceId>>,
    /// Where later versions of the API have it.
    #[serde(default)]
    current_period_end: Option<i64>,
}

impl Subscription {
    /// What is paid for. We sell one thing a subscription.
    #[must_use]
    pub fn item(&self) -> Option<&Item> {
        self.items.data.first()
    }

    #[must_use]
    pub fn price(&self) -> Option<&PriceId> {
        let item = self.item()?;
        let price = item.price.as_ref().or(item.plan.as_ref());
        price.map(|price| &price.id)
    }

    #[must_use]
    pub fn period_end(&self) -> Option<DateTime<Utc>> {
        let of_item = || self.item().and_then(|item| item.current_period_end);
        moment(self.current_period_end.or_else(of_item)?)
    }

    #[must_use]
    pub fn started_at(&self) -> Option<DateTime<Utc>> {
        moment(self.start_date.or(self.created)?)
    }

    #[must_use]
    pub fn trial_end(&self) -> Option<DateTime<Utc>> {
        moment(self.trial_end?)
    }

    #[must_use]
    pub fn ended_at(&self) -> Option<DateTime<Utc>> {
        moment(self.ended_at?)
    }

    /// Whether it ends with the period that is paid for, or before.
    #[must_use]
    pub fn ends_with_period(&self) -> bool {
        let ends_at = self.cancel_at.and_then(moment);
        self.cancel_at_period_end || ends_at.is_some_and(|at| self.period_end() >= Some(at))
    }
}

impl Listed for Subscription {
    fn id(&self) -> &str {
        self.id.as_str()
    }
}

super::whole!(Subscription);

/// A subscription that begins with a card that is saved already, or with one that is named afterwards.
#[derive(Debug)]
pub struct NewSubscription<'a> {
    pub customer: &'a CustomerId,
    pub price: &'a PriceId,
    pub method: Option<&'a MethodId>,
    pub trial_days: u32,
}

/// What comes with a subscription, so that its first payment can be confirmed.
const WITH_PAYMENT: &[&str] = &["latest_invoice.payment_intent", "pending_setup_intent"];

impl Stripe {
    pub async fn create_subscription(
        &self,
        new: &NewSubscription<'_>,
        key: &IdempotencyKey,
    ) -> Result<Subscription, StripeError> {
        let form = Form::new()
            .id("customer", new.customer)
            .id("items[0][price]", new.price)
            // Until its first payment went through it gives nothing.
            .put("payment_behavior", "default_incomplete")
            .put(
                "payment_settings[save_default_payment_method]",
                "on_subscription",
            )
            .maybe("default_payment_method", new.method.map(MethodId::as_str))
            .maybe(
                "trial_period_days",
                (new.trial_days > 0).then_some(new.trial_days),
            )
            .expand(WITH_PAYMENT);
        self.post(&[PATH], &form, key).await
    }

    pub async fn subscription(&self, id: &SubscriptionId) -> Result<Subscription, StripeError> {
        self.get(&[PATH, id.as_str()], &Form::new()).await
    }

    /// With the payment that it waits for.
    pub async fn subscription_with_payment(
        &self,
        id: &SubscriptionId,
    ) -> Result<Subscription, StripeError> {
        let form = Form::new().expand(WITH_PAYMENT);
        self.get(&[PATH, id.as_str()], &form).await
    }

    /// All of the account, ended ones too, or of one customer; the newest first.
    pub fn subscriptions(&self, customer: Option<&CustomerId>) -> Pages<'_, Subscription> {
        let query = Form::new()
            .put("status", "all")
            .maybe("customer", customer.map(CustomerId::as_str));
        Pages::new(self, &[PATH], query)
    }

    /// Lets it end with the period that is paid for, or go on.
    pub async fn set_cancel_at_period_end(
        &self,
        id: &SubscriptionId,
        cancel: bool,
        key: &IdempotencyKey,
    ) -> Result<Subscription, StripeError> {
        let form = Form::new().put("cancel_at_period_end", cancel);
        self.post(&[PATH, id.as_str()], &form, key).await
    }

    /// Changes what is paid for. The difference for the rest of the period is charged at once; where that
    /// fails, nothing changes.
    pub async fn change_price(
        &self,
        id: &SubscriptionId,
        item: &ItemId,
        price: &PriceId,
        key: &IdempotencyKey,
    ) -> Result<Subscription, StripeError> {
        let form = Form::new()
            .id("items[0][id]", item)
            .id("items[0][price]", price)
            .put("cancel_at_period_end", false)
            .put("proration_behavior", "always_invoice")
            .put("payment_behavior", "error_if_incomplete")
            .expand(WITH_PAYMENT);
        self.post(&[PATH, id.as_str()], &form, key).await
    }

    pub async fn set_subscription_method(
        &self,
        id: &SubscriptionId,
        method: &MethodId,
        key: &IdempotencyKey,
    ) -> Result<Subscription, StripeError> {
        let form = Form::new().id("default_payment_method", method);
        self.post(&[PATH, id.as_str()], &form, key).await
    }

    /// Ends it now. What was paid stays paid.
    pub async fn cancel_subscription(
        &self,
        id: &SubscriptionId,
    ) -> Result<Subscription, StripeError> {
        self.delete(&[PATH, id.as_str()], &Form::new()).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_read_in_the_shapes_of_earlier_and_later_versions() {
        let earlier = json!({
            "id": "sub_1", "customer": "cus_1", "status": "past_due", "start_date": 100,
            "current_period_end": 200, "cancel_at_period_end": null, "trial_end": null,
            "items": { "data": [{ "id": "si_1", "plan": { "id": "premium", "amount": 999 } }] },
            "latest_invoice": { "id": "in_1", "payment_intent": "pi_1", "total": 999, "tax": null },
            "default_payment_method": "pm_1",
        });
        let later = json!({
            "id": "sub_1", "customer": { "id": "cus_1", "deleted": true }, "status": "past_due",
            "created": 100,
            "items": { "data": [{
                "id": "si_1", "price": { "id": "premium", "unit_amount": null }, "current_period_end": 200
            }], "has_more": false },
            "latest_invoice": "in_1",
        });
        for shape in [earlier, later] {
            let read: Subscription = serde_json::from_value(shape).unwrap();
            assert_eq!(read.status, Status::PastDue);
            assert_eq!(read.customer.id.as_str(), "cus_1");
            assert_eq!(read.price().unwrap().as_str(), "premium");
            assert_eq!(read.started_at(), moment(100));
            assert_eq!(read.period_end(), moment(200));
            assert_eq!((read.trial_end(), read.ended_at()), (None, None));
            assert_eq!(read.latest_invoice.unwrap().id.as_str(), "in_1");
            assert!(!read.cancel_at_period_end);
        }
    }

    #[test]
    fn one_that_is_set_to_end_at_its_periods_end_ends_with_it() {
        let read = |cancel_at| {
            let shape = json!({
                "id": "sub_1", "customer": "cus_1", "status": "active",
                "current_period_end": 200, "cancel_at": cancel_at
            });
            serde_json::from_value::<Subscription>(shape).unwrap()
        };
        assert!(read(Some(200)).ends_with_period());
        assert!(!read(Some(300)).ends_with_period());
        assert!(!read(None).ends_with_period());
    }
}
