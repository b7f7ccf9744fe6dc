//! Who somebody is at Stripe. A person is one customer, made when there is first something to pay.

mod closing;
mod store;

use diesel_async::AsyncPgConnection;
use shared::ids::UserId;

use super::reference::{CustomerId, open};
use super::stripe::IdempotencyKey;
use crate::app::AppState;
use crate::error::ApiError;

pub use closing::{ClosingJobs, close};
pub use store::{
    Owner, SEALED_CUSTOMERS, count_payment_reading, count_reading, count_whole_reading, find,
    find_payer, owners, payer,
};

/// The person's id at Stripe, if there is one.
pub async fn of_user(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> Result<Option<CustomerId>, ApiError> {
    let Some(row) = store::of_user(connection, user).await? else {
        return Ok(None);
    };
    let id = open(state.keys(), store::COLUMN, row.id, &row.sealed)?;
    Ok(Some(id))
}

/// The person's id at Stripe, which is made where there is none. Of two who make it at a time both have the same.
/// Call it outside of transactions.
pub async fn ensure(state: &AppState, user: UserId, email: &str) -> Result<CustomerId, ApiError> {
    let known = {
        let mut connection = state.db().get().await?;
        of_user(state, &mut connection, user).await?
    };
    if let Some(known) = known {
        return Ok(known);
    }
    // With another address it is another call, which Stripe would refuse under the same key.
    let key = IdempotencyKey::of(user.0, "customer").with(email);
    let stripe = &state.payments()?.stripe;
    let made = stripe.create_customer(user, email, &key).await?;
    let mut connection = state.db().get().await?;
    store::put(&mut connection, state.keys(), user, &made.id).await?;
    // Whoever was first stays.
    let kept = of_user(state, &mut connection, user).await?;
    kept.ok_or_else(|| ApiError::internal("a customer was not kept"))
}
