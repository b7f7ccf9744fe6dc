//! A session's logic without IO: what to send, read, store and wait for.
//!
//! The shell feeds it frames, wakes, results of its reads and the time, and performs what
//! [`Machine::poll`] asks for. At most one read and one acknowledgement are under way, so that
//! everything that happens meanwhile is coalesced into the next, without any artificial delay. At
//! most [`MAX_IN_FLIGHT`] pushes are unacknowledged; a snapshot is pushed alone.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use shared::ids::{PeerId, Revision, SessionId};
use shared::protocol::counters::CountersFrame;
use shared::protocol::{
    AgentMessage, Applied, Apply, Change, Load, MAX_PEERS_PER_MESSAGE, NextKey, PeerResult,
    PlaneMessage, Resume, RoundTrips, Settings, SnapshotPart, StateHash, Welcome, close,
};

use super::liveness::Liveness;
use super::lookout::Lookout;
use super::settings::Directions;
use crate::fleet::desired::{Changes, Snapshot};
use crate::fleet::waiters::AnswerTimings;

/// Pushes that the node has not acknowledged.
const MAX_IN_FLIGHT: usize = 4;
/// Results that wait to be stored. A node that says more than it was asked is cut off.
const MAX_UNSTORED: usize = 20_000;
/// How long after a failure of the database to try again.
const RETRY: Duration = Duration::from_secs(1);

/// Why the plane ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Close {
    pub(super) code: u16,
    pub(super) reason: &'static str,
}

impl Close {
    pub(super) const RESTARTING: Self = Self {
        code: close::RESTARTING,
        reason: "the plane is going away",
    };
    pub(super) const REPLACED: Self = Self {
        code: close::REPLACED,
        reason: "a newer session took over",
    };

    pub(super) const REVOKED: Self = Self {
        code: close::UNAUTHORIZED,
        reason: "token revoked",
    };

    pub(super) const fn bad_frame(reason: &'static str) -> Self {
        let code = close::BAD_FRAME;
        Self { code, reason }
    }

    pub(super) const fn timed_out(reason: &'static str) -> Self {
        let code = close::TIMED_OUT;
        Self { code, reason }
    }
}

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Output {
    Send(PlaneMessage),
    Ping([u8; 8]),
    /// Read the changes after this revision, then [`Machine::handle_changes`].
    ReadChanges(Revision),
    /// Read the whole state, then [`Machine::handle_snapshot`].
    ReadSnapshot,
    /// Read what the operator wants of the node, then [`Machine::handle_settings`].
    ReadSettings,
    /// Store the node's next key, then [`Machine::handle_next_key_stored`].
    StoreNextKey(NextKey),
    /// Store these, then [`Machine::handle_stored`].
    Store(Batch),
    Counters(CountersFrame),
    Load(Load),
    /// Of the plane's own ping.
    RoundTrip(Duration),
    /// Of clients through the tunnel.
    RoundTrips(RoundTrips),
    RenewToken,
    /// The last output.
    Close(Close),
}

/// Results of a node to be stored in one statement.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Batch {
    /// What the node has applied by now.
    pub(super) applied: Revision,
    pub(super) results: Vec<PeerResult>,
    pub(super) timings: AnswerTimings,
}

/// How a session begins.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) session: SessionId,
    pub(super) protocol: u16,
    pub(super) report_interval: Duration,
    pub(super) server_time: DateTime<Utc>,
    /// Where the node stands.
    pub(super) applied: Revision,
    pub(super) state_hash: StateHash,
    /// The desired revision.
    pub(super) revision: Revision,
    pub(super) resumption: Resumption,
    /// What the operator wants of the node.
    pub(super) settings: Settings,
}

#[derive(Debug)]
pub(super) enum Resumption {
    /// From the node's revision on; first these, whose acknowledgement may have been lost.
    Delta(Vec<Change>),
    Snapshot(Snapshot),
}

/// The state of a session that was welcomed.
#[derive(Debug)]
pub(super) struct Machine {
    outputs: VecDeque<Output>,
    liveness: Liveness,
    lookout: Lookout,
    directions: Directions,
    /// Where the node stands once it has applied all that was sent.
    sent: Revision,
    applied: Revision,
    state_hash: StateHash,
    in_flight: VecDeque<Push>,
    /// Since when there may be something to read.
    dirty: Option<Instant>,
    wants_snapshot: bool,
    reading: Option<Reading>,
    unstored: Batch,
    storing: Option<Batch>,
    retry_at: Option<Instant>,
    closed: bool,
}

#[derive(Debug)]
struct Push {
    to: Revision,
    is_snapshot: bool,
    signalled: Instant,
    sent: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    since: Instant,
}

impl Machine {
    pub(super) fn open(opened: Opened, now: Instant) -> Self {
        let mut machine = Self {
            outputs: VecDeque::new(),
            liveness: Liveness::new(now),
            lookout: Lookout::new(opened.protocol),
            directions: Directions::new(opened.protocol),
            sent: opened.applied,
            applied: opened.applied,
            state_hash: opened.state_hash,
            in_flight: VecDeque::new(),
            dirty: None,
            wants_snapshot: false,
            reading: None,
            unstored: Batch::default(),
            storing: None,
            retry_at: None,
            closed: false,
        };
        let resume = match opened.resumption {
            Resumption::Delta(_) => Resume::Delta,
            Resumption::Snapshot(_) => Resume::Snapshot,
        };
        machine.send(PlaneMessage::Welcome(Welcome {
            session: opened.session,
            protocol: opened.protocol,
            resume,
            revision: opened.revision,
            report_interval_ms: opened
                .report_interval
                .as_millis()
                .try_into()
                .unwrap_or(1_000),
            server_time: opened.server_time,
        }));
        machine.direct(opened.settings);
        match opened.resumption {
            Resumption::Delta(unacknowledged) => {
                let (from, to) = (opened.applied, opened.applied);
                for changes in unacknowledged.chunks(MAX_PEERS_PER_MESSAGE) {
                    let changes = changes.to_vec();
                    machine.push_changes(Apply { from, to, changes }, now, now);
                }
            }
            Resumption::Snapshot(snapshot) => machine.push_snapshot(snapshot, now, now),
        }
        machine.dirty = Some(now);
        machine.advance(now);
        machine
    }

    /// What to do next, until there is nothing.
    pub(super) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Machine::handle_timeout`] at the latest.
    pub(super) fn timeout(&self) -> Instant {
        let others = [self.retry_at, self.lookout.timeout()];
        let others = others.into_iter().flatten();
        others.fold(self.liveness.next(), Instant::min)
    }

    /// The last revision sent, the last applied and its fingerprint.
    pub(super) const fn position(&self) -> (Revision, Revision, StateHash) {
        (self.sent, self.applied, self.state_hash)
    }

    /// What the node was told of the operator's wishes; none when it knows no such message.
    pub(super) const fn settings(&self) -> Option<Settings> {
        self.directions.said()
    }

    pub(super) fn handle_text(&mut self, text: &str, now: Instant) {
        self.liveness.heard(now);
        match AgentMessage::decode(text) {
            Ok(AgentMessage::Applied(applied)) => self.handle_applied(applied, now),
            Ok(AgentMessage::Load(load)) => match sanitised(load) {
                Some(load) => self.outputs.push_back(Output::Load(load)),
                None => self.close(Close::bad_frame("load is not a number")),
            },
            Ok(AgentMessage::Resync) => self.handle_resync(now),
            Ok(AgentMessage::RenewToken) => self.outputs.push_back(Output::RenewToken),
            Ok(AgentMessage::Hello(_)) => self.close(Close::bad_frame("a second hello")),
            Ok(AgentMessage::RoundTrips(trips)) => {
                self.outputs.push_back(Output::RoundTrips(trips));
            }
            Ok(AgentMessage::NextKey(key)) => {
                self.directions.announced(key);
                self.advance(now);
            }
            Ok(AgentMessage::Unknown) => {}
            Err(_) => self.close(Close::bad_frame("not a message")),
        }
    }

    pub(super) fn handle_binary(&mut self, frame: &[u8], now: Instant) {
        self.liveness.heard(now);
        match CountersFrame::decode(frame) {
            Ok(frame) => self.outputs.push_back(Output::Counters(frame)),
            Err(_) => self.close(Close::bad_frame("not a counters frame")),
        }
    }

    pub(super) fn handle_sign_of_life(&mut self, now: Instant) {
        self.liveness.heard(now);
    }

    pub(super) fn handle_pong(&mut self, payload: &[u8], now: Instant) {
        if let Some(round_trip) = self.liveness.pong(payload, now) {
            self.outputs.push_back(Output::RoundTrip(round_trip));
        }
    }

    /// There may be something past what was sent, since `signalled`.
    pub(super) fn handle_wake(&mut self, signalled: Instant, now: Instant) {
        self.dirty.get_or_insert(signalled);
        self.advance(now);
    }

    /// The node shall measure the round trips of these peers and of no others.
    pub(super) fn handle_looked_at(&mut self, peers: Vec<PeerId>, now: Instant) {
        self.lookout.want(peers);
        self.look_out(now);
    }

    pub(super) fn handle_changes(&mut self, read: Changes, now: Instant) {
        let since = self.reading.take().map_or(now, |reading| reading.since);
        if !self.wants_snapshot && read.to > self.sent {
            let (from, to) = (self.sent, read.to);
            self.sent = to;
            let changes = read.changes;
            self.push_changes(Apply { from, to, changes }, since, now);
            if read.more {
                self.dirty.get_or_insert(since);
            }
        }
        self.advance(now);
    }

    pub(super) fn handle_snapshot(&mut self, snapshot: Snapshot, now: Instant) {
        let since = self.reading.take().map_or(now, |reading| reading.since);
        self.wants_snapshot = false;
        self.push_snapshot(snapshot, since, now);
        // What was committed after the snapshot was taken may have been signalled before.
        self.dirty.get_or_insert(now);
        self.advance(now);
    }

    /// The read failed; it is tried again.
    pub(super) fn handle_read_failed(&mut self, now: Instant) {
        let since = self.reading.take().map_or(now, |reading| reading.since);
        self.dirty = Some(since);
        self.retry_at = Some(now + RETRY);
    }

    /// The operator may want something else of the node.
    pub(super) fn handle_settings_signal(&mut self, now: Instant) {
        self.directions.signalled();
        self.advance(now);
    }

    pub(super) fn handle_settings(&mut self, settings: Settings, now: Instant) {
        self.direct(settings);
        self.advance(now);
    }

    /// The read failed; it is tried again.
    pub(super) fn handle_settings_failed(&mut self, now: Instant) {
        self.directions.read_failed();
        self.retry_at = Some(now + RETRY);
    }

    pub(super) fn handle_next_key_stored(&mut self, now: Instant) {
        self.directions.stored();
        self.advance(now);
    }

    /// The store failed; it is tried again.
    pub(super) fn handle_next_key_failed(&mut self, now: Instant) {
        self.directions.store_failed();
        self.retry_at = Some(now + RETRY);
    }

    pub(super) fn handle_stored(&mut self, now: Instant) {
        self.storing = None;
        self.advance(now);
    }

    /// The store failed; it is tried again with whatever came since.
    pub(super) fn handle_store_failed(&mut self, now: Instant) {
        if let Some(mut batch) = self.storing.take() {
            batch.applied = batch.applied.max(self.unstored.applied);
            batch.results.append(&mut self.unstored.results);
            self.unstored = batch;
        }
        self.retry_at = Some(now + RETRY);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.liveness.is_silent(now) {
            return self.close(Close::timed_out("silent"));
        }
        if let Some(payload) = self.liveness.ping(now) {
            self.outputs.push_back(Output::Ping(payload));
        }
        self.look_out(now);
        if self.retry_at.is_some_and(|retry| retry <= now) {
            self.retry_at = None;
            self.advance(now);
        }
    }

    fn handle_applied(&mut self, applied: Applied, now: Instant) {
        if applied.revision > self.sent {
            return self.close(Close::bad_frame("applied what was never sent"));
        }
        if self.unstored.results.len() + applied.results.len() > MAX_UNSTORED {
            return self.close(Close::timed_out("results come faster than they are stored"));
        }
        while let Some(push) = self.in_flight.front()
            && push.to <= applied.revision
        {
            let ended = push.to == applied.revision;
            self.unstored.timings = AnswerTimings {
                queue_us: micros(push.sent - push.signalled),
                round_trip_us: micros(now - push.sent),
                store_us: 0,
                agent: applied.timings,
            };
            self.in_flight.pop_front();
            if ended {
                break;
            }
        }
        self.applied = applied.revision;
        self.state_hash = applied.state_hash;
        self.unstored.applied = self.unstored.applied.max(applied.revision);
        self.unstored.results.extend(applied.results);
        self.advance(now);
    }

    /// A node that was pushed several changes asks once for each; one snapshot answers them all.
    fn handle_resync(&mut self, now: Instant) {
        if self.awaits_snapshot() {
            return;
        }
        self.in_flight.clear();
        self.wants_snapshot = true;
        self.advance(now);
    }

    fn awaits_snapshot(&self) -> bool {
        self.wants_snapshot || self.in_flight.iter().any(|push| push.is_snapshot)
    }

    /// Starts what can be started.
    fn advance(&mut self, now: Instant) {
        if self.closed || self.retry_at.is_some_and(|retry| retry > now) {
            return;
        }
        if self.directions.begin_read() {
            self.outputs.push_back(Output::ReadSettings);
        }
        if let Some(key) = self.directions.begin_store() {
            self.outputs.push_back(Output::StoreNextKey(key));
        }
        if self.storing.is_none() && !self.unstored.results.is_empty() {
            let batch = std::mem::take(&mut self.unstored);
            self.storing = Some(batch.clone());
            self.outputs.push_back(Output::Store(batch));
        }
        if self.reading.is_some() {
            return;
        }
        if self.wants_snapshot {
            let since = self.dirty.take().unwrap_or(now);
            self.reading = Some(Reading { since });
            self.outputs.push_back(Output::ReadSnapshot);
        } else if self.in_flight.len() < MAX_IN_FLIGHT
            && !self.awaits_snapshot()
            && let Some(since) = self.dirty.take()
        {
            self.reading = Some(Reading { since });
            self.outputs.push_back(Output::ReadChanges(self.sent));
        }
    }

    fn push_changes(&mut self, apply: Apply, signalled: Instant, now: Instant) {
        self.in_flight.push_back(Push {
            to: apply.to,
            is_snapshot: false,
            signalled,
            sent: now,
        });
        self.send(PlaneMessage::Apply(apply));
    }

    fn push_snapshot(&mut self, snapshot: Snapshot, signalled: Instant, now: Instant) {
        let revision = snapshot.revision;
        self.sent = revision;
        self.in_flight.push_back(Push {
            to: revision,
            is_snapshot: true,
            signalled,
            sent: now,
        });
        let mut peers = snapshot.peers.into_iter().peekable();
        for part in 0.. {
            let peers_of_part = peers.by_ref().take(MAX_PEERS_PER_MESSAGE).collect();
            let last = peers.peek().is_none();
            self.send(PlaneMessage::Snapshot(SnapshotPart {
                revision,
                part,
                last,
                peers: peers_of_part,
            }));
            if last {
                break;
            }
        }
    }

    fn look_out(&mut self, now: Instant) {
        if let Some(watch) = self.lookout.due(now) {
            self.send(PlaneMessage::Watch(watch));
        }
    }

    fn direct(&mut self, settings: Settings) {
        if let Some(settings) = self.directions.say(settings) {
            self.send(PlaneMessage::Settings(settings));
        }
    }

    fn send(&mut self, message: PlaneMessage) {
        self.outputs.push_back(Output::Send(message));
    }

    fn close(&mut self, close: Close) {
        if !self.closed {
            self.closed = true;
            self.outputs.push_back(Output::Close(close));
        }
    }
}

/// The load within its bounds; none when a figure is no number.
fn sanitised(load: Load) -> Option<Load> {
    load.current_load.is_finite().then(|| Load {
        current_load: load.current_load.clamp(0.0, 100.0),
        ..load
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
