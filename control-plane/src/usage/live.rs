//! What the nodes whose sessions are here report, second by second.
//!
//! Frames are folded in memory and written in batches. Nothing here is needed to know the truth: a
//! plane that is killed loses what the node's next frame says again, since totals are cumulative.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use shared::ids::{PeerId, ServerId, UserId};
use shared::protocol::counters::CountersFrame;
use shared::protocol::{PeerCounters, RoundTrips};
use tokio::sync::Notify;

use super::audience::Audience;
use super::consumption::Consumptions;
use super::ledger::Ledger;
use super::meter::Meter;
use super::round_trips::LastTrips;
use super::store;
use super::tickets::KeptTickets;
use super::watchlist::Watchlist;
use crate::fleet::desired::CounterSink;

/// Peers kept in memory; past that, newcomers are not metered live until others leave.
const MAX_PEERS: usize = 1_000_000;
/// A rate is shown for so long after the frame that gave it.
const RATE_LIFE: Duration = Duration::from_millis(2500);
/// A stored peer that did not move for so long leaves memory.
pub(super) const IDLE_LIFE: Duration = Duration::from_secs(600);

/// A peer at this moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The node's newest report.
    pub counters: PeerCounters,
    /// The last reports of earlier generations that are not stored yet, oldest first.
    pub earlier: Vec<PeerCounters>,
    /// Bytes a second.
    pub upload: f64,
    pub download: f64,
    /// Bytes in the fastest second, both directions together, since this replica follows the peer.
    pub peak: u64,
}

impl Reading {
    /// What the connection came to, of which `stored` is in its row.
    #[must_use]
    pub fn fold(&self, stored: Ledger) -> Ledger {
        let earlier = self.earlier.iter().fold(stored, Ledger::fold);
        earlier.fold(&self.counters)
    }

    #[must_use]
    pub fn last_handshake(&self) -> Option<DateTime<Utc>> {
        store::handshake_time(&self.counters)
    }
}

/// The live counters of every node whose session this replica holds.
#[derive(Debug, Default)]
pub struct Live {
    state: Mutex<State>,
    watchlist: Watchlist,
    audience: Arc<Audience>,
    round_trips: LastTrips,
    tickets: KeptTickets,
    /// Whose quotas are to be shared anew.
    quotas_due: Mutex<HashSet<UserId>>,
    quota_due: Notify,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) nodes: HashMap<ServerId, Node>,
    pub(super) peers: usize,
    /// How often the database was written.
    pub(super) turn: u64,
}

#[derive(Debug, Default)]
pub(super) struct Node {
    /// When the node's last frame was taken, in its own clock's Unix seconds.
    last_frame: u64,
    pub(super) peers: HashMap<PeerId, Entry>,
    pub(super) consumed: Consumptions,
    /// Peers that are stored ahead of others: new ones, and those whose part of a quota is used.
    pub(super) urgent: HashSet<PeerId>,
    /// The turn in which all that the node said was stored.
    pub(super) stored_in: u64,
    /// What the last frame said, and when it came.
    flow: Option<(Flow, Instant)>,
}

/// What moves through nodes at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Flow {
    /// Bytes a second.
    pub upload: f64,
    pub download: f64,
    /// Peers whose counters moved.
    pub moving: usize,
}

impl Flow {
    fn add(&mut self, other: &Self) {
        self.upload += other.upload;
        self.download += other.download;
        self.moving += other.moving;
    }
}

/// What is kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    pub peers: usize,
    /// Peers of which the database does not have everything yet.
    pub unstored: usize,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) meter: Meter,
    seen: Instant,
    pub(super) misses: u8,
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
            earlier: entry.meter.earlier().collect(),
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

    /// What moves through the nodes of this replica.
    #[must_use]
    pub fn flow(&self, now: Instant) -> Flow {
        let mut all = Flow::default();
        for (flow, at) in self
            .state()
            .nodes
            .values()
            .filter_map(|node| node.flow.as_ref())
        {
            if now.saturating_duration_since(*at) < RATE_LIFE {
                all.add(flow);
            }
        }
        all
    }

    /// What is kept in memory. Looks at every peer.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        let state = self.state();
        let peers = state.nodes.values().flat_map(|node| node.peers.values());
        Holdings {
            peers: state.peers,
            unstored: peers
                .filter(|entry| entry.meter.unstored().is_some())
                .count(),
        }
    }

    /// Who looks at which connections through this replica.
    #[must_use]
    pub const fn audience(&self) -> &Arc<Audience> {
        &self.audience
    }

    pub(super) const fn round_trips(&self) -> &LastTrips {
        &self.round_trips
    }

    /// The tickets that Redis did not take.
    pub(super) const fn tickets(&self) -> &KeptTickets {
        &self.tickets
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

    /// The peer's part of a quota may be another one now.
    pub fn reshared(&self, server: ServerId, peer: PeerId) {
        if let Some(node) = self.state().nodes.get_mut(&server) {
            node.consumed.reshared(peer);
        }
    }

    /// The peer is gone and its final counters are stored.
    pub fn forget(&self, server: ServerId, peer: PeerId) {
        self.state().remove(server, peer);
    }

    /// Who is watched at this replica.
    pub(super) const fn watchlist(&self) -> &Watchlist {
        &self.watchlist
    }

    /// The connections of this user changed.
    pub fn changed(&self, user: UserId) {
        self.watchlist.changed(user);
    }

    pub(super) fn record_at(&self, server: ServerId, frame: &CountersFrame, now: Instant) {
        metrics::counter!("usage_frames_total").increment(1);
        metrics::counter!("usage_peer_reports_total")
            .increment(u64::try_from(frame.entries.len()).unwrap_or(u64::MAX));
        let mut state = self.state();
        let State { nodes, peers, .. } = &mut *state;
        let node = nodes.entry(server).or_default();
        let room = node.consumed.len() < MAX_PEERS;
        let mut refused = 0_u64;
        let mut flow = Flow::default();
        for (peer, consumed) in &frame.consumed {
            if !node.consumed.observe(*peer, *consumed, room) {
                refused += 1;
            } else if node.consumed.is_due(*peer) {
                node.urgent.insert(*peer);
            }
        }
        for (peer, counters) in &frame.entries {
            if let Some(entry) = node.peers.get_mut(peer) {
                entry
                    .meter
                    .observe(*counters, frame.taken_at, node.last_frame);
                entry.seen = now;
                let (upload, download) = entry.meter.rates();
                flow.add(&Flow {
                    upload,
                    download,
                    moving: 1,
                });
            } else if *peers < MAX_PEERS {
                *peers += 1;
                node.urgent.insert(*peer);
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
        node.flow = Some((flow, now));
        if refused > 0 {
            metrics::counter!("usage_peers_refused_total").increment(refused);
        }
    }

    pub(super) fn forget_idle(&self, now: Instant) {
        let mut state = self.state();
        let State { nodes, peers, .. } = &mut *state;
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
        self.tickets.forget_old(now);
        self.watchlist.forget_unwatched();
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self) -> MutexGuard<'_, HashSet<UserId>> {
        self.quotas_due
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn remove(&mut self, server: ServerId, peer: PeerId) {
        let Some(node) = self.nodes.get_mut(&server) else {
            return;
        };
        node.consumed.remove(peer);
        node.urgent.remove(&peer);
        if node.peers.remove(&peer).is_some() {
            self.peers -= 1;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use shared::ids::Generation;

    use super::*;

    pub(in crate::usage) fn frame(taken_at: u64, entries: &[(u64, u64)]) -> CountersFrame {
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
    fn a_new_generation_takes_nothing_from_what_was_told() {
        let (live, server) = (Live::new(), ServerId::generate());
        let told = || {
            let reading = live.reading(server, PeerId(1)).expect("known");
            reading.fold(Ledger::default()).sent
        };
        live.record(server, frame(100, &[(1, 1000)]));
        assert_eq!(told(), 1000);
        let mut renewed = frame(101, &[(1, 5)]);
        renewed.entries[0].1.generation = Generation(2);
        live.record(server, renewed);
        assert_eq!(told(), 1005);
    }

    #[test]
    fn what_moves_is_the_sum_of_the_last_frames() {
        let (live, one, other) = (Live::new(), ServerId::generate(), ServerId::generate());
        live.record(one, frame(100, &[(1, 0), (2, 0)]));
        live.record(one, frame(101, &[(1, 1000), (2, 500)]));
        live.record(other, frame(100, &[(1, 0)]));
        live.record(other, frame(101, &[(1, 250)]));
        let flow = live.flow(Instant::now());
        assert_eq!((flow.upload, flow.download, flow.moving), (1750.0, 0.0, 3));
        live.record(one, frame(102, &[(2, 600)]));
        let flow = live.flow(Instant::now());
        assert_eq!((flow.upload, flow.moving), (350.0, 2));
        assert_eq!(live.flow(Instant::now() + RATE_LIFE), Flow::default());
        let holdings = live.holdings();
        assert_eq!((holdings.peers, holdings.unstored), (3, 3));
    }
}
