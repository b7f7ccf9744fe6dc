//! The last round trips through tunnels that somebody looks at, fresh in memory and every five seconds with their
//! connections.

mod store;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared::ids::{PeerId, ServerId};
use shared::protocol::{MAX_WATCHED, RoundTrips};
use tokio::time::sleep;

use crate::app::AppState;
use crate::error::ApiError;

/// A client that does not answer for so long has no round trip.
const LIFE: Duration = Duration::from_secs(5);
const STORE_EVERY: Duration = Duration::from_secs(5);

/// By node; holds what is fresh and no more than nodes are asked for.
#[derive(Debug, Default)]
pub(super) struct LastTrips(Mutex<HashMap<ServerId, HashMap<PeerId, Trip>>>);

#[derive(Debug, Clone, Copy)]
struct Trip {
    micros: u32,
    at: Instant,
    is_stored: bool,
}

/// A round trip of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Measured {
    server: ServerId,
    peer: PeerId,
    micros: u32,
}

impl Trip {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < LIFE
    }
}

impl LastTrips {
    pub(super) fn put(&self, server: ServerId, trips: &RoundTrips, now: Instant) {
        let mut nodes = self.nodes();
        let peers = nodes.entry(server).or_default();
        peers.retain(|_, trip| trip.is_fresh(now));
        for (peer, micros) in trips.peers.iter().take(MAX_WATCHED) {
            let trip = Trip {
                micros: *micros,
                at: now,
                is_stored: false,
            };
            peers.insert(*peer, trip);
        }
    }

    /// In whole milliseconds, if the client answered lately.
    pub(super) fn of(&self, server: ServerId, peer: PeerId, now: Instant) -> Option<u32> {
        let nodes = self.nodes();
        let trip = nodes.get(&server)?.get(&peer)?;
        trip.is_fresh(now).then_some(milliseconds(trip.micros))
    }

    /// What was measured since it was asked last.
    fn take_unstored(&self) -> Vec<Measured> {
        let mut nodes = self.nodes();
        let mut taken = Vec::new();
        for (server, peers) in nodes.iter_mut() {
            for (peer, trip) in peers.iter_mut().filter(|(_, trip)| !trip.is_stored) {
                trip.is_stored = true;
                taken.push(Measured {
                    server: *server,
                    peer: *peer,
                    micros: trip.micros,
                });
            }
        }
        taken
    }

    pub(super) fn forget_old(&self, now: Instant) {
        self.nodes().retain(|_, peers| {
            peers.retain(|_, trip| trip.is_fresh(now));
            !peers.is_empty()
        });
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<ServerId, HashMap<PeerId, Trip>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In whole milliseconds.
#[must_use]
pub const fn milliseconds(micros: u32) -> u32 {
    micros.saturating_add(500) / 1000
}

/// Stores what is measured, until the service stops. What cannot be stored is measured again.
pub async fn keep(state: &AppState) {
    let pause = || sleep(STORE_EVERY);
    while state
        .shutdown()
        .run_until_cancelled(pause())
        .await
        .is_some()
    {
        let measured = state.live().round_trips().take_unstored();
        if measured.is_empty() {
            continue;
        }
        if let Err(error) = put(state, &measured).await {
            tracing::debug!(%error, "usage.round_trips_unstored");
        }
    }
}

async fn put(state: &AppState, measured: &[Measured]) -> Result<(), ApiError> {
    let mut connection = state.db().get().await?;
    store::put(&mut connection, measured).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const SERVER: ServerId = ServerId(Uuid::from_u128(1));

    fn trips(peers: &[(u64, u32)]) -> RoundTrips {
        let peers = peers.iter().map(|(peer, micros)| (PeerId(*peer), *micros));
        RoundTrips {
            peers: peers.collect(),
        }
    }

    #[test]
    fn a_client_that_falls_silent_has_no_round_trip() {
        let (last, now) = (LastTrips::default(), Instant::now());
        last.put(SERVER, &trips(&[(1, 24_600), (2, 400)]), now);
        assert_eq!(last.of(SERVER, PeerId(1), now), Some(25));
        assert_eq!(last.of(SERVER, PeerId(2), now), Some(0));
        assert_eq!(last.of(SERVER, PeerId(3), now), None);
        last.put(SERVER, &trips(&[(1, 30_000)]), now + LIFE / 2);
        assert_eq!(last.of(SERVER, PeerId(1), now + LIFE), Some(30));
        assert_eq!(last.of(SERVER, PeerId(2), now + LIFE), None);
        last.forget_old(now + LIFE * 2);
        assert!(last.nodes().is_empty());
    }

    #[test]
    fn each_measurement_is_stored_once() {
        let (last, now) = (LastTrips::default(), Instant::now());
        let measured = |micros| Measured {
            server: SERVER,
            peer: PeerId(1),
            micros,
        };
        last.put(SERVER, &trips(&[(1, 24_600)]), now);
        assert_eq!(last.take_unstored(), [measured(24_600)]);
        assert!(last.take_unstored().is_empty());
        last.put(SERVER, &trips(&[(1, 30_000)]), now);
        assert_eq!(last.take_unstored(), [measured(30_000)]);
    }
}
