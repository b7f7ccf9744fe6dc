//! Stripe's own page to pay at.

use serde::Deserialize;
use shared::ids::UserId;

use super::subscriptions::Subscription;
use super::{Expandable, Form, IdempotencyKey, Stripe, StripeError};
use crate::billing::reference::{CheckoutId, CustomerId, IntentId, PriceId, SubscriptionId};

const PATH: [&str; 2] = ["checkout", "sessions"];

#[derive(Clone, Deserialize)]
pub struct Checkout {
    pub id: CheckoutId,
    /// Where to pay, while it is open.
    #[serde(default)]
    pub url: Option<String>,
    /// `open`, `complete` or `expired`.
    #[serde(default)]
    pub status: Option<String>,
    /// `paid`, `unpaid` or `no_payment_required`.
    #[serde(default)]
    pub payment_status: Option<String>,
    #[serde(default)]
    pub client_secret: Option<String>,
    #[serde(default)]
    pub customer: Option<Expandable<CustomerId>>,
    #[serde(default)]
    pub subscription: Option<Expandable<SubscriptionId, Subscription>>,
    #[serde(default)]
    pub payment_intent: Option<Expandable<IntentId>>,
}

impl std::fmt::Debug for Checkout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkout")
            .field("status", &self.status)
            .field("payment_status", &self.payment_status)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub struct NewCheckout<'a> {
    pub customer: &'a CustomerId,
    pub user: UserId,
    pub price: &'a PriceId,
    pub success_url: &'a str,
    pub cancel_url: &'a str,
    pub trial_days: u32,
}

impl Stripe {
    pub async fn create_checkout(
        &self,
        new: &NewCheckout<'_>,
        key: &IdempotencyKey,
    ) -> Result<Checkout, StripeError> {
        let form = Form::new()
            .put("mode", "subscription")
            .id("customer", new.customer)
            .put("client_reference_id", new.user)
            .id("line_items[0][price]", new.price)
            .put("line_items[0][quantity]", 1)
            .put("success_url", new.success_url)
            .put("cancel_url", new.cancel_url)
            .maybe(
                "subscription_data[trial_period_days]",
                (new.trial_days > 0).then_some(new.trial_days),
            );
        self.post(&PATH, &form, key).await
    }

    pub async fn checkout(&self, id: &CheckoutId) -> Result<Checkout, StripeError> {
        let [group, name] = PATH;
        self.get(&[group, name, id.as_str()], &Form::new()).await
    }

    /// Lets nobody pay at it any more.
    pub async fn expire_checkout(
        &self,
        id: &CheckoutId,
        key: &IdempotencyKey,
    ) -> Result<Checkout, StripeError> {
        let [group, name] = PATH;
        let path = [group, name, id.as_str(), "expire"];
        self.post(&path, &Form::new(), key).await
    }
}
