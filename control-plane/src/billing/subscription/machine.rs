//! What a subscription becomes when Stripe says how it stands, and when time passes. Pure.
//!
//! - A state follows from what Stripe says now, not from how it came to say so: readings may come late,
//!   twice, out of order or not at all.
//! - The one thing that is remembered is when a grace period ends. No reading prolongs it.
//! - Whoever loses a plan's rights is told once.
//!
//! `docs/subscriptions.md` has the table.

use chrono::{DateTime, TimeDelta, Utc};

/// How a subscription stands at Stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StripeStatus {
    /// Its first payment is not made.
    Incomplete,
    /// It was not made in time: the subscription never began.
    IncompleteExpired,
    Trialing,
    Active,
    /// A renewal was not paid, and Stripe tries again.
    PastDue,
    /// Stripe tries no more, and keeps the subscription.
    Unpaid,
    /// Its trial ended without a way to pay.
    Paused,
    Canceled,
}

/// What Stripe says of a subscription at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The id of our plan.
    pub plan: String,
    pub status: StripeStatus,
    pub started_at: DateTime<Utc>,
    /// The end of the period that runs, paid or not.
    pub period_end: DateTime<Utc>,
    pub trial_end: Option<DateTime<Utc>>,
    pub cancel_at_period_end: bool,
    pub ended_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Active,
    PastDue,
    Canceled,
}

impl Status {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Canceled => "canceled",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::PastDue, Self::Canceled]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

/// A subscription as we keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub plan: String,
    pub status: Status,
    pub started_at: DateTime<Utc>,
    /// None where nothing expires.
    pub period_end: Option<DateTime<Utc>>,
    pub trial_end: Option<DateTime<Utc>>,
    pub cancel_at_period_end: bool,
    /// When the plan's rights end if nothing else happens; none for never.
    pub access_until: Option<DateTime<Utc>>,
    /// A rate that holds beside the plan's.
    pub throttle_mbps: Option<u32>,
    /// When the end of its rights was noticed; none while there are some.
    pub lapsed_at: Option<DateTime<Utc>>,
    /// Whether Stripe has it. One that an operator gave, and the free one, are not billed.
    pub is_billed: bool,
}

impl Subscription {
    /// Whether Stripe will charge it again.
    #[must_use]
    pub fn renews(&self) -> bool {
        self.is_billed && self.status != Status::Canceled && !self.cancel_at_period_end
    }
}

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long a missing payment costs nothing.
    pub grace: TimeDelta,
    /// How long Stripe may take to renew after a period's end.
    pub renewal_slack: TimeDelta,
    /// The rate of whoever has not paid.
    pub past_due_mbps: Option<u32>,
}

/// What the person is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// A payment failed; the plan's rights stay until then.
    PaymentFailed { until: DateTime<Utc> },
    /// It was not made up for.
    GraceEnded,
    /// What was paid for is over.
    Ended,
}

/// A subscription's next state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transition {
    /// None where there is nothing to keep.
    pub next: Option<Subscription>,
    pub news: Option<News>,
}

/// Whether the plan's rights hold. The view `entitlements` says the same.
#[must_use]
pub fn entitles(subscription: &Subscription, now: DateTime<Utc>) -> bool {
    subscription.status != Status::Canceled
        && subscription.access_until.is_none_or(|until| until > now)
}

/// What the subscription is once Stripe said this of it.
#[must_use]
pub fn fold(
    current: Option<&Subscription>,
    seen: &Seen,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Transition {
    let status = match seen.status {
        // It may never begin. What Stripe takes back is taken back here.
        StripeStatus::Incomplete | StripeStatus::IncompleteExpired if current.is_none() => {
            return Transition::default();
        }
        StripeStatus::Incomplete | StripeStatus::IncompleteExpired | StripeStatus::Canceled => {
            Status::Canceled
        }
        StripeStatus::Trialing | StripeStatus::Active => Status::Active,
        StripeStatus::PastDue | StripeStatus::Unpaid | StripeStatus::Paused => Status::PastDue,
    };
    let next = Subscription {
        plan: seen.plan.clone(),
        status,
        started_at: seen.started_at,
        // A period has a length.
        period_end: Some(seen.period_end.max(seen.started_at + TimeDelta::seconds(1))),
        trial_end: seen.trial_end,
        cancel_at_period_end: seen.cancel_at_period_end,
        access_until: Some(access_until(current, seen, policy, now)),
        throttle_mbps: policy.past_due_mbps.filter(|_| status == Status::PastDue),
        lapsed_at: None,
        is_billed: true,
    };
    told(current, noticed(current, next, now), now)
}

/// What the subscription is if its rights have ended by themselves and nobody noticed yet.
#[must_use]
pub fn lapse(current: &Subscription, now: DateTime<Utc>) -> Option<Transition> {
    if entitles(current, now) || current.status == Status::Canceled || current.lapsed_at.is_some() {
        return None;
    }
    let mut next = current.clone();
    next.lapsed_at = Some(now);
    // Of one that Stripe has, Stripe says when it is over.
    if !current.is_billed {
        next.status = Status::Canceled;
    }
    // Where Stripe should have renewed it, nobody knows yet what became of it.
    if current.is_billed && current.status == Status::Active && !current.cancel_at_period_end {
        return Some(Transition {
            next: Some(next),
            news: None,
        });
    }
    Some(told(Some(current), next, now))
}

/// The state of one that gives way to another subscription of the same person.
#[must_use]
pub fn superseded(subscription: &Subscription, now: DateTime<Utc>) -> Subscription {
    let until = subscription
        .access_until
        .map_or(now, |until| until.min(now));
    Subscription {
        status: Status::Canceled,
        access_until: Some(until),
        throttle_mbps: None,
        lapsed_at: subscription.lapsed_at.or(Some(now)),
        ..subscription.clone()
    }
}

fn access_until(
    current: Option<&Subscription>,
    seen: &Seen,
    policy: &Policy,
    now: DateTime<Utc>,
) -> DateTime<Utc> {
    let known = current.and_then(|current| current.access_until);
    let at_once = known.map_or(now, |known| known.min(now));
    match seen.status {
        StripeStatus::Trialing | StripeStatus::Active if seen.cancel_at_period_end => {
            seen.period_end
        }
        StripeStatus::Trialing | StripeStatus::Active => seen.period_end + policy.renewal_slack,
        StripeStatus::PastDue => {
            let was_past_due = current.is_some_and(|current| current.status == Status::PastDue);
            let grace = known.filter(|_| was_past_due);
            let grace = grace.unwrap_or_else(|| now + policy.grace);
            if seen.cancel_at_period_end {
                grace.min(seen.period_end)
            } else {
                grace
            }
        }
        // By Stripe's clock, whatever ours says: its status alone takes the rights.
        StripeStatus::Canceled => seen.ended_at.unwrap_or(at_once),
        StripeStatus::Unpaid
        | StripeStatus::Paused
        | StripeStatus::Incomplete
        | StripeStatus::IncompleteExpired => at_once,
    }
}

fn noticed(
    current: Option<&Subscription>,
    mut next: Subscription,
    now: DateTime<Utc>,
) -> Subscription {
    if !entitles(&next, now) {
        let before = current.and_then(|current| current.lapsed_at);
        next.lapsed_at = before.or(Some(now));
    }
    next
}

fn told(current: Option<&Subscription>, next: Subscription, now: DateTime<Utc>) -> Transition {
    let was = current.map(|current| current.status);
    let had_rights =
        current.is_some_and(|it| it.status != Status::Canceled && it.lapsed_at.is_none());
    let news = match (next.access_until, next.status) {
        (Some(until), Status::PastDue) if until > now => {
            (was != Some(Status::PastDue)).then_some(News::PaymentFailed { until })
        }
        _ if entitles(&next, now) || !had_rights => None,
        _ if next.status == Status::PastDue || was == Some(Status::PastDue) => {
            Some(News::GraceEnded)
        }
        _ => Some(News::Ended),
    };
    Transition {
        next: Some(next),
        news,
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
