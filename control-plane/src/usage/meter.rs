//! One peer's counters between the node's frame and the database: a pure core.

use std::collections::VecDeque;

use shared::protocol::PeerCounters;

use super::format::real;

/// Generations that wait to be stored. More within one flush would be a node gone mad.
const MAX_UNSTORED: usize = 64;

/// The newest report of a peer, its rates, and what the database does not have yet.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Meter {
    latest: PeerCounters,
    /// Unix seconds of the node's clock.
    taken_at: u64,
    upload: f64,
    download: f64,
    peak: u64,
    /// The fastest second that is not stored yet.
    recent_peak: u64,
    /// The last report of each generation not yet stored, oldest first: the database adds
    /// generations up, so that none may be skipped.
    unstored: VecDeque<PeerCounters>,
}

impl Meter {
    pub(super) fn new(first: PeerCounters, taken_at: u64) -> Self {
        Self {
            latest: first,
            taken_at,
            upload: 0.0,
            download: 0.0,
            peak: 0,
            recent_peak: 0,
            unstored: VecDeque::from([first]),
        }
    }

    /// Takes a report. A node names a peer only when its counters moved, so what is new since
    /// `previous_frame` (the node's frame before) moved after that frame and not evenly since this
    /// peer's last report.
    pub(super) fn observe(&mut self, report: PeerCounters, taken_at: u64, previous_frame: u64) {
        if report.generation < self.latest.generation {
            return;
        }
        let renewed = report.generation > self.latest.generation;
        let base = if renewed { (0, 0) } else { self.bytes() };
        let since = taken_at.saturating_sub(self.taken_at.max(previous_frame));
        if renewed || since > 0 {
            let seconds = real(since.max(1));
            self.upload = real(report.sent.saturating_sub(base.0)) / seconds;
            self.download = real(report.received.saturating_sub(base.1)) / seconds;
            let moved = report
                .sent
                .saturating_sub(base.0)
                .saturating_add(report.received.saturating_sub(base.1));
            let rate = moved / since.max(1);
            self.peak = self.peak.max(rate);
            self.recent_peak = self.recent_peak.max(rate);
            self.taken_at = taken_at;
        }
        self.latest = PeerCounters {
            generation: report.generation,
            sent: report.sent.max(base.0),
            received: report.received.max(base.1),
            last_handshake: report.last_handshake.max(self.latest.last_handshake),
        };
        self.keep();
    }

    fn bytes(&self) -> (u64, u64) {
        (self.latest.sent, self.latest.received)
    }

    fn keep(&mut self) {
        let kept = self.unstored.len();
        match self.unstored.back_mut() {
            Some(last) if last.generation == self.latest.generation => *last = self.latest,
            _ if kept < MAX_UNSTORED => self.unstored.push_back(self.latest),
            _ => {}
        }
    }

    pub(super) const fn latest(&self) -> &PeerCounters {
        &self.latest
    }

    pub(super) const fn taken_at(&self) -> u64 {
        self.taken_at
    }

    /// Bytes a second, up and down.
    pub(super) const fn rates(&self) -> (f64, f64) {
        (self.upload, self.download)
    }

    /// The fastest second in both directions together.
    pub(super) const fn peak(&self) -> u64 {
        self.peak
    }

    /// The same since the last report that was stored. What moved while that was written may count
    /// once more.
    pub(super) const fn recent_peak(&self) -> u64 {
        self.recent_peak
    }

    /// What has to be stored next.
    pub(super) fn unstored(&self) -> Option<PeerCounters> {
        self.unstored.front().copied()
    }

    /// Of what has to be stored, that of earlier generations than the newest, oldest first.
    pub(super) fn earlier(&self) -> impl Iterator<Item = PeerCounters> {
        let newest = self.latest.generation;
        let unstored = self.unstored.iter().copied();
        unstored.filter(move |report| report.generation < newest)
    }

    /// The database has `report`; what came since then stays to be stored.
    pub(super) fn stored(&mut self, report: &PeerCounters) {
        if self.unstored.front() == Some(report) {
            self.unstored.pop_front();
        }
        if self.unstored.is_empty() {
            self.recent_peak = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::ledger::Ledger;
    use proptest::prelude::*;
    use shared::ids::Generation;

    fn report(generation: u32, sent: u64, received: u64) -> PeerCounters {
        PeerCounters {
            generation: Generation(generation),
            sent,
            received,
            last_handshake: None,
        }
    }

    #[test]
    fn rates_come_from_consecutive_frames() {
        let mut meter = Meter::new(report(1, 1000, 2000), 100);
        meter.observe(report(1, 3000, 8000), 102, 100);
        assert_eq!(meter.rates(), (1000.0, 3000.0));
        assert_eq!(meter.peak(), 4000);
    }

    #[test]
    fn silence_does_not_thin_a_rate() {
        let mut meter = Meter::new(report(1, 0, 0), 100);
        meter.observe(report(1, 5000, 0), 160, 159);
        assert_eq!(meter.rates(), (5000.0, 0.0));
    }

    #[test]
    fn two_frames_of_one_second_count_as_one() {
        let mut meter = Meter::new(report(1, 0, 0), 100);
        meter.observe(report(1, 500, 0), 100, 100);
        assert_eq!(meter.rates(), (0.0, 0.0));
        assert_eq!(meter.latest().sent, 500);
    }

    #[test]
    fn a_new_generation_starts_at_zero() {
        let mut meter = Meter::new(report(1, 9000, 0), 100);
        meter.observe(report(2, 100, 0), 101, 100);
        assert_eq!(meter.rates(), (100.0, 0.0));
        assert_eq!(meter.unstored(), Some(report(1, 9000, 0)));
        meter.stored(&report(1, 9000, 0));
        assert_eq!(meter.unstored(), Some(report(2, 100, 0)));
    }

    #[test]
    fn what_moved_while_it_was_stored_stays() {
        let mut meter = Meter::new(report(1, 10, 0), 100);
        let sent = meter.unstored().expect("new");
        meter.observe(report(1, 20, 0), 101, 100);
        meter.stored(&sent);
        assert_eq!(meter.unstored(), Some(report(1, 20, 0)));
    }

    #[test]
    fn a_peak_is_told_until_all_is_stored() {
        let mut meter = Meter::new(report(1, 0, 0), 100);
        meter.observe(report(1, 5000, 0), 101, 100);
        let sent = meter.unstored().expect("new");
        meter.observe(report(1, 5100, 0), 102, 101);
        meter.stored(&sent);
        assert_eq!(meter.recent_peak(), 5000);
        meter.stored(&report(1, 5100, 0));
        meter.observe(report(1, 5200, 0), 103, 102);
        assert_eq!((meter.recent_peak(), meter.peak()), (100, 5000));
    }

    proptest! {
        /// However reports and flushes interleave, flushes lost on the way back included, the
        /// ledger ends where the reports did.
        #[test]
        fn the_ledger_gets_every_byte(
            generations in proptest::collection::vec(proptest::collection::vec(0_u64..1000, 1..6), 1..5),
            flushes in proptest::collection::vec((any::<bool>(), any::<bool>()), 40),
        ) {
            let mut meter: Option<Meter> = None;
            let mut ledger = Ledger::default();
            let mut flushes = flushes.into_iter();
            let mut expected = 0;
            for (generation, steps) in (1..).zip(&generations) {
                let mut sent = 0;
                for (at, step) in (100..).zip(steps) {
                    sent += step;
                    let report = report(generation, sent, 0);
                    match meter.as_mut() {
                        Some(meter) => meter.observe(report, at, at - 1),
                        None => meter = Some(Meter::new(report, at)),
                    }
                    let (flush, answered) = flushes.next().unwrap_or((false, false));
                    if let Some(meter) = meter.as_mut().filter(|_| flush)
                        && let Some(front) = meter.unstored()
                    {
                        ledger = ledger.fold(&front);
                        if answered {
                            meter.stored(&front);
                        }
                    }
                }
                expected += sent;
            }
            let mut meter = meter.expect("at least one report");
            while let Some(front) = meter.unstored() {
                ledger = ledger.fold(&front);
                meter.stored(&front);
            }
            prop_assert_eq!(ledger.sent, expected);
        }
    }
}
