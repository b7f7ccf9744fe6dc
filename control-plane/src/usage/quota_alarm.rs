//! When a viewer is told that a quota runs out: once for each step in a month. A pure core.

use crate::tunnels::MonthUsed;

/// Percents of the quota.
const STEPS: [u64; 2] = [80, 95];

/// What was told of a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct QuotaAlarm {
    told: u64,
}

impl QuotaAlarm {
    /// The step that was reached since it was asked last, in percent. A month that turns, or a larger quota, begins anew.
    pub(super) fn news(&mut self, month: &MonthUsed) -> Option<u64> {
        let reached = STEPS.into_iter().filter(|step| is_reached(*step, month));
        let reached = reached.max().unwrap_or(0);
        let news = (reached > self.told).then_some(reached);
        self.told = reached;
        news
    }
}

fn is_reached(step: u64, month: &MonthUsed) -> bool {
    u128::from(month.used) * 100 >= u128::from(month.quota) * u128::from(step)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn month(quota: u64, used: u64) -> MonthUsed {
        MonthUsed { quota, used }
    }

    #[rstest]
    #[case::below(&[(100, 0), (100, 79)], &[None, None])]
    #[case::each_once(&[(100, 80), (100, 94), (100, 95), (100, 120)], &[Some(80), None, Some(95), None])]
    #[case::both_at_once(&[(100, 99), (100, 100)], &[Some(95), None])]
    #[case::next_month(&[(100, 85), (100, 0), (100, 81)], &[Some(80), None, Some(80)])]
    #[case::larger_plan(&[(100, 96), (200, 96), (200, 190)], &[Some(95), None, Some(95)])]
    #[case::huge(&[(u64::MAX, u64::MAX)], &[Some(95)])]
    #[case::nothing_is_free(&[(0, 0)], &[Some(95)])]
    fn steps_are_told_once(#[case] seen: &[(u64, u64)], #[case] told: &[Option<u64>]) {
        let mut alarm = QuotaAlarm::default();
        let news: Vec<_> = seen
            .iter()
            .map(|(quota, used)| alarm.news(&month(*quota, *used)))
            .collect();
        assert_eq!(news, told);
    }
}
