//! Seeing a refund through: Stripe is called, and what came of it is read.

use diesel_async::AsyncConnection;
use serde_json::json;
use uuid::Uuid;

use super::refund::{Refund, RefundStatus};
use super::store;
use crate::app::AppState;
use crate::audit::{self, Action, Actor, Subject};
use crate::billing::invoices;
use crate::billing::reference::IntentId;
use crate::billing::stripe::refunds::NewRefund;
use crate::billing::stripe::{IdempotencyKey, StripeError};
use crate::billing::sync::{Mode, SyncError};
use crate::error::ApiError;

/// Sees a refund through, from wherever it stands. Any number may at a time.
///
/// Stripe knows a key for a day. After that it is our row's id beside the refund that shows that it was made:
/// so it is looked for before it is made, unless nobody can have made it.
pub async fn carry_out(state: &AppState, id: Uuid, is_new: bool) -> Result<(), SyncError> {
    let Some((refund, intent)) = load(state, id).await? else {
        return Ok(());
    };
    if refund.status == RefundStatus::Requested {
        if !is_new {
            invoices::intent(state, &intent, Mode::Write).await?;
        }
        make(state, id, &intent).await?;
    }
    invoices::intent(state, &intent, Mode::Write)
        .await
        .map(drop)
}

/// The refund and what paid. None where there is nothing to give back from.
async fn load(state: &AppState, id: Uuid) -> Result<Option<(Refund, IntentId)>, SyncError> {
    let mut connection = state.db().get().await.map_err(ApiError::from)?;
    let Some(refund) = store::find(&mut connection, id).await? else {
        return Ok(None);
    };
    let Some(payment) = invoices::find(&mut connection, refund.payment).await? else {
        return Ok(None);
    };
    let intent = payment.intent(state.keys())?;
    Ok(intent.map(|intent| (refund, intent)))
}

/// Calls Stripe, if it is still to be called.
async fn make(state: &AppState, id: Uuid, intent: &IntentId) -> Result<(), SyncError> {
    let refund = {
        let mut connection = state.db().get().await.map_err(ApiError::from)?;
        store::find(&mut connection, id).await?
    };
    let open = refund.filter(|it| it.status == RefundStatus::Requested);
    let Some(refund) = open else {
        return Ok(());
    };
    let new = NewRefund {
        payment: intent,
        amount: refund.amount.minor,
        row: id,
    };
    let key = IdempotencyKey::of(id, "refund");
    match state.payments()?.stripe.create_refund(&new, &key).await {
        Ok(made) => {
            let mut connection = state.db().get().await.map_err(ApiError::from)?;
            store::fold(&mut connection, state.keys(), refund.payment, &made).await?;
            Ok(())
        }
        Err(error) if is_final(&error) => {
            tracing::warn!(refund = %id, %error, "billing.refund_refused");
            Ok(fail(state, &refund).await?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether it is this refund that Stripe will never make, and not our key or our account.
const fn is_final(error: &StripeError) -> bool {
    matches!(
        error,
        StripeError::Refused {
            status: 400 | 402 | 404,
            ..
        }
    )
}

async fn fail(state: &AppState, refund: &Refund) -> Result<(), ApiError> {
    let mut connection = state.db().get().await?;
    connection
        .transaction(async |connection| {
            if store::fail(connection, refund.id).await? {
                let event = audit::Event::new(Action::FailRefund, Actor::System)
                    .on(Subject::Payment(refund.payment))
                    .change(
                        json!({ "refund": refund.id, "status": refund.status.as_str() }),
                        json!({ "refund": refund.id, "status": RefundStatus::Failed.as_str() }),
                    );
                audit::record(connection, &event).await?;
            }
            Ok::<_, ApiError>(())
        })
        .await
}
