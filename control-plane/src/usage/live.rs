//! What the nodes whose sessions are here report, second by second.
//!
//! Frames are folded in memory and written in batches. Nothing here is needed to know the truth: a
//! plane that is killed loses what the node's next frame says again, since totals are cumulative.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use shared::ids::{Generation, PeerId, ServerId, UserId};
use shared::protocol::counters::CountersFrame;
use shared::protocol::{PeerCounters, RoundTrips};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::audience::Audience;
use super::consumption::Consumptions;
use super::meter::Meter;
use super::round_trips::LastTrips;
use super::store::{self, Report};
use crate::db::Pool;
use crate::error::{ApiError, Code};
use crate::fleet::desired::CounterSink;

/// Peers kept in memory; past that, newcomers are not metered live until others leave.
const MAX_PEERS: usize = 200_000;
/// Peers written by one statement.
const BATCH: usize = 10_000;
const FLUSH_INTERVAL: Duration = Duration::from_secs(2);
/// A rate is shown for so long after the frame that gave it.
const RATE_LIFE: Duration = Duration::from_millis(2500);
/// A stored peer that did not move for so long leaves memory.
const IDLE_LIFE: Duration = Duration::from_secs(600);
/// A peer that the database does not know after so many flushes is forgotten.
const MAX_MISSES: u8 = 5;

/// A peer at this moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The node's newest report.
    pub counters: PeerCounters,
    /// Bytes a second.
    pub upload: f64,
    pub download: f64,
    /// Bytes in the fastest second, both directions together, since this replica follows the peer.
    pub peak: u64,
}

impl Reading {
    #[must_use]
    pub fn last_handshake(&self) -> Option<DateTime<Utc>> {
        store::handshake_time(&self.counters)
    }
}

/// The live counters of every node whose session this replica holds.
#[derive(Debug, Default)]
pub struct Live {
    state: Mutex<State>,
    watchers: Mutex<HashMap<UserId, Weak<Notify>>>,
    audience: Arc<Audience>,
    round_trips: LastTrips,
    /// Whose quotas are to be shared anew.
    quotas_due: Mutex<HashSet<UserId>>,
    quota_due: Notify,
}

#[derive(Debug, Default)]
struct State {
    nodes: HashMap<ServerId, Node>,
    peers: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// When the node's last frame was taken, in its own clock's Unix seconds.
    last_frame: u64,
    peers: HashMap<PeerId, Entry>,
    consumed: Consumptions,
}

#[derive(Debug)]
struct Entry {
    meter: Meter,
    seen: Instant,
    misses: u8,
}

impl CounterSink for Live {
    fn record(&self, server: ServerId, frame: CountersFrame) {
        self.record_at(server, &frame, Instant::now());
    }

    fn round_trips(&self, server: ServerId, trips: &RoundTrips) {
        self.round_trips.put(server, trips, Instant::now());
    }
}

impl Live {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The peer's live counters, if its node's session is here and it moved lately.
    #[must_use]
    pub fn reading(&self, server: ServerId, peer: PeerId) -> Option<Reading> {
        let state = self.state();
        let node = state.nodes.get(&server)?;
        let entry = node.peers.get(&peer)?;
        let moving =
            entry.seen.elapsed() < RATE_LIFE && entry.meter.taken_at() + 1 >= node.last_frame;
        let (upload, download) = if moving {
            entry.meter.rates()
        } else {
            (0.0, 0.0)
        };
        Some(Reading {
            counters: *entry.meter.latest(),
            upload,
            download,
            peak: entry.meter.peak(),
        })
    }

    /// The round trip between the node and the peer's client in milliseconds, where somebody at this
    /// replica looks at it and the client answers.
    #[must_use]
    pub fn ping(&self, server: ServerId, peer: PeerId) -> Option<u32> {
        self.round_trips.of(server, peer, Instant::now())
    }

    /// Who looks at which connections through this replica.
    #[must_use]
    pub const fn audience(&self) -> &Arc<Audience> {
        &self.audience
    }

    /// What the peer has used of its quota by the node's newest report. With the counters of its `end`,
    /// what moved since that report counts as used.
    #[must_use]
    pub fn consumed(
        &self,
        server: ServerId,
        peer: PeerId,
        end: Option<&PeerCounters>,
    ) -> Option<u64> {
        let state = self.state();
        let node = state.nodes.get(&server)?;
        let reported = node.consumed.latest(peer)?;
        let Some(end) = end else {
            return Some(reported);
        };
        let latest = node.peers.get(&peer)?.meter.latest();
        // Of another generation than the end's it is not known what moved since.
        (latest.generation == end.generation).then(|| {
            let sent = end.sent.saturating_sub(latest.sent);
            let received = end.received.saturating_sub(latest.received);
            reported.saturating_add(sent).saturating_add(received)
        })
    }

    /// This person's quota is to be shared anew.
    pub fn quota_due(&self, user: UserId) {
        self.due().insert(user);
        self.quota_due.notify_one();
    }

    /// Waits until somebody's quota is to be shared anew, and takes all of those.
    pub async fn quotas_due(&self) -> Vec<UserId> {
        loop {
            let due = std::mem::take(&mut *self.due());
            if !due.is_empty() {
                return due.into_iter().collect();
            }
            self.quota_due.notified().await;
        }
    }

    /// The peer is gone and its final counters are stored.
    pub fn forget(&self, server: ServerId, peer: PeerId) {
        self.state().remove(server, peer);
    }

    /// Is told whenever a connection of this user began or ended through this replica.
    #[must_use]
    pub fn watch(&self, user: UserId) -> Arc<Notify> {
        let mut watchers = self.watchers();
        if let Some(notify) = watchers.get(&user).and_then(Weak::upgrade) {
            return notify;
        }
        let notify = Arc::new(Notify::new());
        watchers.insert(user, Arc::downgrade(&notify));
        notify
    }

    /// Tells those who watch this user that the connections changed.
    pub fn changed(&self, user: UserId) {
        let notify = self.watchers().get(&user).and_then(Weak::upgrade);
        if let Some(notify) = notify {
            notify.notify_waiters();
        }
    }

    /// Writes to the database every two seconds, and once more when `stop` is cancelled.
    pub async fn run(&self, db: &Pool, stop: CancellationToken) {
        loop {
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(FLUSH_INTERVAL) => false,
            };
            if let Err(error) = self.flush(db).await {
                tracing::warn!(error = %error, "usage.flush_failed");
            }
            if stopped {
                return;
            }
            self.forget_idle(Instant::now());
        }
    }

    /// Writes what the database does not have yet.
    pub async fn flush(&self, db: &Pool) -> Result<(), ApiError> {
        // Each turn stores one generation of every peer that has more than one behind.
        loop {
            let reports = self.unstored();
            if reports.is_empty() {
                return Ok(());
            }
            let mut progressed = false;
            for batch in reports.chunks(BATCH) {
                let stored = store::flush(&mut *db.get().await?, batch).await?;
                progressed |= self.settle(batch, &stored);
            }
            if !progressed {
                return Ok(());
            }
        }
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

    fn record_at(&self, server: ServerId, frame: &CountersFrame, now: Instant) {
        let mut state = self.state();
        let State { nodes, peers } = &mut *state;
        let node = nodes.entry(server).or_default();
        let room = node.consumed.len() < MAX_PEERS;
        let mut refused = 0_u64;
        for (peer, consumed) in &frame.consumed {
            if !node.consumed.observe(*peer, *consumed, room) {
                refused += 1;
            }
        }
        for (peer, counters) in &frame.entries {
            if let Some(entry) = node.peers.get_mut(peer) {
                entry
                    .meter
                    .observe(*counters, frame.taken_at, node.last_frame);
                entry.seen = now;
            } else if *peers < MAX_PEERS {
                *peers += 1;
                let meter = Meter::new(*counters, frame.taken_at);
                node.peers.insert(
                    *peer,
                    Entry {
                        meter,
                        seen: now,
                        misses: 0,
                    },
                );
            } else {
                refused += 1;
            }
        }
        node.last_frame = frame.taken_at;
        if refused > 0 {
            metrics::counter!("usage_peers_refused_total").increment(refused);
        }
    }

    fn unstored(&self) -> Vec<Report> {
        let state = self.state();
        let mut reports = Vec::new();
        for (server, node) in &state.nodes {
            for (peer, entry) in &node.peers {
                if let Some(counters) = entry.meter.unstored() {
                    reports.push(Report {
                        server: *server,
                        peer: *peer,
                        counters: Some(counters),
                        peak: entry.meter.peak(),
                        consumed: node.consumed.latest(*peer),
                    });
                }
            }
            for (peer, consumed) in node.consumed.unstored() {
                let entry = node.peers.get(&peer);
                if entry.is_none_or(|entry| entry.meter.unstored().is_none()) {
                    reports.push(Report {
                        server: *server,
                        peer,
                        counters: None,
                        peak: 0,
                        consumed: Some(consumed),
                    });
                }
            }
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
                    consumed: None,
                })
            })
            .collect()
    }

    /// Takes the database's answer; says whether anybody has an older generation out of the way.
    fn settle(&self, batch: &[Report], stored: &[store::Stored]) -> bool {
        for user in stored.iter().filter_map(|row| row.quota_due) {
            self.quota_due(user);
        }
        let stored: HashMap<_, _> = stored
            .iter()
            .map(|row| ((row.server, row.peer), row.ended))
            .collect();
        let mut more = false;
        let mut state = self.state();
        for report in batch {
            let ended = stored.get(&(report.server, report.peer));
            state.settle_quota(report, ended.copied());
            let Some(entry) = state.entry(report.server, report.peer) else {
                continue;
            };
            let Some(counters) = &report.counters else {
                continue;
            };
            let gone = match ended {
                Some(ended) => {
                    entry.misses = 0;
                    entry.meter.stored(counters);
                    more |= entry
                        .meter
                        .unstored()
                        .is_some_and(|next| next.generation > counters.generation);
                    *ended && entry.meter.unstored().is_none()
                }
                // Locked by somebody else for a moment, or unknown.
                None => {
                    entry.misses += 1;
                    entry.misses >= MAX_MISSES
                }
            };
            if gone {
                state.remove(report.server, report.peer);
            }
        }
        more
    }

    fn forget_idle(&self, now: Instant) {
        let mut state = self.state();
        let State { nodes, peers } = &mut *state;
        nodes.retain(|_, node| {
            node.peers.retain(|_, entry| {
                entry.meter.unstored().is_some()
                    || now.saturating_duration_since(entry.seen) < IDLE_LIFE
            });
            let peers = &node.peers;
            node.consumed
                .forget_stored(|peer| peers.contains_key(&peer));
            !node.peers.is_empty() || !node.consumed.is_empty()
        });
        *peers = nodes.values().map(|node| node.peers.len()).sum();
        drop(state);
        self.round_trips.forget_old(now);
        self.watchers()
            .retain(|_, notify| notify.strong_count() > 0);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self) -> MutexGuard<'_, HashSet<UserId>> {
        self.quotas_due
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn watchers(&self) -> MutexGuard<'_, HashMap<UserId, Weak<Notify>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn entry(&mut self, server: ServerId, peer: PeerId) -> Option<&mut Entry> {
        self.nodes.get_mut(&server)?.peers.get_mut(&peer)
    }

    fn remove(&mut self, server: ServerId, peer: PeerId) {
        let Some(node) = self.nodes.get_mut(&server) else {
            return;
        };
        node.consumed.remove(peer);
        if node.peers.remove(&peer).is_some() {
            self.peers -= 1;
        }
    }

    /// Takes the database's word on what a peer used: whether it ended, none where it was not stored.
    fn settle_quota(&mut self, report: &Report, ended: Option<bool>) {
        let (Some(node), Some(consumed)) = (self.nodes.get_mut(&report.server), report.consumed)
        else {
            return;
        };
        match ended {
            Some(true) => node.consumed.remove(report.peer),
            Some(false) => node.consumed.stored(report.peer, consumed),
            None => node.consumed.missed(report.peer, MAX_MISSES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(taken_at: u64, entries: &[(u64, u64)]) -> CountersFrame {
        let entries = entries
            .iter()
            .map(|(peer, sent)| {
                let counters = PeerCounters {
                    generation: Generation(1),
                    sent: *sent,
                    received: 0,
                    last_handshake: Some(taken_at),
                };
                (PeerId(*peer), counters)
            })
            .collect();
        CountersFrame {
            taken_at,
            entries,
            consumed: Vec::new(),
        }
    }

    fn stored(report: &Report, ended: bool) -> store::Stored {
        store::Stored {
            server: report.server,
            peer: report.peer,
            ended,
            quota_due: None,
        }
    }

    #[test]
    fn a_peer_that_others_outlast_has_no_rate() {
        let (live, server) = (Live::new(), ServerId::generate());
        live.record(server, frame(100, &[(1, 0), (2, 0)]));
        live.record(server, frame(101, &[(1, 1000), (2, 500)]));
        let reading = live.reading(server, PeerId(1)).expect("known");
        assert_eq!((reading.upload, reading.peak), (1000.0, 1000));
        live.record(server, frame(102, &[(2, 600)]));
        live.record(server, frame(103, &[(2, 700)]));
        let reading = live.reading(server, PeerId(1)).expect("known");
        assert_eq!((reading.upload, reading.counters.sent), (0.0, 1000));
    }

    #[test]
    fn ended_peers_leave_once_stored() {
        let (live, server) = (Live::new(), ServerId::generate());
        live.record(server, frame(100, &[(1, 10)]));
        let batch = live.unstored();
        assert!(!live.settle(&batch, &[stored(&batch[0], true)]));
        assert!(live.reading(server, PeerId(1)).is_none());
        assert_eq!(live.state().peers, 0);
    }

    #[test]
    fn unknown_peers_are_given_up() {
        let (live, server) = (Live::new(), ServerId::generate());
        live.record(server, frame(100, &[(1, 10)]));
        for _ in 0..MAX_MISSES {
            let batch = live.unstored();
            assert_eq!(batch.len(), 1);
            live.settle(&batch, &[]);
        }
        assert!(live.unstored().is_empty());
    }

    #[test]
    fn idle_peers_leave_only_when_stored() {
        let (live, server) = (Live::new(), ServerId::generate());
        live.record(server, frame(100, &[(1, 10), (2, 10)]));
        let batch: Vec<_> = live
            .unstored()
            .into_iter()
            .filter(|report| report.peer == PeerId(1))
            .collect();
        live.settle(&batch, &[stored(&batch[0], false)]);
        live.forget_idle(Instant::now() + IDLE_LIFE);
        assert!(live.reading(server, PeerId(1)).is_none());
        assert!(live.reading(server, PeerId(2)).is_some());
    }

    #[tokio::test]
    async fn watchers_are_told_and_forgotten() {
        let (live, user) = (Live::new(), UserId::generate());
        let notify = live.watch(user);
        {
            let told = notify.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            live.changed(user);
            told.await;
        }
        drop(notify);
        live.forget_idle(Instant::now());
        assert!(live.watchers().is_empty());
    }
}
