//! Reading from Stripe how somebody's subscriptions stand, and writing it.
//!
//! Whatever says that something may have changed leads here: an event, a return from checkout, a call of ours,
//! the nightly comparison. A reading is written only if none was written since it began, so that of two at a
//! time the later one stays, whichever arrives first; what is overtaken is read again.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use shared::ids::UserId;

use super::customers::{self, Owner};
use super::prices::Prices;
use super::reference::{CustomerId, SubscriptionId, fingerprints};
use super::stripe::subscriptions::{Status, Subscription};
use super::stripe::{Stripe, StripeError};
use super::subscription::{self, Applied, Reference, Seen, StripeStatus};
use crate::app::AppState;
use crate::error::{ApiError, Code};

/// Readings that may be overtaken in a row: more than a replica makes at a time, and one of them always stays.
pub(super) const TRIES: usize = 10;

#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error(transparent)]
    Stripe(#[from] StripeError),
    #[error(transparent)]
    Here(#[from] ApiError),
    #[error("the subscription's price is no plan's")]
    UnknownPrice,
    #[error("the subscription has no {0}")]
    Lacks(&'static str),
    #[error("the subscription has a status that this build does not know")]
    UnknownStatus,
    #[error("other readings overtook this one again and again")]
    Overtaken,
}

impl SyncError {
    /// Whether it may work later, without anybody changing anything.
    #[must_use]
    pub const fn is_recoverable(&self) -> bool {
        match self {
            Self::Stripe(error) => error.is_recoverable(),
            Self::Here(_) | Self::Overtaken => true,
            Self::UnknownPrice | Self::Lacks(_) | Self::UnknownStatus => false,
        }
    }
}

impl From<SyncError> for ApiError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Stripe(error) => error.into(),
            SyncError::Here(error) => error,
            error @ SyncError::Overtaken => Self::new(Code::PaymentsUnavailable).with_source(error),
            error => Self::internal(error),
        }
    }
}

impl From<diesel::result::Error> for SyncError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Here(error.into())
    }
}

/// What is done with a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Write,
    /// It is only said whether it would change something.
    Look,
}

/// What became of a reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Synced {
    /// It is nobody's here.
    Foreign,
    Written {
        user: UserId,
        /// Those that give nothing because another one of the person runs: they cost money.
        superseded: Vec<SubscriptionId>,
        /// Another one gave way to what was read, and costs money yet.
        has_superseded: bool,
    },
}

/// One subscription. `customer` is whose it probably is, which saves a reading.
pub async fn subscription(
    state: &AppState,
    id: &SubscriptionId,
    customer: Option<&CustomerId>,
) -> Result<Synced, SyncError> {
    let stripe = &state.payments()?.stripe;
    let mut customer = customer.cloned();
    for _ in 0..TRIES {
        // Before it is read: what is written meanwhile may be newer.
        let owner = match &customer {
            Some(customer) => owner(state, customer).await?,
            None => None,
        };
        let read = stripe.subscription(id).await?;
        let whose = Some(&read.customer.id);
        let Some(owner) = owner.filter(|_| customer.as_ref() == whose) else {
            if customer.as_ref() == whose {
                return Ok(Synced::Foreign);
            }
            customer = whose.cloned();
            continue;
        };
        if let Some(synced) = write(state, owner, &[read], false).await? {
            return Ok(synced);
        }
    }
    Err(SyncError::Overtaken)
}

/// All subscriptions of a customer.
pub async fn customer(state: &AppState, customer: &CustomerId) -> Result<Synced, SyncError> {
    let stripe = &state.payments()?.stripe;
    let mut began = None;
    for _ in 0..TRIES {
        let Some(owner) = owner(state, customer).await? else {
            return Ok(Synced::Foreign);
        };
        // Somebody who began after us wrote all of it, and does what follows.
        if owner.whole_since > *began.get_or_insert(owner.readings) {
            return Ok(Synced::Written {
                user: owner.user,
                superseded: Vec::new(),
                has_superseded: false,
            });
        }
        let read = all_of(stripe, customer).await?;
        if let Some(synced) = write(state, owner, &read, true).await? {
            return Ok(synced);
        }
    }
    Err(SyncError::Overtaken)
}

/// All subscriptions of a person. Foreign where they never paid for anything.
pub async fn person(state: &AppState, user: UserId) -> Result<Synced, SyncError> {
    let id = {
        let mut connection = state.db().get().await.map_err(ApiError::from)?;
        customers::of_user(state, &mut connection, user).await?
    };
    match id {
        Some(id) => customer(state, &id).await,
        None => Ok(Synced::Foreign),
    }
}

pub(super) async fn owner(
    state: &AppState,
    customer: &CustomerId,
) -> Result<Option<Owner>, SyncError> {
    let mut connection = state.db().get().await.map_err(ApiError::from)?;
    Ok(customers::find(&mut connection, state.keys(), customer).await?)
}

/// The oldest first, as they came about.
async fn all_of(stripe: &Stripe, customer: &CustomerId) -> Result<Vec<Subscription>, StripeError> {
    let mut all: Vec<Subscription> = stripe.subscriptions(Some(customer)).all().await?;
    all.reverse();
    Ok(all)
}

/// Writes what was read, unless something newer was written since it was begun.
async fn write(
    state: &AppState,
    owner: Owner,
    read: &[Subscription],
    is_all: bool,
) -> Result<Option<Synced>, SyncError> {
    let now = Utc::now();
    let mut connection = state.db().get().await.map_err(ApiError::from)?;
    let written = connection
        .transaction(async |connection| {
            let is_latest = if is_all {
                customers::count_whole_reading(connection, owner).await?
            } else {
                customers::count_reading(connection, owner).await?
            };
            if !is_latest {
                return Ok(None);
            }
            let mut applied = Vec::with_capacity(read.len());
            for subscription in read {
                let one = Box::pin(apply(state, connection, owner.user, subscription, now));
                applied.push(one.await?);
            }
            Ok::<_, SyncError>(Some(applied))
        })
        .await?;
    drop(connection);
    let Some(applied) = written else {
        return Ok(None);
    };
    let mut superseded = Vec::new();
    let has_superseded = applied.iter().any(|it| it.has_superseded);
    for (subscription, applied) in read.iter().zip(applied) {
        if applied.is_superseded {
            superseded.push(subscription.id.clone());
        }
        applied.signal(state);
    }
    Ok(Some(Synced::Written {
        user: owner.user,
        superseded,
        has_superseded,
    }))
}

pub(super) async fn apply(
    state: &AppState,
    connection: &mut diesel_async::AsyncPgConnection,
    user: UserId,
    read: &Subscription,
    now: DateTime<Utc>,
) -> Result<Applied, SyncError> {
    let prices = Prices::load(state, connection).await?;
    let seen = seen(read, &prices)?;
    let hashes = fingerprints(state.keys(), &read.id);
    let reference = Reference::new(read.id.as_str(), hashes);
    Ok(subscription::apply(state, connection, user, &reference, &seen, now).await?)
}

/// What Stripe says, in our words.
pub(super) fn seen(read: &Subscription, prices: &Prices) -> Result<Seen, SyncError> {
    let lacks = SyncError::Lacks;
    let price = read.price().ok_or(lacks("price"))?;
    let plan = prices.plan_of(price).ok_or(SyncError::UnknownPrice)?;
    Ok(Seen {
        plan: plan.to_owned(),
        status: status(read.status).ok_or(SyncError::UnknownStatus)?,
        started_at: read.started_at().ok_or(lacks("start"))?,
        period_end: read.period_end().ok_or(lacks("period"))?,
        trial_end: read.trial_end(),
        cancel_at_period_end: read.ends_with_period(),
        ended_at: read.ended_at(),
    })
}

const fn status(status: Status) -> Option<StripeStatus> {
    Some(match status {
        Status::Incomplete => StripeStatus::Incomplete,
        Status::IncompleteExpired => StripeStatus::IncompleteExpired,
        Status::Trialing => StripeStatus::Trialing,
        Status::Active => StripeStatus::Active,
        Status::PastDue => StripeStatus::PastDue,
        Status::Unpaid => StripeStatus::Unpaid,
        Status::Paused => StripeStatus::Paused,
        Status::Canceled => StripeStatus::Canceled,
        Status::Unknown => return None,
    })
}
