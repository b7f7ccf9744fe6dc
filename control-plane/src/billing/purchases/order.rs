//! What is asked of Stripe for a purchase.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use shared::ids::UserId;
use uuid::Uuid;

use crate::billing::reference::{ItemId, MethodId, PriceId, SubscriptionId};

/// Stripe knows a key for a day at least: later the same question may be another one.
const KEY_LIFE: TimeDelta = TimeDelta::hours(22);

/// Word for word, so that it can be asked again under the same key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Order {
    /// At Stripe's own page.
    Checkout {
        price: PriceId,
        trial_days: u32,
        success_url: String,
        cancel_url: String,
    },
    /// With a card that the app asks for, or that is saved.
    Subscription {
        price: PriceId,
        trial_days: u32,
        /// What pays after a trial.
        method: Option<MethodId>,
    },
    /// Of the plan that a subscription is for.
    Change {
        subscription: SubscriptionId,
        item: ItemId,
        price: PriceId,
    },
}

impl Order {
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Checkout { .. } => "checkout",
            Self::Subscription { .. } => "subscription",
            Self::Change { .. } => "change",
        }
    }

    /// Whether who wants this is served by that: a first payment may be made with any card.
    pub(super) fn is_served_by(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Subscription {
                    price, trial_days, ..
                },
                Self::Subscription {
                    price: other_price,
                    trial_days: other_days,
                    ..
                },
            ) => price == other_price && trial_days == other_days,
            _ => self == other,
        }
    }
}

/// A purchase that is open.
#[derive(Debug, Clone)]
pub(super) struct Purchase {
    pub(super) id: Uuid,
    pub(super) user: UserId,
    pub(super) plan: String,
    pub(super) order: Order,
    /// The id of what Stripe made of it, once that is known: of a session, or of a subscription.
    pub(super) made: Option<String>,
    pub(super) created_at: DateTime<Utc>,
}

impl Purchase {
    /// Whether Stripe cannot be asked again for what it made. It has expired there by now, unless it was paid.
    pub(super) fn is_stale(&self, now: DateTime<Utc>) -> bool {
        self.made.is_none() && self.created_at + KEY_LIFE < now
    }
}

/// What became of a purchase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Open,
    Done,
    GivenUp,
}

impl Outcome {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::GivenUp => "given_up",
        }
    }
}
