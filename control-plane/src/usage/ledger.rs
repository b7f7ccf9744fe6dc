//! How cumulative counters become a connection's bytes.
//!
//! Within a generation the interface's counters only grow, so the largest report is the truth and
//! a lost or repeated one does no harm. A new generation starts at zero and is added to what the
//! earlier ones came to. What an earlier generation still reports is ignored: its last word came
//! before the peer was put into the interface again.
//!
//! The same rule stands in SQL as [`fold_counters!`], because only the database can apply it to a
//! row that another replica may be writing. Both are idempotent.

use shared::ids::Generation;
use shared::protocol::PeerCounters;

/// A connection's bytes, as its row keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ledger {
    /// Over all generations.
    pub sent: u64,
    pub received: u64,
    /// The newest generation that reported.
    pub generation: Generation,
    /// Of `sent` and `received`, what belongs to that generation.
    pub generation_sent: u64,
    pub generation_received: u64,
}

impl Ledger {
    /// Takes one report.
    #[must_use]
    pub fn fold(self, report: &PeerCounters) -> Self {
        if report.generation < self.generation {
            return self;
        }
        let (sent_before, received_before) = if report.generation == self.generation {
            (self.generation_sent, self.generation_received)
        } else {
            (0, 0)
        };
        let generation_sent = report.sent.max(sent_before);
        let generation_received = report.received.max(received_before);
        Self {
            sent: self.sent.saturating_add(generation_sent - sent_before),
            received: self
                .received
                .saturating_add(generation_received - received_before),
            generation: report.generation,
            generation_sent,
            generation_received,
        }
    }
}

/// The assignments of an `UPDATE connections c … FROM f` by which [`Ledger::fold`] is done in SQL;
/// `f` has `generation`, `sent` and `received`, all null where nothing was reported.
macro_rules! fold_counters {
    () => {
        "bytes_sent = c.bytes_sent + CASE
             WHEN f.generation > c.counter_generation THEN f.sent
             WHEN f.generation = c.counter_generation THEN greatest(f.sent - c.generation_sent, 0)
             ELSE 0 END,
         bytes_received = c.bytes_received + CASE
             WHEN f.generation > c.counter_generation THEN f.received
             WHEN f.generation = c.counter_generation THEN greatest(f.received - c.generation_received, 0)
             ELSE 0 END,
         generation_sent = CASE
             WHEN f.generation > c.counter_generation THEN f.sent
             WHEN f.generation = c.counter_generation THEN greatest(f.sent, c.generation_sent)
             ELSE c.generation_sent END,
         generation_received = CASE
             WHEN f.generation > c.counter_generation THEN f.received
             WHEN f.generation = c.counter_generation THEN greatest(f.received, c.generation_received)
             ELSE c.generation_received END,
         counter_generation = greatest(c.counter_generation, f.generation)"
    };
}
pub(crate) use fold_counters;

/// The INSERT that adds to each person's month what the connections of a WITH query `$moved` moved:
/// `user_id`, `moved` and `allowance`. What has no quota is not counted. In the order of ids, so
/// that two statements cannot wait for each other.
macro_rules! charge_quota {
    ($moved:literal) => {
        concat!(
            "INSERT INTO quota_usage (user_id, month, consumed)
             SELECT user_id, date_trunc('month', now() AT TIME ZONE 'UTC')::date, sum(moved)::bigint
               FROM ",
            $moved,
            " WHERE moved > 0 AND allowance < 9223372036854775807 GROUP BY user_id ORDER BY user_id
                 ON CONFLICT (user_id, month) DO UPDATE SET consumed = quota_usage.consumed + excluded.consumed"
        )
    };
}
pub(crate) use charge_quota;

/// A count of bytes as the database stores it.
#[must_use]
pub fn to_row(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A count of bytes as the database stored it.
#[must_use]
pub fn from_row(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn report(generation: u32, sent: u64, received: u64) -> PeerCounters {
        PeerCounters {
            generation: Generation(generation),
            sent,
            received,
            last_handshake: None,
        }
    }

    #[rstest]
    #[case::first(&[(1, 10, 20)], (10, 20))]
    #[case::grows(&[(1, 10, 20), (1, 15, 50)], (15, 50))]
    #[case::repeated(&[(1, 10, 20), (1, 10, 20)], (10, 20))]
    #[case::late(&[(1, 15, 50), (1, 10, 20)], (15, 50))]
    #[case::next_generation(&[(1, 10, 20), (2, 1, 2)], (11, 22))]
    #[case::skipped_generation(&[(1, 10, 20), (7, 1, 2)], (11, 22))]
    #[case::older_generation(&[(2, 1, 2), (1, 10, 20)], (1, 2))]
    #[case::generation_zero(&[(0, 3, 4), (0, 5, 6)], (5, 6))]
    fn folds(#[case] reports: &[(u32, u64, u64)], #[case] total: (u64, u64)) {
        let ledger =
            reports
                .iter()
                .fold(Ledger::default(), |ledger, (generation, sent, received)| {
                    ledger.fold(&report(*generation, *sent, *received))
                });
        assert_eq!((ledger.sent, ledger.received), total);
    }

    /// What one generation counted in the end, and the reports that arrived of it.
    #[derive(Debug, Clone)]
    struct Counted {
        sent: u64,
        received: u64,
        reports: Vec<(u64, u64)>,
    }

    /// Any of a generation's values, in any order and number, its last one among them.
    fn counted() -> impl Strategy<Value = Counted> {
        (0..1_u64 << 40, 0..1_u64 << 40)
            .prop_flat_map(|(sent, received)| {
                let earlier = proptest::collection::vec((0..=sent, 0..=received), 0..6);
                (Just((sent, received)), earlier)
            })
            .prop_flat_map(|(last, mut reports)| {
                reports.push(last);
                (Just(last), Just(reports).prop_shuffle())
            })
            .prop_map(|((sent, received), reports)| Counted {
                sent,
                received,
                reports,
            })
    }

    proptest! {
        #[test]
        fn loss_repeats_and_order_do_not_matter(
            history in proptest::collection::vec(counted(), 1..5),
            repeats in 1_usize..3,
        ) {
            let mut ledger = Ledger::default();
            let mut expected = (0, 0);
            for (generation, counted) in (1..).zip(&history) {
                for (sent, received) in &counted.reports {
                    for _ in 0..repeats {
                        ledger = ledger.fold(&report(generation, *sent, *received));
                    }
                }
                // The generation before may still repeat itself.
                if let Some((sent, received)) = counted.reports.first().filter(|_| generation > 1) {
                    ledger = ledger.fold(&report(generation - 1, *sent, *received));
                }
                expected = (expected.0 + counted.sent, expected.1 + counted.received);
            }
            prop_assert_eq!((ledger.sent, ledger.received), expected);
        }

        #[test]
        fn totals_never_shrink(reports in proptest::collection::vec((0_u32..5, any::<u64>(), any::<u64>()), 0..30)) {
            let mut ledger = Ledger::default();
            for (generation, sent, received) in reports {
                let next = ledger.fold(&report(generation, sent, received));
                prop_assert!(next.sent >= ledger.sent && next.received >= ledger.received);
                ledger = next;
            }
        }
    }
}
