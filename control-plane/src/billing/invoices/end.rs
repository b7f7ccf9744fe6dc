//! What was paid for ends when nothing is left of the payment.

use diesel_async::AsyncPgConnection;

use super::payment::Payment;
use super::store;
use crate::app::AppState;
use crate::billing::subscription::{self, AtStripe};
use crate::billing::sync::{self, Mode, SyncError};
use crate::error::ApiError;

/// The payment's subscription, if it runs and all that was paid for its period went back, and the operator wants
/// it to end then.
pub(super) async fn given_back(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    payment: &Payment,
) -> Result<Option<AtStripe>, ApiError> {
    let minor = payment.seen.amount.minor;
    let is_whole = minor > 0 && payment.refunded >= minor;
    let (Some(id), Some((_, period_end))) = (payment.subscription, payment.seen.period) else {
        return Ok(None);
    };
    if !is_whole || !state.config().billing.refund_ends_access {
        return Ok(None);
    }
    let billed = subscription::at_stripe(connection, state.keys(), id).await?;
    let Some(billed) = billed.filter(|it| period_end >= it.period_end) else {
        return Ok(None);
    };
    let is_left = store::is_something_left(connection, id, billed.period_end).await?;
    Ok((!is_left).then_some(billed))
}

/// Ends it at Stripe, and then here. Whoever comes second finds that it has ended.
pub(super) async fn end(state: &AppState, billed: &AtStripe) -> Result<(), SyncError> {
    let canceled = state.payments()?.stripe.cancel_subscription(&billed.id);
    match canceled.await {
        Err(error) if !error.is_missing() => return Err(error.into()),
        _ => tracing::info!(subscription = %billed.row, "billing.ended_by_refund"),
    }
    sync::subscription(state, &billed.id, None).await.map(drop)
}

/// Ends what still runs although nothing is left of this payment. Whether there was something to end.
pub async fn end_given_back(
    state: &AppState,
    payment: &Payment,
    mode: Mode,
) -> Result<bool, SyncError> {
    let billed = {
        let mut connection = state.db().get().await.map_err(ApiError::from)?;
        given_back(state, &mut connection, payment).await?
    };
    let Some(billed) = billed else {
        return Ok(false);
    };
    if mode == Mode::Write {
        end(state, &billed).await?;
    }
    Ok(true)
}
