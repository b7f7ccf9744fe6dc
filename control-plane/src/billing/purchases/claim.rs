//! Whose turn it is: a person's one open purchase.

use chrono::Utc;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use serde_json::{Value, json};
use shared::ids::UserId;

use super::give_up::give_up;
use super::order::{Order, Purchase};
use super::store;
use crate::accounts;
use crate::app::AppState;
use crate::audit::{self, Action, Event};
use crate::billing::subscription;
use crate::error::{ApiError, Code};
use crate::http::RequestId;

/// Others of the same person that may come first, one after the other.
const TRIES: usize = 5;

/// What somebody wants to buy.
#[derive(Debug, Clone)]
pub(super) struct Wish<'a> {
    pub(super) user: UserId,
    /// The plan's id.
    pub(super) plan: &'a str,
    pub(super) order: Order,
    pub(super) request: &'a RequestId,
}

#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) purchase: Purchase,
    /// Stripe has not been asked yet.
    pub(super) is_new: bool,
}

/// The person's purchase of this, open: the one that they began before, or a new one in the place of whatever else
/// they wanted.
pub(super) async fn claim(state: &AppState, wish: &Wish<'_>) -> Result<Claimed, ApiError> {
    for _ in 0..TRIES {
        let claimed = {
            let mut connection = state.db().get().await?;
            connection
                .transaction(async |connection| attempt(state, connection, wish).await)
                .await?
        };
        let purchase = &claimed.purchase;
        let serves = purchase.plan == wish.plan && wish.order.is_served_by(&purchase.order);
        if claimed.is_new || (serves && !purchase.is_stale(Utc::now())) {
            return Ok(claimed);
        }
        give_up(state, purchase).await?;
    }
    Err(ApiError::new(Code::Conflict).with_message("Another purchase of yours goes on"))
}

/// Holds the person's row: nobody else begins a purchase, and no subscription begins to run meanwhile.
async fn attempt(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    wish: &Wish<'_>,
) -> Result<Claimed, ApiError> {
    if accounts::hold(connection, wish.user).await?.is_none() {
        return Err(Code::Unauthorized.into());
    }
    if let Some(purchase) = store::open(connection, state.keys(), wish.user).await? {
        return Ok(Claimed {
            purchase,
            is_new: false,
        });
    }
    check(state, connection, wish).await?;
    let order = &wish.order;
    let purchase = store::insert(connection, state.keys(), wish.user, wish.plan, order).await?;
    let told = json!({ "plan": wish.plan, "kind": order.kind() });
    let event = Event::own(Action::OpenPurchase, wish.user)
        .change(Value::Null, told)
        .in_request(wish.request);
    audit::record(connection, &event).await?;
    Ok(Claimed {
        purchase,
        is_new: true,
    })
}

/// Nobody pays for two subscriptions, and only what runs is changed.
async fn check(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    wish: &Wish<'_>,
) -> Result<(), ApiError> {
    let billed = subscription::billed(state, connection, wish.user).await?;
    match (&wish.order, billed) {
        (Order::Change { subscription, .. }, Some(billed)) if billed.id == *subscription => Ok(()),
        (Order::Change { .. }, _) => Err(Code::NotSubscribed.into()),
        (_, Some(_)) => Err(Code::AlreadySubscribed.into()),
        (_, None) => Ok(()),
    }
}
