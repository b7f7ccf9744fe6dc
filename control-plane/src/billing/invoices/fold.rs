//! Reading a payment from Stripe and writing it, by the rules of `billing::sync`.

use diesel::result::Error;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use shared::ids::UserId;
use uuid::Uuid;

use super::payment::{Payment, PaymentStatus, Seen};
use super::reading::Reading;
use super::{end, store};
use crate::app::AppState;
use crate::billing::customers::{self, Owner};
use crate::billing::prices::Prices;
use crate::billing::reference::{CustomerId, IntentId, InvoiceId, fingerprints};
use crate::billing::refunds;
use crate::billing::subscription::{self, AtStripe};
use crate::billing::sync::{Mode, SyncError, TRIES};
use crate::error::ApiError;

/// What became of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// It is nobody's here.
    Foreign,
    Same,
    Changed,
}

impl Folded {
    const fn changed(is_changed: bool) -> Self {
        if is_changed {
            Self::Changed
        } else {
            Self::Same
        }
    }
}

/// One invoice. `customer` is whose it probably is, which saves a reading.
pub async fn invoice(
    state: &AppState,
    id: &InvoiceId,
    customer: Option<&CustomerId>,
    mode: Mode,
) -> Result<Folded, SyncError> {
    let stripe = &state.payments()?.stripe;
    let mut owner = owner(state, id, customer).await?;
    for _ in 0..TRIES {
        let read = match Reading::of(stripe, id).await {
            Err(error) if error.is_missing() => return gone(state, id, mode).await,
            read => read?,
        };
        let Some(customer) = read.invoice.customer.as_ref() else {
            return Ok(Folded::Foreign);
        };
        let now = payer(state, &customer.id).await?;
        match (owner, now) {
            (_, None) => return Ok(Folded::Foreign),
            (Some(before), Some(now)) if before.user == now.user => {
                let written = write(state, before, &read, mode).await?;
                if let Some(written) = written {
                    return conclude(state, written, mode).await;
                }
            }
            _ => {}
        }
        // As it was before the next reading.
        owner = payer(state, &customer.id).await?;
    }
    Err(SyncError::Overtaken)
}

/// What this paid, if it paid an invoice.
pub async fn intent(state: &AppState, id: &IntentId, mode: Mode) -> Result<Folded, SyncError> {
    let known = {
        let mut connection = state.db().get().await.map_err(ApiError::from)?;
        store::by_intent(&mut connection, state.keys(), id).await?
    };
    let known = match known {
        Some(invoice) => Some(invoice),
        None => {
            let read = state.payments()?.stripe.intent(id).await?;
            read.invoice.map(|invoice| invoice.id)
        }
    };
    match known {
        Some(id) => invoice(state, &id, None, mode).await,
        None => Ok(Folded::Foreign),
    }
}

/// Stripe does not know the invoice. What was paid stays; what was not will not be.
pub async fn gone(state: &AppState, id: &InvoiceId, mode: Mode) -> Result<Folded, SyncError> {
    let mut connection = state.db().get().await.map_err(ApiError::from)?;
    let hashes = fingerprints(state.keys(), id);
    let known = store::by_invoices(&mut connection, &hashes).await?;
    let is_open = |status| matches!(status, PaymentStatus::Open | PaymentStatus::Failed);
    match known.first() {
        None => Ok(Folded::Foreign),
        Some(stored) if !is_open(stored.payment.seen.status) => Ok(Folded::Same),
        Some(stored) => {
            if mode == Mode::Write {
                store::void(&mut connection, stored.id).await?;
            }
            Ok(Folded::Changed)
        }
    }
}

async fn owner(
    state: &AppState,
    id: &InvoiceId,
    customer: Option<&CustomerId>,
) -> Result<Option<Owner>, SyncError> {
    if let Some(customer) = customer {
        return payer(state, customer).await;
    }
    let mut connection = state.db().get().await.map_err(ApiError::from)?;
    let hashes = fingerprints(state.keys(), id);
    let known = store::by_invoices(&mut connection, &hashes).await?;
    match known.first() {
        Some(stored) => Ok(customers::payer(&mut connection, stored.payment.user).await?),
        None => Ok(None),
    }
}

async fn payer(state: &AppState, customer: &CustomerId) -> Result<Option<Owner>, SyncError> {
    let mut connection = state.db().get().await.map_err(ApiError::from)?;
    Ok(customers::find_payer(&mut connection, state.keys(), customer).await?)
}

struct Written {
    is_changed: bool,
    /// A subscription for whose period nothing is left of what was paid.
    given_back: Option<AtStripe>,
}

/// None where something newer was written since the reading was begun.
async fn write(
    state: &AppState,
    owner: Owner,
    read: &Reading,
    mode: Mode,
) -> Result<Option<Written>, SyncError> {
    let Some(seen) = Seen::of(&read.invoice) else {
        return Ok(Some(Written {
            is_changed: false,
            given_back: None,
        }));
    };
    let mut connection = state.db().get().await.map_err(ApiError::from)?;
    let mut outcome = None;
    let result = connection
        .transaction(async |connection| {
            if customers::count_payment_reading(connection, owner).await? {
                let folding = fold(state, connection, owner.user, read, seen);
                outcome = Some(Box::pin(folding).await?);
            }
            match mode {
                Mode::Write => Ok::<_, SyncError>(()),
                Mode::Look => Err(Error::RollbackTransaction.into()),
            }
        })
        .await;
    match mode {
        Mode::Look if outcome.is_some() => {}
        _ => result?,
    }
    Ok(outcome)
}

async fn fold(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    user: UserId,
    read: &Reading,
    seen: Seen,
) -> Result<Written, SyncError> {
    let keys = state.keys();
    let known = store::lock_invoice(connection, keys, &read.invoice.id).await?;
    if known.as_ref().is_some_and(|it| it.payment.user != user) {
        return Err(ApiError::internal("a payment of somebody else").into());
    }
    let plan = match read.invoice.price() {
        Some(price) => {
            let prices = Prices::load(state, connection).await?;
            prices.plan_of(price).map(str::to_owned)
        }
        None => None,
    };
    let subscription = match read.invoice.subscription() {
        Some(id) => subscription::row_of(connection, &fingerprints(keys, id)).await?,
        None => None,
    };
    let payment = Payment {
        user,
        subscription,
        plan,
        seen,
        refunded: read.refunded(),
    };
    let id = known.as_ref().map_or_else(Uuid::now_v7, |it| it.id);
    let mut is_changed = known.as_ref().is_none_or(|it| it.payment != payment);
    is_changed |= store::put(connection, keys, id, known.as_ref(), &payment, read).await?;
    for refund in &read.refunds {
        is_changed |= refunds::fold(connection, keys, id, refund).await?;
    }
    Ok(Written {
        is_changed,
        given_back: end::given_back(state, connection, &payment).await?,
    })
}

async fn conclude(state: &AppState, written: Written, mode: Mode) -> Result<Folded, SyncError> {
    if let Some(billed) = &written.given_back
        && mode == Mode::Write
    {
        Box::pin(end::end(state, billed)).await?;
    }
    Ok(Folded::changed(written.is_changed))
}
