//! What somebody could still pay who is gone.

use diesel_async::AsyncPgConnection;
use serde::{Deserialize, Serialize};
use shared::ids::UserId;

use super::give_up::{close_checkout, close_subscription};
use super::order::Order;
use super::store;
use crate::app::AppState;
use crate::billing::reference::{CheckoutId, SubscriptionId};
use crate::billing::stripe::Stripe;
use crate::error::ApiError;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unpaid {
    Checkout(CheckoutId),
    Subscription(SubscriptionId),
}

/// Of the person's open purchase.
pub async fn unpaid(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> Result<Option<Unpaid>, ApiError> {
    let open = store::open(connection, state.keys(), user).await?;
    Ok(open.and_then(|purchase| {
        let made = purchase.made?;
        match purchase.order {
            Order::Checkout { .. } => made.try_into().ok().map(Unpaid::Checkout),
            Order::Subscription { .. } => made.try_into().ok().map(Unpaid::Subscription),
            Order::Change { .. } => None,
        }
    }))
}

impl Unpaid {
    /// Lets nobody pay it. What was paid already stays so.
    pub async fn close(&self, stripe: &Stripe) -> Result<(), ApiError> {
        let closed = match self {
            Self::Checkout(id) => close_checkout(stripe, id).await,
            Self::Subscription(id) => close_subscription(stripe, id).await,
        };
        closed.map(drop)
    }
}
