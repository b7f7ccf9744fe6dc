//! How a session enters the process and leaves it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use shared::ids::ServerId;
use shared::protocol::{AgentMessage, Hello, PlaneMessage};

use super::machine::{Close, Machine};
use super::opening::{self, Rejection};
use super::registry::{Handle, Vitals};
use super::wire::{FAREWELL_PATIENCE, Wire};
use crate::fleet::Fleet;
use crate::fleet::identity::NodeIdentity;
use crate::fleet::store;
use crate::listener::websocket::{Ended, Message};

/// How long a node may take for its first message.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);

/// Reads the Hello, takes the lease and puts the node on the map.
pub(super) async fn greet(
    fleet: &Fleet,
    node: NodeIdentity,
    wire: &mut Wire,
) -> Result<(Arc<Handle>, Machine), Rejection> {
    let hello = fleet
        .shutdown
        .run_until_cancelled(tokio::time::timeout(HELLO_PATIENCE, hello(wire)))
        .await
        .ok_or(Rejection::Closed(Close::RESTARTING))?
        .map_err(|_| Rejection::Closed(Close::timed_out("no hello")))?
        .map_err(Rejection::Closed)?;
    let (lease, opened) = opening::open(fleet, node, &hello).await?;
    let now = Instant::now();
    let handle = Arc::new(Handle::new(
        node,
        lease.fence,
        hello.public_key,
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
            report: None,
            settings: None,
        },
    ));
    let machine = Machine::open(opened, now);
    if !fleet.sessions.enter(&handle) {
        return Err(Rejection::Closed(Close::REPLACED));
    }
    metrics::gauge!("fleet_sessions").increment(1);
    if lease.key_changed {
        tracing::info!(server = %node.server, "fleet.key_rotated");
    }
    if lease.profile_changed || fleet.view().get(node.server).is_none() {
        fleet.refresh().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "fleet.view.refresh_failed");
        });
    }
    fleet.with_live(node.server, |live| {
        live.replica = Some(fleet.replica);
        live.last_seen = Some(Utc::now());
        live.draining = hello.draining;
        live.protocol = hello.protocol;
    });
    fleet.announce_change();
    tracing::info!(server = %node.server, agent = hello.agent_version, backend = hello.backend, "fleet.session.opened");
    Ok((handle, machine))
}

/// The first message, which has to be a Hello.
async fn hello(wire: &mut Wire) -> Result<Hello, Close> {
    loop {
        return match wire.next().await {
            Ok(Message::Ping(_) | Message::Pong(_)) => continue,
            Ok(Message::Text(text)) => match AgentMessage::decode(&text) {
                Ok(AgentMessage::Hello(hello)) => Ok(hello),
                _ => Err(Close::bad_frame("the first message is no hello")),
            },
            Err(Ended::Gone) => Err(Close::timed_out("gone")),
            Ok(_) | Err(Ended::Malformed) => Err(Close::bad_frame("the first message is no hello")),
        };
    }
}

/// Says no; gives the close that follows.
pub(super) async fn reject(server: ServerId, rejection: Rejection, wire: &mut Wire) -> Close {
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
pub(super) async fn leave(fleet: &Fleet, handle: &Handle) {
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
