//! The session's IO: a WebSocket, the rooms above, and the clock, around the machine.

use std::future::{Future, pending};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use futures_util::future::LocalBoxFuture;
use shared::ids::ServerId;
use shared::protocol::{Load, MAX_PEERS_PER_MESSAGE, PlaneMessage, Settings, close};

use super::greeting::{greet, leave, reject};
use super::machine::{Batch, Close, Machine, Output};
use super::registry::{Calls, Ending, Handle};
use super::wire::Wire;
use crate::error::ApiError;
use crate::fleet::Fleet;
use crate::fleet::bus::{Channel, Notice};
use crate::fleet::desired::{Acknowledged, Changes, Snapshot};
use crate::fleet::identity::NodeIdentity;
use crate::fleet::store;
use crate::fleet::view::Live;
use crate::fleet::waiters::{AnswerTimings, Answered};
use crate::listener::websocket::{Ended, Message, WebSocket};

/// Runs one session to its end.
pub(in crate::fleet) async fn run(fleet: Arc<Fleet>, node: NodeIdentity, socket: WebSocket) {
    let mut wire = Wire(socket);
    let close = match greet(&fleet, node, &mut wire).await {
        Ok((handle, machine)) => {
            let mut session = Session {
                fleet: &fleet,
                node,
                handle: &handle,
                machine,
                wire: &mut wire,
                reading: Slot::default(),
                storing: Slot::default(),
                directing: Slot::default(),
                keeping: Slot::default(),
            };
            let close = session.converse().await;
            leave(&fleet, &handle).await;
            close
        }
        Err(rejection) => Some(reject(node.server, rejection, &mut wire).await),
    };
    if let Some(close) = close {
        tracing::info!(server = %node.server, code = close.code, reason = close.reason, "fleet.session.closed");
        metrics::counter!("fleet_sessions_closed_total", "code" => close.code.to_string())
            .increment(1);
        wire.close(close).await;
    }
}

enum Read {
    Changes(Changes),
    Snapshot(Snapshot),
}

struct Session<'a> {
    fleet: &'a Arc<Fleet>,
    node: NodeIdentity,
    handle: &'a Handle,
    machine: Machine,
    wire: &'a mut Wire,
    reading: Slot<Result<Read, ApiError>>,
    storing: Slot<(Result<Vec<Acknowledged>, ApiError>, AnswerTimings, Instant)>,
    directing: Slot<Result<Settings, ApiError>>,
    keeping: Slot<Result<bool, ApiError>>,
}

impl Session<'_> {
    /// Until one side ends it. Says how to close; none when the node is gone.
    async fn converse(&mut self) -> Option<Close> {
        loop {
            while let Some(output) = self.machine.poll() {
                if let ControlFlow::Break(close) = self.perform(output).await {
                    return close;
                }
            }
            let (sent, applied, state_hash) = self.machine.position();
            self.handle.update(|vitals| {
                (vitals.sent, vitals.applied, vitals.state_hash) = (sent, applied, state_hash);
                vitals.settings = self.machine.settings();
            });
            let timeout = tokio::time::Instant::from_std(self.machine.timeout());
            tokio::select! {
                () = self.fleet.shutdown.cancelled() => return Some(Close::RESTARTING),
                calls = self.handle.called() => if let Some(close) = self.heed(calls) {
                    return Some(close);
                },
                frame = self.wire.next() => match self.take(frame) {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(close) => return close,
                },
                read = self.reading.finished() => self.take_read(read),
                stored = self.storing.finished() => self.take_stored(stored),
                settings = self.directing.finished() => self.take_settings(settings),
                kept = self.keeping.finished() => self.take_kept(kept),
                () = tokio::time::sleep_until(timeout) => {
                    self.machine.handle_timeout(Instant::now());
                }
            }
        }
    }

    fn take(&mut self, frame: Result<Message, Ended>) -> ControlFlow<Option<Close>> {
        let now = Instant::now();
        self.handle.update(|vitals| vitals.last_heard = now);
        match frame {
            Ok(Message::Text(text)) => self.machine.handle_text(&text, now),
            Ok(Message::Binary(bytes)) => self.machine.handle_binary(&bytes, now),
            Ok(Message::Pong(payload)) => self.machine.handle_pong(&payload, now),
            // The socket answers pings.
            Ok(_) => self.machine.handle_sign_of_life(now),
            Err(Ended::Gone) => return ControlFlow::Break(None),
            Err(Ended::Malformed) => {
                metrics::counter!("fleet_bad_frames_total").increment(1);
                return ControlFlow::Break(Some(Close::bad_frame("not a frame, or too large")));
            }
        }
        ControlFlow::Continue(())
    }

    /// Says how to close when the calls end the session.
    fn heed(&mut self, calls: Calls) -> Option<Close> {
        match calls.ending {
            Some(Ending::Replaced) => return Some(Close::REPLACED),
            Some(Ending::Revoked) => return Some(Close::REVOKED),
            None => {}
        }
        let now = Instant::now();
        if let Some(signalled) = calls.woken {
            self.machine.handle_wake(signalled, now);
        }
        if calls.redirected {
            self.machine.handle_settings_signal(now);
        }
        if let Some(peers) = calls.looked_at {
            self.machine.handle_looked_at(peers, now);
        }
        None
    }

    fn take_settings(&mut self, settings: Result<Settings, ApiError>) {
        let now = Instant::now();
        match settings {
            Ok(settings) => self.machine.handle_settings(settings, now),
            Err(error) => {
                self.warn("fleet.session.settings_failed", &error);
                self.machine.handle_settings_failed(now);
            }
        }
    }

    fn take_kept(&mut self, kept: Result<bool, ApiError>) {
        let now = Instant::now();
        match kept {
            Ok(is_planned) => {
                self.machine.handle_next_key_stored(now);
                if is_planned {
                    self.fleet.announce_change();
                }
            }
            Err(error) => {
                self.warn("fleet.session.next_key_failed", &error);
                self.machine.handle_next_key_failed(now);
            }
        }
    }

    fn take_read(&mut self, read: Result<Read, ApiError>) {
        let now = Instant::now();
        match read {
            Ok(Read::Changes(changes)) => self.machine.handle_changes(changes, now),
            Ok(Read::Snapshot(snapshot)) => self.machine.handle_snapshot(snapshot, now),
            Err(error) => {
                self.warn("fleet.session.read_failed", &error);
                self.machine.handle_read_failed(now);
            }
        }
    }

    fn take_stored(
        &mut self,
        (stored, timings, started): (Result<Vec<Acknowledged>, ApiError>, AnswerTimings, Instant),
    ) {
        let now = Instant::now();
        match stored {
            Ok(acknowledged) => {
                let store_us = u64::try_from((now - started).as_micros()).unwrap_or(u64::MAX);
                let timings = AnswerTimings {
                    store_us,
                    ..timings
                };
                self.dispatch(acknowledged, timings);
                self.machine.handle_stored(now);
            }
            Err(error) => {
                self.warn("fleet.session.store_failed", &error);
                self.machine.handle_store_failed(now);
            }
        }
    }

    async fn perform(&mut self, output: Output) -> ControlFlow<Option<Close>> {
        let fleet = Arc::clone(self.fleet);
        let server = self.node.server;
        match output {
            Output::Send(message) => return self.wire.text(&message).await,
            Output::Ping(payload) => return self.wire.ping(payload).await,
            Output::ReadChanges(after) => self.reading.fill(async move {
                let read = fleet.desired.changes(server, after, MAX_PEERS_PER_MESSAGE);
                read.await.map(Read::Changes)
            }),
            Output::ReadSnapshot => self.reading.fill(async move {
                metrics::counter!("fleet_resumes_total", "kind" => "resync").increment(1);
                fleet.desired.snapshot(server).await.map(Read::Snapshot)
            }),
            Output::ReadSettings => self
                .directing
                .fill(async move { store::settings(&fleet.db, server).await }),
            Output::StoreNextKey(key) => {
                let fence = self.handle.fence;
                self.keeping
                    .fill(async move { store::keep_next_key(&fleet.db, server, fence, key).await });
            }
            Output::Store(Batch {
                applied,
                results,
                timings,
            }) => {
                let (fence, started) = (self.handle.fence, Instant::now());
                self.storing.fill(async move {
                    let stored = fleet.desired.acknowledge(server, fence, applied, &results);
                    let stored = stored.await;
                    (stored, timings, started)
                });
            }
            Output::Counters(frame) => fleet.counters.record(server, frame),
            Output::Load(load) => self.report(&load),
            Output::RoundTrip(round_trip) => self.measured(round_trip),
            Output::RoundTrips(trips) => fleet.round_trips(server, &trips),
            Output::RenewToken => return self.renew_token().await,
            Output::Close(close) => {
                if close.code == close::BAD_FRAME {
                    metrics::counter!("fleet_bad_frames_total").increment(1);
                }
                return ControlFlow::Break(Some(close));
            }
        }
        ControlFlow::Continue(())
    }

    fn report(&self, load: &Load) {
        self.handle.update(|vitals| {
            vitals.load = load.current_load;
            vitals.peers = load.peers;
            vitals.pool_used = load.pool_used;
            vitals.draining = load.draining;
            vitals.report = Some(load.clone());
        });
        let view = self.fleet.view();
        let Some(server) = view.get(self.node.server) else {
            return;
        };
        let was_draining = server.live().draining;
        server.cell().report(|live| {
            live.load = load.current_load;
            live.peers = load.peers;
            live.pool_used = load.pool_used;
            live.draining = load.draining;
            live.last_seen = Some(Utc::now());
        });
        if was_draining != load.draining {
            self.fleet.announce_change();
        }
    }

    fn measured(&self, round_trip: Duration) {
        let ping = u32::try_from(round_trip.as_millis()).unwrap_or(u32::MAX);
        self.handle.update(|vitals| vitals.ping = ping);
        self.fleet.with_live(self.node.server, |live| {
            live.ping = ping;
            live.last_seen = Some(Utc::now());
        });
    }

    /// Hands answers to whoever waits for them, here or in another replica.
    fn dispatch(&self, acknowledged: Vec<Acknowledged>, timings: AnswerTimings) {
        let count = u64::try_from(acknowledged.len()).unwrap_or(u64::MAX);
        metrics::counter!("fleet_acknowledged_total").increment(count);
        for Acknowledged { connection, answer } in acknowledged {
            let answered = Answered {
                answer,
                public_key: self.handle.public_key,
                timings,
            };
            if let Some(replica) = self.fleet.waiters.resolve(connection, &answered) {
                let notice = Notice::Answer {
                    connection,
                    answered,
                };
                self.fleet.bus.publish(Channel::Replica(replica), notice);
            }
        }
    }

    async fn renew_token(&mut self) -> ControlFlow<Option<Close>> {
        match self.fleet.identity.node_token(self.node, Utc::now()) {
            Ok(token) => self.wire.text(&PlaneMessage::Token(token)).await,
            Err(error) => {
                tracing::error!(server = %self.node.server, %error, "fleet.session.token_not_signed");
                ControlFlow::Continue(())
            }
        }
    }

    fn warn(&self, event: &'static str, error: &ApiError) {
        let source = std::error::Error::source(error);
        tracing::warn!(server = %self.node.server, event, %error, ?source, "fleet.session.database");
    }
}

impl Fleet {
    pub(super) fn with_live(&self, server: ServerId, change: impl FnOnce(&mut Live)) {
        if let Some(server) = self.view().get(server) {
            server.cell().change(change);
        }
    }
}

/// Work under way, at most one piece.
struct Slot<T>(Option<LocalBoxFuture<'static, T>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Slot<T> {
    fn fill(&mut self, work: impl Future<Output = T> + 'static) {
        self.0 = Some(Box::pin(work));
    }

    /// The result, once there is one. Safe to drop and call again.
    async fn finished(&mut self) -> T {
        match &mut self.0 {
            Some(work) => {
                let result = work.await;
                self.0 = None;
                result
            }
            None => pending().await,
        }
    }
}
