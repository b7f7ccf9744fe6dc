//! What is swept periodically: each room deletes its own, here stands what and when.

use std::time::Duration;

use chrono::Utc;

use crate::accounts::{deletion, places, recovery, sessions};
use crate::billing::webhook;
use crate::jobs::periodic::Chore;
use crate::{audit, guard, jobs, oauth};

/// An hour more than anybody can still come with what is deleted: clocks differ.
const MARGIN: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a ban can be looked at after its end: addresses are kept no longer than they serve.
const OVER_BANS: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long an account knows a place where it is not logged in any more.
const UNUSED_PLACES: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long an attack can be looked at after its end.
const ENDED_ALERTS: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long an event can be looked at after it was acted on: as long as Stripe knows it. Parked ones stay.
const DONE_EVENTS: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a job can be looked at after its end.
const ENDED_JOBS: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) const CHORES: &[Chore] = &[
    ("audit_log", |state, connection, limit| {
        let before = Utc::now() - state.config().accounts.audit_retention;
        Box::pin(async move { Ok(audit::forget(connection, before, limit).await?) })
    }),
    ("bans", |_, connection, limit| {
        let before = Utc::now() - OVER_BANS;
        Box::pin(async move { Ok(guard::forget(connection, before, limit).await?) })
    }),
    ("jobs", |_, connection, limit| {
        let before = Utc::now() - ENDED_JOBS;
        Box::pin(async move { Ok(jobs::forget_ended(connection, before, limit).await?) })
    }),
    ("login_places", |_, connection, limit| {
        let before = Utc::now() - UNUSED_PLACES;
        Box::pin(async move { Ok(places::forget_unused(connection, before, limit).await?) })
    }),
    ("one_time_tokens", |_, connection, limit| {
        let before = Utc::now() - MARGIN;
        Box::pin(async move { Ok(recovery::forget_expired(connection, before, limit).await?) })
    }),
    // A used code is known for a day more: one that comes again ends its session.
    ("oauth_codes", |_, connection, limit| {
        let before = Utc::now() - DAY;
        Box::pin(async move { Ok(oauth::forget_expired(connection, before, limit).await?) })
    }),
    // An ended session is remembered for as long as an access token of it may live.
    ("sessions", |state, connection, limit| {
        let before = Utc::now() - state.config().tokens.access_token_life - MARGIN;
        Box::pin(async move { Ok(sessions::forget_ended(connection, before, limit).await?) })
    }),
    ("security_alerts", |_, connection, limit| {
        let before = Utc::now() - ENDED_ALERTS;
        Box::pin(async move { Ok(guard::forget_alerts(connection, before, limit).await?) })
    }),
    ("stripe_events", |_, connection, limit| {
        let before = Utc::now() - DONE_EVENTS;
        Box::pin(async move { Ok(webhook::forget(connection, before, limit).await?) })
    }),
    ("users", |state, connection, limit| {
        let life = state.config().tokens.access_token_life + MARGIN;
        Box::pin(async move { Ok(deletion::sweep(connection, life, limit).await?) })
    }),
];
