//! Analytics: how long rollups are kept.

use std::time::Duration;

use super::reader::Reader;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnalyticsConfig {
    /// Hours, of which a month goes when all of it is older.
    pub hours_kept: Duration,
    /// Days, the same way.
    pub days_kept: Duration,
}

impl AnalyticsConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        Self {
            hours_kept: reader.duration("USAGE_HOURS_RETENTION", days(90)),
            days_kept: reader.duration("USAGE_DAYS_RETENTION", days(760)),
        }
    }
}
