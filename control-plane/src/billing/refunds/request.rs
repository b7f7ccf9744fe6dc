//! Asking for a refund: it is checked, promised and recorded in one commit, before anybody calls Stripe.

use chrono::Utc;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use serde_json::{Value, json};
use uuid::Uuid;

use super::refund::{Refund, RefundStatus};
use super::rules::{By, granted};
use super::{job, store};
use crate::app::AppState;
use crate::audit::{self, Action, Actor, Subject};
use crate::billing::invoices::{self, Seen, Stored};
use crate::billing::money::Money;
use crate::error::{ApiError, Code};
use crate::http::RequestId;
use crate::http::permission::{OwnOr, WriteBilling};
use crate::jobs;

pub(super) struct Asked<'a> {
    pub(super) payment: Uuid,
    /// A decimal as it was written; none for all that is left.
    pub(super) amount: Option<String>,
    pub(super) reason: Option<String>,
    /// The request again is the same refund.
    pub(super) key: Option<String>,
    pub(super) by: &'a OwnOr<WriteBilling>,
    pub(super) request: &'a RequestId,
}

pub(super) enum Promised {
    New(Refund),
    /// It was asked for before.
    Known(Refund),
}

/// Promises a refund. Of several at a time those are that the payment has enough for.
pub(super) async fn promise(state: &AppState, asked: &Asked<'_>) -> Result<Promised, ApiError> {
    let mut connection = state.db().get().await?;
    let promised = connection
        .transaction(async |connection| {
            let stored = invoices::lock(connection, asked.payment).await?;
            let stored = stored.filter(|it| asked.by.sees(it.payment.user));
            let stored = stored.ok_or(Code::PaymentNotFound)?;
            let amount = asked.minor(&stored.payment.seen)?;
            if let Some(key) = &asked.key
                && let Some(known) = store::by_key(connection, stored.id, key).await?
            {
                return asked.again(known, amount).map(Promised::Known);
            }
            let refund = asked.refund(state, connection, &stored, amount).await?;
            store::insert(connection, &refund, asked.key.as_deref()).await?;
            jobs::enqueue(connection, state.keys(), job::KIND, &refund.id).await?;
            record(connection, asked, &refund).await?;
            Ok::<_, ApiError>(Promised::New(refund))
        })
        .await?;
    Ok(promised)
}

impl Asked<'_> {
    /// What is asked for, in the payment's smallest unit.
    fn minor(&self, payment: &Seen) -> Result<Option<i64>, ApiError> {
        let Some(amount) = &self.amount else {
            return Ok(None);
        };
        let money = Money::parse(amount, payment.amount.currency);
        let money = money.map_err(|error| ApiError::invalid("amount", error.sentence()))?;
        if money.minor == 0 {
            return Err(ApiError::invalid("amount", "Must be more than zero"));
        }
        Ok(Some(money.minor))
    }

    fn again(&self, known: Refund, amount: Option<i64>) -> Result<Refund, ApiError> {
        let is_same = amount.is_none_or(|minor| minor == known.amount.minor);
        if is_same && known.requested_by == self.person() {
            return Ok(known);
        }
        Err(ApiError::new(Code::Conflict)
            .with_message("This Idempotency-Key was used with a different request"))
    }

    fn person(&self) -> Option<shared::ids::UserId> {
        match self.by.actor() {
            Actor::User(user) => Some(user),
            _ => None,
        }
    }

    async fn refund(
        &self,
        state: &AppState,
        connection: &mut AsyncPgConnection,
        stored: &Stored,
        amount: Option<i64>,
    ) -> Result<Refund, ApiError> {
        let of_it = store_of(connection, stored.id).await?;
        let standing: i64 = of_it.iter().map(|it| it.amount.minor).sum();
        let by = match self.by {
            OwnOr::Own(_) => By::Payer,
            OwnOr::Allowed(_) => By::Operator,
        };
        let (now, window) = (Utc::now(), state.config().billing.refund_window);
        let seen = &stored.payment.seen;
        // What Stripe gave back may be known before its rows are.
        let standing = standing.max(stored.payment.refunded);
        let amount = granted(seen, standing, amount, by, window, now)?;
        if stored.intent(state.keys())?.is_none() {
            return Err(Code::PaymentNotRefundable.into());
        }
        Ok(Refund {
            id: Uuid::now_v7(),
            payment: stored.id,
            amount,
            reason: self.reason.clone(),
            requested_by: self.person(),
            status: RefundStatus::Requested,
            created_at: now,
            updated_at: now,
        })
    }
}

/// What goes back of a payment, or may.
async fn store_of(
    connection: &mut AsyncPgConnection,
    payment: Uuid,
) -> Result<Vec<Refund>, ApiError> {
    let mut all = store::of_payments(connection, &[payment]).await?;
    all.retain(|refund| refund.status != RefundStatus::Failed);
    Ok(all)
}

async fn record(
    connection: &mut AsyncPgConnection,
    asked: &Asked<'_>,
    refund: &Refund,
) -> Result<(), ApiError> {
    let told = json!({
        "refund": refund.id,
        "amount": refund.amount.decimal(),
        "currency": refund.amount.currency.as_str(),
    });
    let event = audit::Event::new(Action::RequestRefund, asked.by.actor())
        .on(Subject::Payment(refund.payment))
        .change(Value::Null, told)
        .in_request(asked.request);
    audit::record(connection, &event).await?;
    Ok(())
}
