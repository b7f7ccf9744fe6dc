//! What is in memory goes to the database: what is urgent at once, all else in turns.
//!
//! A turn stores at least [`TURN`] peers where so many moved, and as many more as it takes for each to
//! be stored within [`LONGEST`]. With few peers that is everything at every turn.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use chrono::Utc;
use shared::ids::{Generation, PeerId, ServerId};
use tokio_util::sync::CancellationToken;

use super::format::real;
use super::live::{Live, Node, State};
use super::store::{self, Report, Stored};
use crate::db::Pool;
use crate::error::{ApiError, Code};

/// Peers written by one statement.
const BATCH: usize = 10_000;
const INTERVAL: Duration = Duration::from_secs(2);
/// Peers written in one turn where nothing else asks for more.
const TURN: usize = 5000;
/// Within this time everything that moved is stored.
const LONGEST: Duration = Duration::from_secs(60);
/// A peer that the database does not know after so many flushes is forgotten.
const MAX_MISSES: u8 = 5;

impl Live {
    /// Writes to the database every two seconds, and everything when `stop` is cancelled.
    pub async fn run(&self, db: &Pool, stop: CancellationToken) {
        loop {
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            let began = Instant::now();
            let flushed = if stopped {
                self.flush(db).await
            } else {
                self.take_turn(db).await
            };
            match flushed {
                Ok(()) => {
                    metrics::histogram!("usage_flush_seconds").record(began.elapsed());
                    let now = u64::try_from(Utc::now().timestamp()).unwrap_or(0);
                    metrics::gauge!("usage_flushed_timestamp_seconds").set(real(now));
                }
                Err(error) => {
                    metrics::counter!("usage_flush_failures_total").increment(1);
                    tracing::warn!(error = %error, "usage.flush_failed");
                }
            }
            if stopped {
                return;
            }
            self.forget_idle(Instant::now());
        }
    }

    /// Writes everything that the database does not have yet.
    pub async fn flush(&self, db: &Pool) -> Result<(), ApiError> {
        // Each round stores one generation of every peer that has more than one behind.
        while self.store(db, &self.turn(usize::MAX)).await? {}
        Ok(())
    }

    async fn take_turn(&self, db: &Pool) -> Result<(), ApiError> {
        let peers = self.state().peers;
        let reports = self.turn(budget(peers));
        let stored = self.store(db, &reports).await;
        if stored.is_err() {
            self.state().give_turn_back();
        }
        stored.map(drop)
    }

    /// Says whether anybody has an older generation out of the way.
    async fn store(&self, db: &Pool, reports: &[Report]) -> Result<bool, ApiError> {
        let mut progressed = false;
        for batch in reports.chunks(BATCH) {
            let stored = store::flush(&mut *db.get().await?, batch).await?;
            progressed |= self.settle(batch, &stored);
        }
        Ok(progressed)
    }

    /// Writes what these peers of a node counted before the generation that each ends with. The
    /// final counters go to the database by themselves, and would shut out what is older. Costs
    /// nothing for a peer that has nothing older to be stored, which is nearly every one.
    pub async fn flush_before(
        &self,
        db: &Pool,
        server: ServerId,
        ends: &[(PeerId, Generation)],
    ) -> Result<(), ApiError> {
        loop {
            let reports = self.unstored_before(server, ends);
            if reports.is_empty() {
                return Ok(());
            }
            let stored = store::flush(&mut *db.get().await?, &reports).await?;
            self.settle(&reports, &stored);
            if stored.is_empty() {
                return Err(ApiError::new(Code::Unavailable)
                    .with_source("the counters of a peer that ends are locked"));
            }
        }
    }

    /// What is to be stored in this turn, about as many as `most`: what is urgent, then all that the nodes
    /// said which waited longest. What is urgent stays so until it is stored.
    fn turn(&self, most: usize) -> Vec<Report> {
        let mut state = self.state();
        state.turn += 1;
        let turn = state.turn;
        let mut reports = Vec::new();
        let mut taken = HashSet::new();
        for (server, node) in &mut state.nodes {
            let urgent: Vec<_> = node.urgent.iter().copied().collect();
            for peer in urgent.into_iter().take(most.saturating_sub(reports.len())) {
                match node.report(*server, peer) {
                    Some(report) => {
                        taken.insert((*server, peer));
                        reports.push(report);
                    }
                    None => {
                        node.urgent.remove(&peer);
                    }
                }
            }
        }
        let mut order: Vec<_> = state.nodes.iter_mut().collect();
        order.sort_unstable_by_key(|(_, node)| node.stored_in);
        for (server, node) in order {
            if reports.len() >= most {
                break;
            }
            let unstored = node.unstored(*server);
            reports.extend(unstored.filter(|report| !taken.contains(&(*server, report.peer))));
            node.stored_in = turn;
        }
        reports
    }

    fn unstored_before(&self, server: ServerId, ends: &[(PeerId, Generation)]) -> Vec<Report> {
        let state = self.state();
        let Some(node) = state.nodes.get(&server) else {
            return Vec::new();
        };
        ends.iter()
            .filter_map(|(peer, end)| {
                let meter = &node.peers.get(peer)?.meter;
                let counters = meter.unstored().filter(|it| it.generation < *end)?;
                Some(Report {
                    server,
                    peer: *peer,
                    counters: Some(counters),
                    peak: meter.peak(),
                    recent_peak: meter.recent_peak(),
                    consumed: None,
                })
            })
            .collect()
    }

    /// Takes the database's answer; says whether anybody has an older generation out of the way.
    fn settle(&self, batch: &[Report], stored: &[Stored]) -> bool {
        for user in stored.iter().filter_map(|row| row.quota_due) {
            self.quota_due(user);
        }
        let stored: HashMap<_, _> = stored
            .iter()
            .map(|row| ((row.server, row.peer), row))
            .collect();
        let mut more = false;
        let mut state = self.state();
        for report in batch {
            more |= state.settle(report, stored.get(&(report.server, report.peer)).copied());
        }
        more
    }
}

/// How many peers a turn stores: all are through within [`LONGEST`].
fn budget(peers: usize) -> usize {
    let turns = LONGEST.as_secs() / INTERVAL.as_secs();
    let turns = usize::try_from(turns).unwrap_or(usize::MAX);
    TURN.max(peers.div_ceil(turns))
}

impl Node {
    /// What the database does not have of a peer.
    fn report(&self, server: ServerId, peer: PeerId) -> Option<Report> {
        let meter = self.peers.get(&peer).map(|entry| &entry.meter);
        let counters = meter.and_then(super::meter::Meter::unstored);
        let consumed = match counters {
            Some(_) => self.consumed.latest(peer),
            None => Some(self.consumed.unstored_of(peer)?),
        };
        let moved = meter.filter(|_| counters.is_some());
        Some(Report {
            server,
            peer,
            counters,
            peak: moved.map_or(0, super::meter::Meter::peak),
            recent_peak: moved.map_or(0, super::meter::Meter::recent_peak),
            consumed,
        })
    }

    /// What the database does not have, each peer once.
    fn unstored(&self, server: ServerId) -> impl Iterator<Item = Report> {
        let used = self.consumed.unstored().map(|(peer, _)| peer);
        let only_used = used.filter(|peer| !self.peers.contains_key(peer));
        let peers = self.peers.keys().copied().chain(only_used);
        peers.filter_map(move |peer| self.report(server, peer))
    }
}

impl State {
    /// Takes the database's word on a report, none where it was not stored: a row is locked for a moment, or
    /// unknown. Says whether a newer generation waits.
    fn settle(&mut self, report: &Report, stored: Option<&Stored>) -> bool {
        let Some(node) = self.nodes.get_mut(&report.server) else {
            return false;
        };
        node.settle_quota(report, stored);
        let outcome = node.settle_counters(report, stored);
        node.prioritise(report.peer, outcome);
        if outcome == Outcome::Over {
            self.remove(report.server, report.peer);
        }
        outcome == Outcome::More
    }

    /// What this turn took was not stored: the nodes whose turn it was are the next.
    fn give_turn_back(&mut self) {
        let turn = self.turn;
        let nodes = self.nodes.values_mut();
        for node in nodes.filter(|node| node.stored_in == turn) {
            node.stored_in = 0;
        }
    }
}

/// What a report's counters came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Stored,
    /// A newer generation waits.
    More,
    Missed,
    /// There will be nothing more, or nobody who takes it.
    Over,
}

impl Node {
    fn settle_counters(&mut self, report: &Report, stored: Option<&Stored>) -> Outcome {
        let (Some(entry), Some(counters)) = (self.peers.get_mut(&report.peer), &report.counters)
        else {
            return Outcome::Stored;
        };
        let Some(stored) = stored else {
            entry.misses += 1;
            return if entry.misses >= MAX_MISSES {
                Outcome::Over
            } else {
                Outcome::Missed
            };
        };
        entry.misses = 0;
        entry.meter.stored(counters);
        match entry.meter.unstored() {
            Some(next) if next.generation > counters.generation => Outcome::More,
            None if stored.ended => Outcome::Over,
            _ => Outcome::Stored,
        }
    }

    fn settle_quota(&mut self, report: &Report, stored: Option<&Stored>) {
        let Some(consumed) = report.consumed else {
            return;
        };
        match stored {
            Some(stored) if stored.ended => self.consumed.remove(report.peer),
            Some(stored) => {
                let share_at = stored.share_at.unwrap_or(u64::MAX);
                self.consumed.stored(report.peer, consumed, share_at);
            }
            None => self.consumed.missed(report.peer, MAX_MISSES),
        }
    }

    /// A peer that goes ahead of others does so until it is stored. What it used of its quota meanwhile may be due
    /// again.
    fn prioritise(&mut self, peer: PeerId, outcome: Outcome) {
        if outcome != Outcome::Stored || self.consumed.is_due(peer) {
            self.urgent.insert(peer);
        } else {
            self.urgent.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use diesel_async::pooled_connection::AsyncDieselConnectionManager;
    use rstest::rstest;

    use super::*;
    use crate::fleet::desired::CounterSink;
    use crate::usage::live::IDLE_LIFE;
    use crate::usage::live::tests::frame;

    fn stored(report: &Report, ended: bool) -> Stored {
        Stored {
            server: report.server,
            peer: report.peer,
            ended,
            share_at: None,
            quota_due: None,
        }
    }

    fn store_all(live: &Live, batch: &[Report]) {
        let stored: Vec<_> = batch.iter().map(|it| stored(it, false)).collect();
        live.settle(batch, &stored);
    }

    #[test]
    fn ended_peers_leave_once_stored() {
        let (live, server) = (Live::new(), ServerId::generate());
        live.record(server, frame(100, &[(1, 10)]));
        let batch = live.turn(usize::MAX);
        assert!(!live.settle(&batch, &[stored(&batch[0], true)]));
        assert!(live.reading(server, PeerId(1)).is_none());
        assert_eq!(live.state().peers, 0);
    }

    #[test]
    fn unknown_peers_are_given_up() {
        let (live, server) = (Live::new(), ServerId::generate());
        live.record(server, frame(100, &[(1, 10)]));
        for _ in 0..MAX_MISSES {
            let batch = live.turn(usize::MAX);
            assert_eq!(batch.len(), 1);
            live.settle(&batch, &[]);
        }
        assert!(live.turn(usize::MAX).is_empty());
    }

    #[test]
    fn idle_peers_leave_only_when_stored() {
        let (live, server) = (Live::new(), ServerId::generate());
        live.record(server, frame(100, &[(1, 10), (2, 10)]));
        let batch: Vec<_> = live
            .turn(usize::MAX)
            .into_iter()
            .filter(|report| report.peer == PeerId(1))
            .collect();
        live.settle(&batch, &[stored(&batch[0], false)]);
        live.forget_idle(Instant::now() + IDLE_LIFE);
        assert!(live.reading(server, PeerId(1)).is_none());
        assert!(live.reading(server, PeerId(2)).is_some());
    }

    #[test]
    fn nodes_take_turns_and_what_is_urgent_does_not_wait() {
        let live = Live::new();
        let servers: Vec<_> = (0..4).map(|_| ServerId::generate()).collect();
        for server in &servers {
            live.record(*server, frame(100, &[(1, 10), (2, 10)]));
        }
        // All are new, and none is told twice.
        let batch = live.turn(usize::MAX);
        assert_eq!(batch.len(), 8);
        store_all(&live, &batch);
        for server in &servers {
            live.record(*server, frame(101, &[(1, 20), (2, 20)]));
        }
        live.record(servers[0], frame(102, &[(3, 5)]));
        let mut seen = HashSet::new();
        for turn in 0..4 {
            let batch = live.turn(2);
            let newcomers = batch.iter().filter(|it| it.peer == PeerId(3)).count();
            assert_eq!(newcomers, usize::from(turn == 0));
            assert!((1..=3).contains(&batch.len()), "{}", batch.len());
            seen.extend(batch.iter().map(|it| (it.server, it.peer)));
            store_all(&live, &batch);
        }
        assert_eq!(seen.len(), 9);
        assert!(live.turn(usize::MAX).is_empty());
    }

    /// A pool of a Postgres that is away.
    async fn nobody() -> Pool {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let address = port.and_then(|port| port.local_addr()).expect("a port");
        let url = format!("postgres://nobody@{address}/nothing");
        Pool::builder()
            .connection_timeout(Duration::from_millis(50))
            .build_unchecked(AsyncDieselConnectionManager::new(url))
    }

    #[tokio::test]
    async fn what_is_urgent_keeps_its_turn_while_postgres_is_away() {
        let (live, server) = (Live::new(), ServerId::generate());
        live.record(server, frame(100, &[(1, 10)]));
        store_all(&live, &live.turn(usize::MAX));
        live.record(server, frame(101, &[(1, 20), (2, 5)]));
        for _ in 0..2 {
            let failed = live.take_turn(&nobody().await).await;
            assert_eq!(failed.expect_err("away").code(), Code::Unavailable);
            assert_eq!(live.state().nodes[&server].stored_in, 0);
        }
        let batch = live.turn(1);
        assert_eq!((batch.len(), batch[0].peer), (1, PeerId(2)));
        store_all(&live, &batch);
        assert_eq!(live.turn(1)[0].peer, PeerId(1));
    }

    #[test]
    fn a_turn_that_was_not_stored_is_given_back() {
        let live = Live::new();
        let nodes = [ServerId::generate(), ServerId::generate()];
        for seconds in [100, 101] {
            store_all(&live, &live.turn(usize::MAX));
            for server in nodes {
                live.record(server, frame(seconds, &[(1, seconds)]));
            }
        }
        let first = live.turn(1)[0].server;
        live.state().give_turn_back();
        assert_eq!(live.turn(1)[0].server, first);
        assert_ne!(live.turn(1)[0].server, first);
    }

    #[test]
    fn a_used_part_of_a_quota_does_not_wait() {
        let (live, busy, other) = (Live::new(), ServerId::generate(), ServerId::generate());
        let consumed = |bytes| {
            let mut frame = frame(100, &[]);
            frame.consumed.push((PeerId(1), bytes));
            frame
        };
        live.record(busy, consumed(10));
        let batch = live.turn(usize::MAX);
        let known = Stored {
            share_at: Some(50),
            ..stored(&batch[0], false)
        };
        live.settle(&batch, &[known]);
        let is_urgent = || !live.state().nodes[&busy].urgent.is_empty();
        live.record(busy, consumed(49));
        assert!(!is_urgent());
        live.record(busy, consumed(50));
        assert!(is_urgent());
        live.record(other, frame(100, &[(7, 1)]));
        let both: Vec<_> = live.turn(2).iter().map(|it| it.consumed).collect();
        assert!(both.contains(&Some(50)), "{both:?}");
    }

    #[test]
    fn what_is_urgent_stays_so_while_the_database_is_away() {
        let (live, other, busy) = (Live::new(), ServerId::generate(), ServerId::generate());
        for server in [other, busy] {
            live.record(server, frame(100, &[(1, 10)]));
            store_all(&live, &live.turn(usize::MAX));
        }
        live.record(other, frame(101, &[(1, 20)]));
        live.record(busy, frame(101, &[(2, 5)]));
        let first = |batch: &[Report]| batch.first().map(|it| (it.server, it.peer));
        for _ in 0..3 {
            assert_eq!(first(&live.turn(1)), Some((busy, PeerId(2))));
        }
        store_all(&live, &live.turn(1));
        assert_eq!(first(&live.turn(1)), Some((other, PeerId(1))));
    }

    #[rstest]
    #[case(0, 5000)]
    #[case(100_000, 5000)]
    #[case(200_000, 6667)]
    fn everybody_is_through_within_a_minute(#[case] peers: usize, #[case] turn: usize) {
        assert_eq!(budget(peers), turn);
    }
}
