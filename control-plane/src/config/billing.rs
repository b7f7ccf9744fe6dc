//! Billing: what becomes of whoever has not paid.

use std::time::Duration;

use chrono::TimeDelta;

use super::reader::Reader;

/// Stripe renews a subscription about an hour after its period's end, and may be late.
const RENEWAL_SLACK: TimeDelta = TimeDelta::hours(24);

#[derive(Debug, Clone)]
pub struct BillingConfig {
    /// How long a missing payment costs nothing.
    pub past_due_grace: Duration,
    /// The rate of whoever has not paid; the plan's where it is none.
    pub past_due_mbps: Option<u32>,
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
        Self {
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
