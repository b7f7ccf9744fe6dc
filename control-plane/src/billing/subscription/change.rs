//! What Stripe says becomes a row, in the caller's transaction.

use chrono::{DateTime, TimeDelta, Utc};
use diesel_async::AsyncPgConnection;
use serde_json::{Value, json};
use shared::ids::UserId;
use uuid::Uuid;

use super::machine::{News, Policy, Seen, Status, Subscription, entitles, fold, superseded};
use super::reference::Reference;
use super::store::{self, Sealed, Stored, free};
use crate::accounts::{self, Email};
use crate::app::AppState;
use crate::audit::{self, Action, Actor, Event, Subject};
use crate::config::BillingConfig;
use crate::error::{ApiError, Code};
use crate::mail::{self, Letter};
use crate::tunnels::{self, LimitsChanged};

/// What has to be told after the commit.
#[derive(Debug, Default)]
#[must_use = "nodes and clients learn of it by `signal`"]
pub struct Applied {
    limits: LimitsChanged,
    has_letter: bool,
    /// The row is not what it was.
    pub is_changed: bool,
    /// Another subscription of the person's runs; this one gives nothing, and costs money.
    pub is_superseded: bool,
    /// It runs in the place of another one that Stripe has, and that costs money yet.
    pub has_superseded: bool,
}

impl Applied {
    /// Tells the nodes and wakes the postman, after the commit. Without it they find it by themselves,
    /// later.
    pub fn signal(self, state: &AppState) {
        tunnels::signal_limits(state, self.limits);
        if self.has_letter {
            state.jobs().ring();
        }
    }
}

/// What the operator wants, as it is configured.
#[must_use]
pub fn policy(config: &BillingConfig) -> Policy {
    Policy {
        grace: TimeDelta::from_std(config.past_due_grace).unwrap_or(TimeDelta::MAX),
        renewal_slack: config.renewal_slack(),
        past_due_mbps: config.past_due_mbps,
    }
}

/// Folds what Stripe says of a person's subscription into its row. Call it in a transaction; hand the
/// result to [`Applied::signal`] after the commit.
///
/// Of a person who is gone, nothing is kept. `INTERNAL_ERROR` where the plan is unknown or the
/// subscription is somebody else's.
pub async fn apply(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    user: UserId,
    reference: &Reference<'_>,
    seen: &Seen,
    now: DateTime<Utc>,
) -> Result<Applied, ApiError> {
    let Some(email) = accounts::hold(connection, user).await? else {
        return Ok(Applied::default());
    };
    let related = store::related(connection, user, reference.hashes()).await?;
    let is_it = |stored: &&Stored| {
        let hash = stored.hash.as_ref();
        hash.is_some_and(|hash| reference.hashes().contains(hash))
    };
    let current = related.iter().find(is_it);
    let other = related.iter().find(|stored| !is_it(stored));
    if current.is_some_and(|stored| stored.user != user) {
        return Err(ApiError::internal("a subscription of somebody else"));
    }
    let policy = policy(&state.config().billing);
    let transition = fold(current.map(|it| &it.subscription), seen, &policy, now);
    let Some(mut next) = transition.next else {
        return Ok(Applied::default());
    };
    let hash = reference
        .hash()
        .ok_or_else(|| ApiError::internal("a reference without a hash"))?;
    let mut change = Change {
        state,
        connection,
        user,
        email,
        now,
        applied: Applied::default(),
    };
    let mut news = transition.news;
    if next.status != Status::Canceled
        && let Some(other) = other
    {
        if gives_way(&next, hash, other, now) {
            next = superseded(&next, now);
            if let Some(current) = current.filter(|stored| !stored.is_running()) {
                next.access_until = current.subscription.access_until;
                next.lapsed_at = current.subscription.lapsed_at;
            }
            news = None;
            change.applied.is_superseded = true;
        } else {
            change.give_way(other).await?;
        }
    }
    let id = match current {
        Some(stored) => stored.id,
        None => Uuid::now_v7(),
    };
    change.write(current, id, &next, reference, hash).await?;
    if next.status == Status::Canceled && other.is_none() {
        change.fall_back().await?;
    }
    change.conclude(current, &next, news).await
}

/// Whether a subscription gives way to another that runs. What is not billed always does.
fn gives_way(next: &Subscription, hash: &[u8], other: &Stored, now: DateTime<Utc>) -> bool {
    let Some(other_hash) = &other.hash else {
        return false;
    };
    let rank = |subscription: &Subscription| (entitles(subscription, now), subscription.started_at);
    (rank(next), hash) < (rank(&other.subscription), other_hash.as_slice())
}

/// One change of a person's subscription, whose row is held.
pub(super) struct Change<'a> {
    pub(super) state: &'a AppState,
    pub(super) connection: &'a mut AsyncPgConnection,
    pub(super) user: UserId,
    pub(super) email: Email,
    pub(super) now: DateTime<Utc>,
    pub(super) applied: Applied,
}

impl Change<'_> {
    async fn write(
        &mut self,
        current: Option<&Stored>,
        id: Uuid,
        next: &Subscription,
        reference: &Reference<'_>,
        hash: &[u8],
    ) -> Result<(), ApiError> {
        let is_known = if let Some(current) = current {
            let is_same = current.subscription == *next && current.hash.as_deref() == Some(hash);
            is_same || store::update(self.connection, id, next, Some(hash)).await?
        } else {
            let sealed = Sealed {
                hash,
                id: reference.seal(self.state.keys(), id)?,
            };
            store::insert(self.connection, id, self.user, next, Some(sealed)).await?
        };
        if is_known {
            Ok(())
        } else {
            Err(ApiError::internal("a subscription to a plan that is none"))
        }
    }

    /// The running one that is not this one ends here, whatever it is at Stripe.
    async fn give_way(&mut self, other: &Stored) -> Result<(), ApiError> {
        self.applied.is_changed = true;
        let ended = superseded(&other.subscription, self.now);
        store::update(self.connection, other.id, &ended, None).await?;
        if other.hash.is_some() {
            self.applied.has_superseded = true;
            tracing::warn!(user = %self.user, subscription = %other.id, "billing.two_subscriptions");
        }
        Ok(())
    }

    /// Nobody is without a plan.
    pub(super) async fn fall_back(&mut self) -> Result<(), ApiError> {
        let free = free(self.now);
        if store::insert(self.connection, Uuid::now_v7(), self.user, &free, None).await? {
            Ok(())
        } else {
            Err(Code::Internal.into())
        }
    }

    /// The audit row, the letter and the limits of what is live.
    pub(super) async fn conclude(
        mut self,
        current: Option<&Stored>,
        next: &Subscription,
        news: Option<News>,
    ) -> Result<Applied, ApiError> {
        let before = current.map(|stored| &stored.subscription);
        if before == Some(next) {
            return Ok(self.applied);
        }
        self.applied.is_changed = true;
        let event = Event::new(Action::ChangeSubscription, Actor::System)
            .on(Subject::User(self.user))
            .change(before.map_or(Value::Null, told), told(next));
        audit::record(self.connection, &event).await?;
        if let Some(news) = news {
            let (keys, letter) = (self.state.keys(), letter(news));
            mail::post(self.connection, keys, &self.email, &letter).await?;
            self.applied.has_letter = true;
        }
        self.applied.limits = tunnels::limits_changed(self.connection, self.user).await?;
        Ok(self.applied)
    }
}

const fn letter(news: News) -> Letter {
    match news {
        News::PaymentFailed { until } => Letter::PaymentFailed { until },
        News::GraceEnded => Letter::GraceEnded,
        News::Ended => Letter::SubscriptionEnded,
    }
}

/// As the log has it.
fn told(subscription: &Subscription) -> Value {
    json!({
        "plan": subscription.plan,
        "status": subscription.status.as_str(),
        "end_date": subscription.period_end,
        "cancel_at_period_end": subscription.cancel_at_period_end,
        "access_until": subscription.access_until,
    })
}
