//! Plans, subscriptions, and what live connections have of them.

mod entitlements;
mod plans;
mod status;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use control_plane::billing::subscription::{Seen, StripeStatus};

/// A moment so many hours from now, as Stripe has it: in whole seconds.
fn hours(hours: i64) -> DateTime<Utc> {
    (Utc::now() + TimeDelta::hours(hours)).trunc_subsecs(0)
}

/// The monthly plan, ten days into its period.
fn seen(status: StripeStatus) -> Seen {
    Seen {
        plan: "premium_monthly".to_owned(),
        status,
        started_at: hours(-240),
        period_end: hours(480),
        trial_end: None,
        cancel_at_period_end: false,
        ended_at: None,
    }
}
