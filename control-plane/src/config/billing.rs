//! Billing: what becomes of whoever has not paid.

use std::time::Duration;

use chrono::{NaiveTime, TimeDelta};

use super::reader::Reader;

/// Stripe renews a subscription about an hour after its period's end, and may be late.
const RENEWAL_SLACK: TimeDelta = TimeDelta::hours(24);

/// Few people are awake where most of them are.
const RECONCILE_AT: NaiveTime = match NaiveTime::from_hms_opt(3, 0, 0) {
    Some(time) => time,
    None => NaiveTime::MIN,
};

#[derive(Debug, Clone)]
pub struct BillingConfig {
    /// How long a missing payment costs nothing.
    pub past_due_grace: Duration,
    /// The rate of whoever has not paid; the plan's where it is none.
    pub past_due_mbps: Option<u32>,
    /// How long after a payment its payer may have it back.
    pub refund_window: TimeDelta,
    /// Whether what was paid for ends when all that was paid for it is given back.
    pub refund_ends_access: bool,
    /// The time of the day, in UTC, at which everything is compared with Stripe.
    pub reconcile_at: NaiveTime,
}

impl BillingConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let days = reader.parse_with(
            "PAST_DUE_GRACE_DAYS",
            7_u32,
            "a whole number of days up to 365",
            |text| text.parse().ok().filter(|days| *days <= 365),
            u32::to_string,
        );
        let refund_days = reader.parse_with(
            "REFUND_WINDOW_DAYS",
            14_u32,
            "a whole number of days up to 365; with 0 operators alone give back",
            |text| text.parse().ok().filter(|days| *days <= 365),
            u32::to_string,
        );
        Self {
            refund_window: TimeDelta::days(refund_days.into()),
            reconcile_at: reader.parse_with(
                "RECONCILE_AT",
                RECONCILE_AT,
                "a time of the day in UTC, such as 03:00",
                |text| NaiveTime::parse_from_str(text, "%H:%M").ok(),
                |time: &NaiveTime| time.format("%H:%M").to_string(),
            ),
            refund_ends_access: reader.flag("REFUND_ENDS_ACCESS", true),
            past_due_grace: Duration::from_secs(u64::from(days) * 86_400),
            past_due_mbps: reader.parse_with(
                "PAST_DUE_THROTTLE_MBPS",
                None,
                "a whole number of megabits a second from 1",
                |text| {
                    let rate = text.parse().ok();
                    rate.filter(|rate| (1..=1_000_000).contains(rate)).map(Some)
                },
                |rate: &Option<u32>| rate.map_or_else(String::new, |rate| rate.to_string()),
            ),
        }
    }

    /// How long Stripe may take to renew after a period's end.
    #[must_use]
    pub const fn renewal_slack(&self) -> TimeDelta {
        RENEWAL_SLACK
    }
}
