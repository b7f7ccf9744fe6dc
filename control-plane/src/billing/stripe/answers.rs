//! How small things are written in answers.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};

/// Stripe's times are seconds.
#[must_use]
pub fn moment(seconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, 0)
}

/// What is null is as if it were not there.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
