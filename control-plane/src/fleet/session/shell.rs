//! The session's IO: a WebSocket, the rooms above, and the clock, around the machine.

use std::future::{Future, pending};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason};
use chrono::Utc;
use futures_util::future::LocalBoxFuture;
use shared::ids::ServerId;
use shared::protocol::{AgentMessage, Hello, Load, MAX_PEERS_PER_MESSAGE, PlaneMessage, close};

use super::machine::{Batch, Close, Machine, Output};
use super::opening::{self, Rejection};
use super::registry::{Ending, Handle, Vitals};
use crate::error::ApiError;
use crate::fleet::Fleet;
use crate::fleet::bus::{Channel, Notice};
use crate::fleet::desired::{Acknowledged, Changes, Snapshot};
use crate::fleet::identity::NodeIdentity;
use crate::fleet::store;
use crate::fleet::view::Live;
use crate::fleet::waiters::{AnswerTimings, Answered};

/// How long a node may take for its first message.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// How long one frame may wait for the node to read.
const SEND_PATIENCE: Duration = Duration::from_secs(10);
/// How long the farewell may take: giving back the lease, and waiting for the node's own close.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(2);

/// Runs one session to its end.
pub(in crate::fleet) async fn run(
    fleet: Arc<Fleet>,
    node: NodeIdentity,
    socket: actix_ws::Session,
    mut frames: AggregatedMessageStream,
) {
    let mut wire = Wire(socket);
    let close = match greet(&fleet, node, &mut frames).await {
        Ok((handle, machine)) => {
            let mut session = Session {
                fleet: &fleet,
                node,
                handle: &handle,
                machine,
                wire: &mut wire,
                reading: Slot::default(),
                storing: Slot::default(),
            };
            let close = session.converse(&mut frames).await;
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
        // Bytes of the node that nobody read would reset the connection before it sees the close.
        let drain = async { while frames.recv().await.is_some_and(|frame| frame.is_ok()) {} };
        let _ = tokio::time::timeout(FAREWELL_PATIENCE, drain).await;
    }
}

async fn greet(
    fleet: &Fleet,
    node: NodeIdentity,
    frames: &mut AggregatedMessageStream,
) -> Result<(Arc<Handle>, Machine), Rejection> {
    let hello = fleet
        .shutdown
        .run_until_cancelled(tokio::time::timeout(HELLO_PATIENCE, hello(frames)))
        .await
        .ok_or(Rejection::Closed(RESTARTING))?
        .map_err(|_| Rejection::Closed(Close::timed_out("no hello")))?
        .map_err(Rejection::Closed)?;
    let (lease, opened) = opening::open(fleet, node, &hello).await?;
    let now = Instant::now();
    let handle = Arc::new(Handle::new(
        node.server,
        lease.fence,
        node.epoch,
        Vitals {
            last_heard: now,
            load: 0.0,
            ping: 0,
            peers: 0,
            pool_used: 0,
            draining: hello.draining,
            sent: opened.applied,
            applied: opened.applied,
            state_hash: opened.state_hash,
        },
    ));
    let machine = Machine::open(opened, now);
    if !fleet.sessions.enter(&handle) {
        return Err(Rejection::Closed(REPLACED));
    }
    metrics::gauge!("fleet_sessions").increment(1);
    if lease.profile_changed || fleet.view().get(node.server).is_none() {
        fleet.refresh().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "fleet.view.refresh_failed");
        });
    }
    fleet.with_live(node.server, |live| {
        live.replica = Some(fleet.replica);
        live.last_seen = Some(Utc::now());
        live.draining = hello.draining;
    });
    fleet.announce_change();
    tracing::info!(server = %node.server, agent = hello.agent_version, backend = hello.backend, "fleet.session.opened");
    Ok((handle, machine))
}

const RESTARTING: Close = Close {
    code: close::RESTARTING,
    reason: "the plane is going away",
};

const REPLACED: Close = Close {
    code: close::REPLACED,
    reason: "a newer session took over",
};

/// The first message, which has to be a Hello.
async fn hello(frames: &mut AggregatedMessageStream) -> Result<Hello, Close> {
    loop {
        return match frames.recv().await {
            Some(Ok(AggregatedMessage::Ping(_) | AggregatedMessage::Pong(_))) => continue,
            Some(Ok(AggregatedMessage::Text(text))) => match AgentMessage::decode(&text) {
                Ok(AgentMessage::Hello(hello)) => Ok(hello),
                _ => Err(bad_frame("the first message is no hello")),
            },
            Some(Ok(AggregatedMessage::Close(_))) | None => Err(Close::timed_out("gone")),
            Some(Ok(AggregatedMessage::Binary(_)) | Err(_)) => {
                Err(bad_frame("the first message is no hello"))
            }
        };
    }
}

fn bad_frame(reason: &'static str) -> Close {
    Close::bad_frame(reason)
}

async fn reject(server: ServerId, rejection: Rejection, wire: &mut Wire) -> Close {
    match rejection {
        Rejection::Refused(refused, close) => {
            tracing::warn!(%server, reason = refused.message, "fleet.session.refused");
            metrics::counter!("fleet_sessions_refused_total").increment(1);
            // The close says it as well.
            let _ = wire.text(&PlaneMessage::Refused(refused)).await;
            close
        }
        Rejection::Closed(close) => close,
        Rejection::Failed(error) => {
            tracing::warn!(%server, %error, source = ?std::error::Error::source(&error), "fleet.session.failed");
            Close::timed_out("the plane cannot open a session now")
        }
    }
}

/// Takes the session off the map: the node is offline at once, not after its last heartbeat ages.
async fn leave(fleet: &Fleet, handle: &Handle) {
    metrics::gauge!("fleet_sessions").decrement(1);
    if !fleet.sessions.leave(handle) {
        return;
    }
    fleet.with_live(handle.server, |live| live.replica = None);
    let release = store::release_lease(&fleet.db, handle.server, handle.fence);
    match tokio::time::timeout(FAREWELL_PATIENCE, release).await {
        Ok(Ok(())) => fleet.announce_change(),
        Ok(Err(error)) => tracing::warn!(%error, "fleet.session.release_failed"),
        Err(_) => tracing::warn!("fleet.session.release_slow"),
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
}

impl Session<'_> {
    /// Until one side ends it. Says how to close; none when the node is gone.
    async fn converse(&mut self, frames: &mut AggregatedMessageStream) -> Option<Close> {
        loop {
            while let Some(output) = self.machine.poll() {
                if let ControlFlow::Break(close) = self.perform(output).await {
                    return close;
                }
            }
            let (sent, applied, state_hash) = self.machine.position();
            self.handle.update(|vitals| {
                (vitals.sent, vitals.applied, vitals.state_hash) = (sent, applied, state_hash);
            });
            let timeout = tokio::time::Instant::from_std(self.machine.timeout());
            tokio::select! {
                () = self.fleet.shutdown.cancelled() => return Some(RESTARTING),
                (woken, ending) = self.handle.called() => {
                    if ending == Some(Ending::Replaced) {
                        return Some(REPLACED);
                    }
                    if let Some(signalled) = woken {
                        self.machine.handle_wake(signalled, Instant::now());
                    }
                }
                frame = frames.recv() => match self.take(frame) {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(close) => return close,
                },
                read = self.reading.finished() => self.take_read(read),
                stored = self.storing.finished() => self.take_stored(stored),
                () = tokio::time::sleep_until(timeout) => {
                    self.machine.handle_timeout(Instant::now());
                }
            }
        }
    }

    fn take(
        &mut self,
        frame: Option<Result<AggregatedMessage, actix_ws::ProtocolError>>,
    ) -> ControlFlow<Option<Close>> {
        let now = Instant::now();
        self.handle.update(|vitals| vitals.last_heard = now);
        match frame {
            Some(Ok(AggregatedMessage::Text(text))) => self.machine.handle_text(&text, now),
            Some(Ok(AggregatedMessage::Binary(bytes))) => self.machine.handle_binary(&bytes, now),
            Some(Ok(AggregatedMessage::Ping(payload))) => {
                self.machine.handle_ping(&payload, now);
            }
            Some(Ok(AggregatedMessage::Pong(payload))) => self.machine.handle_pong(&payload, now),
            Some(Ok(AggregatedMessage::Close(_))) | None => return ControlFlow::Break(None),
            Some(Err(_)) => {
                metrics::counter!("fleet_bad_frames_total").increment(1);
                return ControlFlow::Break(Some(bad_frame("not a frame, or too large")));
            }
        }
        ControlFlow::Continue(())
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
                self.fleet.dispatch(acknowledged, timings);
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
            Output::Ping(payload) => return self.wire.ping(&payload).await,
            Output::Pong(payload) => return self.wire.pong(&payload).await,
            Output::ReadChanges(after) => self.reading.fill(async move {
                let read = fleet.desired.changes(server, after, MAX_PEERS_PER_MESSAGE);
                read.await.map(Read::Changes)
            }),
            Output::ReadSnapshot => self.reading.fill(async move {
                metrics::counter!("fleet_resumes_total", "kind" => "resync").increment(1);
                fleet.desired.snapshot(server).await.map(Read::Snapshot)
            }),
            Output::Store(Batch { results, timings }) => {
                let (fence, started) = (self.handle.fence, Instant::now());
                self.storing.fill(async move {
                    let stored = fleet.desired.acknowledge(server, fence, &results).await;
                    (stored, timings, started)
                });
            }
            Output::Counters(frame) => fleet.counters.record(server, frame),
            Output::Load(load) => self.report(&load),
            Output::RoundTrip(round_trip) => self.measured(round_trip),
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
    /// Hands answers to whoever waits for them, here or in another replica.
    fn dispatch(&self, acknowledged: Vec<Acknowledged>, timings: AnswerTimings) {
        let count = u64::try_from(acknowledged.len()).unwrap_or(u64::MAX);
        metrics::counter!("fleet_acknowledged_total").increment(count);
        for Acknowledged { connection, answer } in acknowledged {
            let answered = Answered { answer, timings };
            if let Some(replica) = self.waiters.resolve(connection, &answered) {
                let notice = Notice::Answer {
                    connection,
                    answered,
                };
                self.bus.publish(Channel::Replica(replica), notice);
            }
        }
    }

    fn with_live(&self, server: ServerId, change: impl FnOnce(&mut Live)) {
        if let Some(server) = self.view().get(server) {
            server.cell().change(change);
        }
    }
}

/// The socket, with patience.
struct Wire(actix_ws::Session);

impl Wire {
    async fn text(&mut self, message: &PlaneMessage) -> ControlFlow<Option<Close>> {
        sent(self.0.text(message.encode())).await
    }

    async fn ping(&mut self, payload: &[u8]) -> ControlFlow<Option<Close>> {
        sent(self.0.ping(payload)).await
    }

    async fn pong(&mut self, payload: &[u8]) -> ControlFlow<Option<Close>> {
        sent(self.0.pong(payload)).await
    }

    async fn close(self, close: Close) {
        let reason = CloseReason {
            code: CloseCode::Other(close.code),
            description: Some(close.reason.to_owned()),
        };
        let _ = tokio::time::timeout(FAREWELL_PATIENCE, self.0.close(Some(reason))).await;
    }
}

async fn sent(
    sending: impl Future<Output = Result<(), actix_ws::Closed>>,
) -> ControlFlow<Option<Close>> {
    match tokio::time::timeout(SEND_PATIENCE, sending).await {
        Ok(Ok(())) => ControlFlow::Continue(()),
        Ok(Err(actix_ws::Closed)) => ControlFlow::Break(None),
        Err(_) => ControlFlow::Break(Some(Close::timed_out("the node does not read"))),
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
